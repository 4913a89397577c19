//! Results as data: per range and image, in totals, and as lines of JSON.

use std::collections::BTreeMap;

use control::RangeName;
use serde::{Deserialize, Serialize};
use transfer::event::ImageReport;
use transfer::{EngineInfo, Outcome, Reference, Stage};

use crate::stage::RangeStage;

/// The state in which [`Ranges::up`](crate::Ranges::up) found a range, and what it did about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provision {
    /// It ran already, made from the same parts: nothing was touched.
    Kept,
    /// It was there, but stopped: started again.
    Started,
    /// It was there, but half made, not answering, or made from older parts: its container was
    /// made again, and the images on its volume stayed.
    Remade,
    /// It is new, and its engine had nothing.
    Made,
    /// It is new, and its engine began with a copy of a seed.
    Cloned,
}

/// Result for one range.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeReport {
    /// The range.
    pub range: RangeName,
    /// The engine inside, as it answered; absent when it did not.
    pub engine: Option<EngineInfo>,
    /// Work done on its container; `None` after a mere sync and after a failure.
    pub provision: Option<Provision>,
    /// Seconds spent per stage, in the order they were entered.
    pub stages: Vec<(RangeStage, f64)>,
    /// One for each image it should have, in the order asked. When the range itself failed, every
    /// image did.
    pub images: Vec<ImageReport>,
    /// Error text with advice if the range could not be brought up or reached; `None` on success.
    /// An image that failed is not the range's error.
    pub error: Option<String>,
}

/// Results for all ranges of a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One for each range, in the order asked.
    pub ranges: Vec<RangeReport>,
}

/// The sums of a [`Report`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Ranges that are up.
    pub ranges_up: usize,
    /// Ranges that are not.
    pub ranges_failed: usize,
    /// Images that were loaded or named, and proven.
    pub synced: usize,
    /// Images that were there already, and proven again.
    pub skipped: usize,
    /// Images that are not there, or not proven.
    pub failed: usize,
    /// Layer bytes moved into ranges.
    pub bytes_moved: u64,
    /// Layer bytes that did not have to move.
    pub bytes_saved: u64,
    /// Seconds per stage of ranges, summed over all of them: ranges at once make this more than
    /// the time on the wall.
    pub range_seconds: BTreeMap<RangeStage, f64>,
    /// Seconds per stage of images, summed likewise, in the order in which stages follow.
    pub image_seconds: Vec<(Stage, f64)>,
}

/// One line of JSON per range and image: what scripts read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageLine {
    /// The range.
    pub range: String,
    /// Product and version of the engine inside; null when it did not answer.
    pub engine: Option<String>,
    /// `graphdriver` or `containerd`; null when the engine did not answer.
    pub store: Option<String>,
    /// The requested image.
    pub image: String,
    /// The result.
    pub outcome: Outcome,
    /// True if the engine confirmed every layer, after the load.
    pub proven: bool,
    /// Layer bytes moved into the range.
    pub bytes_moved: u64,
    /// Layer bytes of the image that did not have to move.
    pub bytes_saved: u64,
    /// Seconds from its first stage to its last, to the millisecond.
    pub seconds: f64,
    /// Error text with advice; null on success.
    pub error: Option<String>,
}

impl RangeReport {
    /// True if the range is up and has all its images.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.error.is_none() && self.images.iter().all(|image| image.outcome != Outcome::Failed)
    }

    /// The lines of this range, one for each image.
    pub fn lines(&self) -> impl Iterator<Item = ImageLine> + '_ {
        self.images.iter().map(|image| ImageLine {
            range: self.range.to_string(),
            engine: self.engine.as_ref().map(|engine| engine.engine.clone()),
            store: self.engine.as_ref().map(|engine| engine.store.to_string()),
            image: image.reference.to_string(),
            outcome: image.outcome,
            proven: image.proven,
            bytes_moved: image.bytes_moved,
            bytes_saved: image.bytes_saved,
            seconds: (image.seconds() * 1000.0).round() / 1000.0,
            error: image.error.clone(),
        })
    }
}

impl Report {
    /// Reports in the order asked, from the order in which they ended.
    pub(crate) fn in_order(mut reports: Vec<(usize, RangeReport)>) -> Self {
        reports.sort_by_key(|(position, _)| *position);
        Self { ranges: reports.into_iter().map(|(_, report)| report).collect() }
    }

    /// True if every range is up and has all its images.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ranges.iter().all(RangeReport::is_whole)
    }

    /// The lines of all ranges.
    pub fn lines(&self) -> impl Iterator<Item = ImageLine> + '_ {
        self.ranges.iter().flat_map(RangeReport::lines)
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for range in &self.ranges {
            match range.error {
                None => totals.ranges_up += 1,
                Some(_) => totals.ranges_failed += 1,
            }
            for (stage, seconds) in &range.stages {
                *totals.range_seconds.entry(*stage).or_default() += seconds;
            }
            range.images.iter().for_each(|image| totals.add(image));
        }
        totals
    }
}

impl Totals {
    fn add(&mut self, image: &ImageReport) {
        match image.outcome {
            Outcome::Synced => self.synced += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Failed => self.failed += 1,
        }
        self.bytes_moved += image.bytes_moved;
        self.bytes_saved += image.bytes_saved;
        for (stage, seconds) in &image.stages {
            match self.image_seconds.iter_mut().find(|(known, _)| known == stage) {
                Some((_, sum)) => *sum += seconds,
                None => self.image_seconds.push((*stage, *seconds)),
            }
        }
        self.image_seconds.sort_by_key(|(stage, _)| STAGES.iter().position(|known| known == stage));
    }
}

/// The order in which an image's stages follow.
const STAGES: [Stage; 8] = [
    Stage::Resolve,
    Stage::Export,
    Stage::Plan,
    Stage::Wait,
    Stage::Load,
    Stage::Heal,
    Stage::Prove,
    Stage::Tag,
];

/// The report of an image that nobody could even ask for, since its range failed.
pub(crate) fn unreached(reference: &Reference, error: &str) -> ImageReport {
    ImageReport {
        reference: reference.clone(),
        config_digest: None,
        engine_image_id: None,
        outcome: Outcome::Failed,
        proven: false,
        bytes_moved: 0,
        bytes_saved: 0,
        stages: Vec::new(),
        error: Some(error.to_owned()),
    }
}

#[cfg(test)]
mod tests;
