//! Checks of ranges that are up: whether their images are whole.

use control::RangeName;
use control::range::{ImageCheck, VerifyEvent};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use transfer::Reference;

use crate::error::RangeError;
use crate::liveness::runs;
use crate::project::Project;

/// The images of one range, as checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeCheck {
    /// The range.
    pub range: RangeName,
    /// A result for each image, in the order asked.
    pub images: Vec<ImageCheck>,
    /// Error text with advice if not all images could be checked; `None` on success.
    pub error: Option<String>,
}

/// One line of JSON per range and image that was checked: what scripts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// The range.
    pub range: String,
    /// A name of the image; null for one without.
    pub image: Option<String>,
    /// ID of the image in the engine; null when the engine does not have it.
    pub engine_image_id: Option<String>,
    /// True without any problem.
    pub well: bool,
    /// True if the engine confirms every layer of it.
    pub proven: bool,
    /// Files whose content was compared; 0 unless the check was deep.
    pub files: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
    /// Problems of the image, at most a hundred texts.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

/// Checks images of several ranges at once; without `images`, all that each has.
pub(crate) async fn verify(
    project: &Project,
    ranges: Vec<RangeName>,
    images: &[Reference],
    deep: bool,
) -> Vec<RangeCheck> {
    let checks = ranges.into_iter().map(|range| async move {
        let mut found = Vec::new();
        let checked = verify_one(project, &range, images, deep, &mut found).await;
        let error = checked.err().map(|error| error.explain());
        RangeCheck { range, images: found, error }
    });
    futures::stream::iter(checks).buffered(project.concurrency()).collect().await
}

async fn verify_one(
    project: &Project,
    range: &RangeName,
    images: &[Reference],
    deep: bool,
    found: &mut Vec<ImageCheck>,
) -> Result<(), RangeError> {
    const ACTION: &str = "verifying images";
    runs(project, range).await?;
    let mut events = project.host.verify(range, images, deep).await?;
    while let Some(event) = events.next().await {
        match event.map_err(|source| RangeError::task(range, ACTION, source))? {
            VerifyEvent::Checked(check) => found.push(check),
            VerifyEvent::Finished(_) => return Ok(()),
        }
    }
    let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    Err(RangeError::task(range, ACTION, broken))
}

impl RangeCheck {
    /// True if every image could be checked, and none has a problem.
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
