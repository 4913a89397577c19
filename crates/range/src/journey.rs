//! The progress of one range through its stages: reported as events, and timed.

use std::sync::Arc;
use std::time::Instant;

use control::RangeName;
use transfer::event::ImageReport;
use transfer::{EngineInfo, Reference};

use crate::error::RangeError;
use crate::event::{RangeEvent, RangeEventKind, RangeObserver};
use crate::report::{Provision, RangeReport, unreached};
use crate::slots::Slot;
use crate::stage::RangeStage;

/// A range under work; it always ends in a report.
pub(crate) struct Journey {
    pub(crate) range: RangeName,
    observer: Arc<dyn RangeObserver>,
    stages: Vec<(RangeStage, f64)>,
    entered: Option<(RangeStage, Instant)>,
    /// The images that it should have.
    pub(crate) wanted: Vec<Reference>,
    /// The engine inside, once it answered.
    pub(crate) engine: Option<EngineInfo>,
    /// Work done on its container; `None` if none was.
    pub(crate) provision: Option<Provision>,
    /// The results for its images.
    pub(crate) images: Vec<ImageReport>,
    /// Its slots while it is worked on; empty while it only waits.
    pub(crate) slot: Slot,
}

impl Journey {
    pub(crate) fn begin(range: RangeName, observer: Arc<dyn RangeObserver>) -> Self {
        Self {
            range,
            observer,
            stages: Vec::new(),
            entered: None,
            wanted: Vec::new(),
            engine: None,
            provision: None,
            images: Vec::new(),
            slot: Slot::default(),
        }
    }

    /// Ends the stage before, and begins `stage`.
    pub(crate) fn enter(&mut self, stage: RangeStage) {
        self.leave();
        self.entered = Some((stage, Instant::now()));
        self.tell(RangeEventKind::Entered(stage));
    }

    /// Passes on an event of one of its images.
    pub(crate) fn image(&self, event: transfer::Event) {
        self.tell(RangeEventKind::Image(event));
    }

    /// Reports a detour.
    pub(crate) fn note(&self, text: String) {
        tracing::warn!(range = %self.range, "{text}");
        self.tell(RangeEventKind::Noted(text));
    }

    /// The report, which is also the last event.
    pub(crate) fn end(mut self, result: Result<(), RangeError>) -> RangeReport {
        self.leave();
        let error = result.err().map(|error| error.explain());
        if let Some(error) = &error {
            let mut reached = std::mem::take(&mut self.images);
            self.images = self
                .wanted
                .iter()
                .map(|reference| {
                    let known = reached.iter().position(|image| image.reference == *reference);
                    known.map_or_else(
                        || unreached(reference, error),
                        |known| reached.swap_remove(known),
                    )
                })
                .collect();
        }
        let report = RangeReport {
            range: self.range.clone(),
            engine: self.engine.take(),
            provision: self.provision,
            stages: std::mem::take(&mut self.stages),
            images: std::mem::take(&mut self.images),
            error,
        };
        self.tell(RangeEventKind::Done(report.clone()));
        report
    }

    fn leave(&mut self) {
        if let Some((stage, since)) = self.entered.take() {
            self.stages.push((stage, since.elapsed().as_secs_f64()));
        }
    }

    fn tell(&self, kind: RangeEventKind) {
        self.observer.observe(RangeEvent { range: self.range.clone(), kind });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use transfer::Outcome;

    use super::*;

    fn stages_of(result: Result<(), RangeError>) -> (RangeReport, Vec<String>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let observer = move |event: RangeEvent| {
            note.lock().unwrap().push(match event.kind {
                RangeEventKind::Entered(stage) => stage.to_string(),
                RangeEventKind::Image(_) => "image".to_owned(),
                RangeEventKind::Noted(text) => text,
                RangeEventKind::Done(_) => "done".to_owned(),
            });
        };
        let mut journey = Journey::begin("a".parse().unwrap(), Arc::new(observer));
        journey.wanted = ["x:1", "x:2"].map(|text| text.parse().unwrap()).into();
        journey.enter(RangeStage::Register);
        journey.enter(RangeStage::Create);
        // One image got through before the failure.
        let reached = ImageReport {
            outcome: Outcome::Synced,
            error: None,
            ..unreached(&journey.wanted[1], "")
        };
        journey.images = vec![reached];
        let report = journey.end(result);
        let seen = seen.lock().unwrap().clone();
        (report, seen)
    }

    #[test]
    fn every_journey_ends_in_one_report_that_has_all_stages() {
        let (report, seen) = stages_of(Ok(()));
        assert_eq!(seen, ["register", "create", "done"]);
        let stages: Vec<RangeStage> = report.stages.iter().map(|(stage, _)| *stage).collect();
        assert_eq!(stages, [RangeStage::Register, RangeStage::Create]);
        assert_eq!((report.error, report.images.len()), (None, 1));
    }

    #[test]
    fn a_range_that_failed_reports_each_image_and_keeps_what_was_reached() {
        let (report, seen) = stages_of(Err(RangeError::Unknown { range: "a".parse().unwrap() }));
        assert_eq!(seen.last().map(String::as_str), Some("done"));
        let outcomes: Vec<Outcome> = report.images.iter().map(|image| image.outcome).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Synced]);
        assert!(report.images[0].error.as_ref().unwrap().contains("there is no range a"));
    }
}
