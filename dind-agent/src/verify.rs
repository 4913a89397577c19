//! The engine's images, confirmed again.

use engine::HeldImage;
use proto::control::{ImageCheck, VerifyEvent, VerifySummary};
use tokio::time::Instant;
use transfer::Reference;

/// What the engine's own word comes to, for every image that it has or for those that are named.
pub(crate) fn verify(
    held: Vec<HeldImage>,
    references: &[Reference],
    began: Instant,
) -> Vec<VerifyEvent> {
    let checks: Vec<ImageCheck> = if references.is_empty() {
        held.iter().map(|image| check(image, image.references.first())).collect()
    } else {
        references.iter().map(|reference| find(&held, reference)).collect()
    };
    let mut summary = VerifySummary::default();
    for check in &checks {
        summary.add(check);
    }
    summary.duration = began.elapsed();
    checks.into_iter().map(VerifyEvent::Checked).chain([VerifyEvent::Finished(summary)]).collect()
}

fn find(held: &[HeldImage], reference: &Reference) -> ImageCheck {
    match held.iter().find(|image| image.references.contains(reference)) {
        Some(image) => check(image, Some(reference)),
        None => {
            let mut absent =
                ImageCheck { reference: Some(reference.clone()), ..ImageCheck::default() };
            absent.problem("the engine has no such image".into());
            absent
        }
    }
}

fn check(image: &HeldImage, reference: Option<&Reference>) -> ImageCheck {
    let mut check = ImageCheck {
        reference: reference.cloned(),
        engine_image_id: Some(image.engine_image_id),
        proven: image.proven,
        ..ImageCheck::default()
    };
    if !image.proven {
        check.problem("the engine does not confirm every layer of it".into());
    }
    check
}

#[cfg(test)]
mod tests {
    use transfer::{Digest, EngineImageId};

    use super::*;

    fn held(name: &str, proven: bool) -> HeldImage {
        HeldImage {
            references: vec![name.parse().unwrap()],
            config_digest: None,
            engine_image_id: EngineImageId(Digest::of(name.as_bytes())),
            proven,
        }
    }

    fn summary(references: &[&str]) -> (usize, VerifySummary) {
        let references: Vec<_> = references.iter().map(|name| name.parse().unwrap()).collect();
        let images = vec![held("a:1", true), held("b:1", false)];
        let events = verify(images, &references, Instant::now());
        let Some(VerifyEvent::Finished(summary)) = events.last() else { panic!("{events:?}") };
        (events.len(), *summary)
    }

    #[tokio::test]
    async fn what_is_absent_or_not_confirmed_is_counted() {
        for (references, images, failed) in
            [(&[][..], 2, 1), (&["a:1"], 1, 0), (&["b:1", "c:1", "a:1"], 3, 2)]
        {
            let (events, summary) = summary(references);
            assert_eq!((summary.images, summary.failed), (images, failed), "{references:?}");
            assert_eq!(events, images as usize + 1);
        }
    }
}
