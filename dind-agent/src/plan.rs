//! Plans: how many bytes a sync would move.

use control::range::ImagePlan;
use transfer::pull::PullError;
use transfer::{ImageSink, ImageSource, ImageSummary, Reference};

/// A plan for each image, in the order asked; one that fails does not stop the others.
///
/// The images are planned one after the other: the host may export for each.
pub(crate) async fn plan(
    source: &dyn ImageSource,
    sink: &dyn ImageSink,
    references: Vec<Reference>,
) -> Vec<ImagePlan> {
    let resolved = source.resolve_all(&references).await;
    let mut plans = Vec::with_capacity(references.len());
    for (reference, summary) in references.into_iter().zip(resolved) {
        let planned = match summary {
            Ok(summary) => plan_one(source, sink, &reference, &summary).await,
            Err(error) => Err(error.into()),
        };
        plans.push(match planned {
            Ok(plan) => plan,
            Err(error) => ImagePlan::failed(reference, error.explain()),
        });
    }
    plans
}

/// The first half of a pull, up to its plan.
async fn plan_one(
    source: &dyn ImageSource,
    sink: &dyn ImageSink,
    reference: &Reference,
    summary: &ImageSummary,
) -> Result<ImagePlan, PullError> {
    let config_digest = summary.config_digest;
    let form = sink.store().await?.layer_form();
    let image = source.open(&summary.key(), form).await?.image;
    let proof = sink.prove(&image).await?;
    let (bytes_to_move, bytes_saved) = match &proof {
        Some(_) => (0, image.layers.iter().map(|layer| layer.blob.size).sum()),
        None => sink.missing(&image).await?.sizes(&image),
    };
    Ok(ImagePlan {
        reference: reference.clone(),
        config_digest: Some(config_digest),
        bytes_to_move,
        bytes_saved,
        already_there: proof.is_some_and(|proof| proof.references.contains(reference)),
        error: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use transfer::StoreKind;
    use transfer::fixture::{MemorySink, MemorySource, image};
    use transfer::pull::Puller;

    use super::*;

    fn named(name: &str) -> Reference {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_plan_says_what_a_sync_would_move_and_moves_nothing() {
        for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
            let (source, sink) = (MemorySource::default(), MemorySink::new(store));
            let (app, blobs) = image(1, &[10, 20]);
            let size: u64 = app.layers.iter().map(|layer| layer.blob.size).sum();
            source.insert("app:1", (app, blobs));
            let ask = || plan(&source, &sink, vec![named("app:1"), named("absent:1")]);
            for _ in 0..2 {
                let plans = ask().await;
                assert_eq!((plans[0].bytes_to_move, plans[0].bytes_saved), (size, 0), "{store}");
                assert!(!plans[0].already_there && plans[0].error.is_none(), "{plans:?}");
                let error = plans[1].error.as_ref().unwrap();
                assert!(error.contains("absent:1") && error.contains("docker images"), "{error}");
            }
            let puller = Puller::new(Arc::new(source.clone()), Arc::new(sink.clone()), 1);
            puller.pull(&[named("app:1")], Arc::new(|_| {})).await;
            let plans = ask().await;
            assert_eq!((plans[0].bytes_to_move, plans[0].bytes_saved), (0, size), "{store}");
            assert!(plans[0].already_there, "{plans:?}");
        }
    }
}
