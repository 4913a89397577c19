//! Layers of a folder of images: passed on to a range that is alone, kept for several.

use std::path::Path;
use std::sync::Arc;

use engine::OciLayoutSink;
use futures::TryStreamExt as _;
use futures::future::join_all;
use host_agent::config::KeepLayers;
use tempfile::TempDir;
use transfer::fixture::{self, MemorySource};
use transfer::pull::Puller;
use transfer::{
    BlobSource as _, Digest, Event, Image, ImageSource as _, LayerForm, MAX_FRAME, OpenImage,
    Outcome,
};

use crate::host::{HostAgent, app, config, folder, read_all, size};

/// A folder with one image under the name `app:1`.
async fn layout() -> (TempDir, Image) {
    let (folder, source) = (folder(), MemorySource::default());
    let (image, blobs) = fixture::image(1, &[10, 70_000, 3 << 20]);
    source.insert("app:1", (image.clone(), blobs));
    let sink = OciLayoutSink::open(folder.path()).await.unwrap();
    let puller = Puller::new(Arc::new(source), Arc::new(sink), 1);
    let report = puller.pull_one(app(), Arc::new(|_: Event| {})).await;
    assert_eq!(report.outcome, Outcome::Synced, "{report:?}");
    (folder, image)
}

fn start(state: &Path, images: &Path, keep: KeepLayers) -> HostAgent {
    let mut config = config(state, &format!("oci:{}", images.display()));
    config.store.keep_layers = keep;
    HostAgent::start_with(config)
}

/// Bytes that were read of the folder's blobs, and the blobs that the store has.
async fn cost(agent: &HostAgent) -> (u64, u64) {
    let stats = agent.admin().stats().await.unwrap();
    (stats.engine_bytes_read, stats.store.blobs)
}

#[tokio::test]
async fn nothing_is_kept_for_a_range_that_is_alone_and_each_layer_is_read_once_for_several() {
    let ((images, image), state) = (layout().await, folder());
    let agent = start(state.path(), images.path(), KeepLayers::Auto);
    let alone = agent.range("lab-1").await;
    assert_eq!(read_all(&alone, &image).await.unwrap(), size(&image));
    assert_eq!(cost(&agent).await, (size(&image), 0));

    let mut ranges = vec![alone];
    for number in 2..=4 {
        ranges.push(agent.range(&format!("lab-{number}")).await);
    }
    for read in join_all(ranges.iter().map(|range| read_all(range, &image))).await {
        assert_eq!(read.unwrap(), size(&image));
    }
    let layers = image.layers.len() as u64;
    assert_eq!(cost(&agent).await.0, 2 * size(&image), "once for the first, once for all");
    agent.stop().await.unwrap();
    let blobs = state.path().join("store/blobs/sha256").read_dir().unwrap().count();
    assert_eq!(blobs as u64, layers);
}

#[tokio::test]
async fn a_layer_that_is_not_kept_is_read_on_at_its_offset() {
    let ((images, image), state) = (layout().await, folder());
    let agent = start(state.path(), images.path(), KeepLayers::Auto);
    let host = agent.range("lab-1").await;
    let key = image.config_digest.into();
    let OpenImage { image, blobs } = host.open(&key, LayerForm::AsStored).await.unwrap();
    let largest = image.layers.iter().max_by_key(|layer| layer.blob.size).unwrap();
    let mut whole = Vec::new();
    let mut first = blobs.open(&largest.blob.digest, 0).await.unwrap();
    while whole.len() < MAX_FRAME {
        whole.extend(first.try_next().await.unwrap().unwrap());
    }
    drop(first);
    // The host may not have noticed yet that its reader left: then it is taken in, and whole too.
    let rest = blobs.open(&largest.blob.digest, whole.len() as u64).await.unwrap();
    let rest: Vec<_> = rest.try_collect().await.unwrap();
    rest.iter().for_each(|frame| whole.extend_from_slice(frame));
    assert_eq!(Digest::of(&whole), largest.blob.digest);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_keeps_layers_always_or_never_if_it_is_told_to() {
    let (images, image) = layout().await;
    for (keep, kept) in [(KeepLayers::Always, true), (KeepLayers::Never, false)] {
        let state = folder();
        let agent = start(state.path(), images.path(), keep);
        let [one, two] = [agent.range("lab-1").await, agent.range("lab-2").await];
        for range in [&one, &two] {
            assert_eq!(read_all(range, &image).await.unwrap(), size(&image));
        }
        let reads = if kept { 1 } else { 2 };
        assert_eq!(cost(&agent).await.0, reads * size(&image), "{keep:?}");
        agent.stop().await.unwrap();
        let blobs = state.path().join("store/blobs/sha256").read_dir().unwrap().count();
        assert_eq!(blobs != 0, kept, "{keep:?}");
    }
}
