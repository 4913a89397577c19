//! Looking into ranges that are up: what a sync would move, and whether their images are whole.

use futures::StreamExt as _;
use proto::control::{ImagePlan, VerifyEvent};
use proto::identity::RangeName;
use serde::{Deserialize, Serialize};
use transfer::Reference;

use crate::error::RangeError;
use crate::ranges::Ranges;
use crate::settings::Selection;

pub use proto::control::ImageCheck;

/// What a sync would move into one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePlan {
    /// Which range.
    pub range: RangeName,
    /// A plan for each image, in the order asked; empty when the range could not be asked.
    pub images: Vec<ImagePlan>,
    /// Why it could not be asked, and what to do; absent on success.
    pub error: Option<String>,
}

/// What was found of the images of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeCheck {
    /// Which range.
    pub range: RangeName,
    /// What was found of each image, in the order asked.
    pub images: Vec<ImageCheck>,
    /// Why not all could be checked, and what to do; absent on success.
    pub error: Option<String>,
}

/// One line of JSON per range and image that was planned: what scripts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// Which range.
    pub range: String,
    /// The image as it was asked for.
    pub image: String,
    /// Its name across engines; null when the host does not know it.
    pub config_digest: Option<String>,
    /// Layer bytes that would move.
    pub bytes_to_move: u64,
    /// Layer bytes that would not have to.
    pub bytes_saved: u64,
    /// Whether it is there already, proven, under this name.
    pub already_there: bool,
    /// Why there is no plan, and what to do; null when there is one.
    pub error: Option<String>,
}

/// One line of JSON per range and image that was checked: what scripts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// Which range.
    pub range: String,
    /// A name of the image; null for one without.
    pub image: Option<String>,
    /// What the engine calls it; null when it does not have it.
    pub engine_image_id: Option<String>,
    /// Whether nothing is wrong with it.
    pub well: bool,
    /// Whether the engine confirms every layer of it.
    pub proven: bool,
    /// Files whose content was compared; 0 unless the check was deep.
    pub files: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
    /// What is wrong, at most a hundred texts.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

impl Ranges {
    /// What bringing images into ranges would move; changes nothing in them. Without `images`, those
    /// that each range should have. The host may have to export an image to know.
    ///
    /// # Errors
    /// When the ranges cannot be listed. What goes wrong with one is in its plan.
    pub async fn plan(
        &self,
        selection: &Selection,
        images: &[Reference],
    ) -> Result<Vec<RangePlan>, RangeError> {
        let names = self.names(selection).await?;
        let plans = names.into_iter().map(|range| async move {
            let planned = self.plan_one(&range, images).await;
            let (images, error) = told(planned);
            RangePlan { range, images, error }
        });
        let concurrency = self.settings.concurrency.max(1);
        Ok(futures::stream::iter(plans).buffered(concurrency).collect().await)
    }

    /// Has the engines of ranges confirm their images again; with `deep` every file of them is read
    /// through the engine. Without `images`, all that each range has.
    ///
    /// Cancel safe: dropping the future ends the checks.
    ///
    /// # Errors
    /// When the ranges cannot be listed. What goes wrong with one is in its check.
    pub async fn verify(
        &self,
        selection: &Selection,
        images: &[Reference],
        deep: bool,
    ) -> Result<Vec<RangeCheck>, RangeError> {
        let names = self.names(selection).await?;
        let checks = names.into_iter().map(|range| async move {
            let mut found = Vec::new();
            let checked = self.verify_one(&range, images, deep, &mut found).await;
            let error = checked.err().map(|error| error.explain());
            RangeCheck { range, images: found, error }
        });
        let concurrency = self.settings.concurrency.max(1);
        Ok(futures::stream::iter(checks).buffered(concurrency).collect().await)
    }

    async fn plan_one(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<Vec<ImagePlan>, RangeError> {
        let agent = self.running(range).await?;
        if !images.is_empty() {
            return agent.plan(images).await;
        }
        match self.host_agent.wanted(range).await?.as_slice() {
            [] => Err(RangeError::NothingWanted { range: range.clone() }),
            wanted => agent.plan(wanted).await,
        }
    }

    async fn verify_one(
        &self,
        range: &RangeName,
        images: &[Reference],
        deep: bool,
        found: &mut Vec<ImageCheck>,
    ) -> Result<(), RangeError> {
        let mut events = self.running(range).await?.verify(images, deep).await?;
        while let Some(event) = events.next().await {
            match event? {
                VerifyEvent::Checked(check) => found.push(check),
                VerifyEvent::Finished(_) => return Ok(()),
            }
        }
        let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(RangeError::agent(range, "verifying images", broken))
    }
}

fn told<T>(result: Result<Vec<T>, RangeError>) -> (Vec<T>, Option<String>) {
    match result {
        Ok(all) => (all, None),
        Err(error) => (Vec::new(), Some(error.explain())),
    }
}

impl RangePlan {
    /// The lines of this range, one for each image.
    pub fn lines(&self) -> impl Iterator<Item = PlanLine> + '_ {
        self.images.iter().map(|image| PlanLine {
            range: self.range.to_string(),
            image: image.reference.to_string(),
            config_digest: image.config_digest.map(|digest| digest.to_string()),
            bytes_to_move: image.bytes_to_move,
            bytes_saved: image.bytes_saved,
            already_there: image.already_there,
            error: image.error.clone(),
        })
    }
}

impl RangeCheck {
    /// Whether every image could be checked, and nothing is wrong with any.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.error.is_none() && self.images.iter().all(ImageCheck::is_well)
    }

    /// The lines of this range, one for each image.
    pub fn lines(&self) -> impl Iterator<Item = CheckLine> + '_ {
        self.images.iter().map(|image| CheckLine {
            range: self.range.to_string(),
            image: image.reference.as_ref().map(ToString::to_string),
            engine_image_id: image.engine_image_id.map(|id| id.to_string()),
            well: image.is_well(),
            proven: image.proven,
            files: image.files,
            bytes_read: image.bytes_read,
            problems: image.problems.clone(),
            more_problems: image.more_problems,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_well_when_all_was_checked_and_nothing_is_wrong() {
        let image = ImageCheck { proven: true, ..ImageCheck::default() };
        let check = |images: &[ImageCheck], error: Option<&str>| RangeCheck {
            range: "a".parse().unwrap(),
            images: images.to_vec(),
            error: error.map(str::to_owned),
        };
        assert!(check(&[], None).is_well());
        assert!(check(std::slice::from_ref(&image), None).is_well());
        assert!(!check(std::slice::from_ref(&image), Some("it went away")).is_well());
        assert!(!check(&[ImageCheck { proven: false, ..image.clone() }], None).is_well());
        let mut damaged = image.clone();
        damaged.problem("/bin/sh is missing".to_owned());
        let damaged = check(&[image, damaged], None);
        assert!(!damaged.is_well());
        let line = damaged.lines().nth(1).unwrap();
        assert_eq!((line.well, line.problems), (false, vec!["/bin/sh is missing".to_owned()]));
    }
}
