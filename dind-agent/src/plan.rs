//! Plans: how many bytes a sync would move.

use control::range::ImagePlan;
use transfer::Reference;
use transfer::pull::Puller;

/// A plan for each image, in the order asked; one that fails does not stop the others.
///
/// The images are planned one after the other: the host may export for each.
pub(crate) async fn plan(puller: &Puller, references: Vec<Reference>) -> Vec<ImagePlan> {
    let mut plans = Vec::with_capacity(references.len());
    for reference in references {
        plans.push(match puller.plan(&reference).await {
            Ok(plan) => ImagePlan {
                reference,
                config_digest: Some(plan.key.config_digest),
                bytes_to_move: plan.bytes_to_move,
                bytes_saved: plan.bytes_saved,
                already_there: plan.is_there,
                error: None,
            },
            Err(error) => ImagePlan::failed(reference, error.explain()),
        });
    }
    plans
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use transfer::Sharing;
    use transfer::fixture::{MemorySink, MemorySource, image};

    use super::*;

    fn named(name: &str) -> Reference {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_plan_says_what_a_sync_would_move_and_moves_nothing() {
        for sharing in [Sharing::ByChain, Sharing::ByBlob] {
            let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
            let (app, blobs) = image(1, &[10, 20]);
            let size: u64 = app.layers.iter().map(|layer| layer.blob.size).sum();
            source.insert("app:1", (app, blobs));
            let puller = Puller::new(Arc::new(source.clone()), Arc::new(sink.clone()), 1);
            let ask = || plan(&puller, vec![named("app:1"), named("absent:1")]);
            for _ in 0..2 {
                let plans = ask().await;
                assert_eq!((plans[0].bytes_to_move, plans[0].bytes_saved), (size, 0), "{sharing}");
                assert!(!plans[0].already_there && plans[0].error.is_none(), "{plans:?}");
                let error = plans[1].error.as_ref().unwrap();
                assert!(error.contains("absent:1") && error.contains("docker images"), "{error}");
            }
            puller.pull(&[named("app:1")], Arc::new(|_| {})).await;
            let plans = ask().await;
            assert_eq!((plans[0].bytes_to_move, plans[0].bytes_saved), (0, size), "{sharing}");
            assert!(plans[0].already_there, "{plans:?}");
        }
    }
}
