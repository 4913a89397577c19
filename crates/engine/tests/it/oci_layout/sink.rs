//! A folder as a sink: only what it lacks moves, rot is found, a kill leaves nothing half written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use engine::{OciLayout, OciLayoutSink};
use futures::StreamExt as _;
use transfer::fixture::{self, Faulty, MemorySource};
use transfer::metered::Metered;
use transfer::pull::Puller;
use transfer::store::MemoryStore;
use transfer::{
    BlobError, BlobSource, Descriptor, Digest, Event, Image, ImageSink as _, ImageSource as _,
    LoadError, Missing, Outcome,
};

use super::{blob_of, blobs_in, by_hand, coming_in, entry, named, put};
use crate::{before_and_after, name, opened, store_of};

/// Pulls images from a host in memory into a folder.
struct Way {
    source: MemorySource,
    sink: OciLayoutSink,
    puller: Puller,
}

impl Way {
    async fn into(folder: &Path) -> Self {
        let source = MemorySource::default();
        let sink = OciLayoutSink::open(folder).await.unwrap();
        let puller = Puller::new(Arc::new(source.clone()), Arc::new(sink.clone()), 4);
        Self { source, sink, puller }
    }

    async fn pull(&self, references: &[&str]) -> Vec<transfer::event::ImageReport> {
        let references: Vec<_> = references.iter().map(|reference| name(reference)).collect();
        self.puller.pull(&references, Arc::new(|_: Event| {})).await
    }
}

#[tokio::test]
async fn only_what_a_folder_lacks_moves_and_the_proof_finds_rot() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way::into(folder.path()).await;
    let (before, after, blobs) = before_and_after();
    way.source.insert("app:1", (before.clone(), blobs.clone()));
    way.source.insert("app:2", (after.clone(), blobs));
    let outcome = |reports: &[transfer::event::ImageReport]| -> Vec<_> {
        reports.iter().map(|report| (report.outcome, report.proven, report.bytes_moved)).collect()
    };
    let size = |image: &Image, from: usize| -> u64 {
        image.layers[from..].iter().map(|layer| layer.blob.size).sum()
    };
    let reports = way.pull(&["app:1"]).await;
    assert_eq!(outcome(&reports), [(Outcome::Synced, true, size(&before, 0))]);
    let reports = way.pull(&["app:2"]).await;
    assert_eq!(outcome(&reports), [(Outcome::Synced, true, size(&after, 2))]);
    let reports = way.pull(&["app:1", "app:2"]).await;
    assert_eq!(outcome(&reports), [(Outcome::Skipped, true, 0), (Outcome::Skipped, true, 0)]);

    // Of the same size and with other bytes: only hashing finds it, and one layer heals it.
    let layer = &before.layers[1].blob;
    let path = blob_of(folder.path(), &layer.digest);
    std::fs::write(&path, vec![1; usize::try_from(layer.size).unwrap()]).unwrap();
    let reports = way.pull(&["app:1"]).await;
    assert_eq!(outcome(&reports), [(Outcome::Synced, true, layer.size)]);
    assert_eq!(Digest::of(&std::fs::read(&path).unwrap()), layer.digest);

    // What is cut, gone, or a link is found too.
    std::fs::write(&path, "cut").unwrap();
    assert_eq!(way.sink.prove(&before).await.unwrap(), None);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(way.sink.prove(&before).await.unwrap(), None);
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_eq!(way.sink.prove(&before).await.unwrap(), None);
    let reports = way.pull(&["app:1", "app:2"]).await;
    assert!(reports.iter().all(|report| report.proven), "{reports:?}");
    std::fs::remove_file(blob_of(folder.path(), &before.config_digest.0)).unwrap();
    assert_eq!(way.sink.prove(&before).await.unwrap(), None);
}

#[tokio::test]
async fn a_host_that_gives_bad_bytes_leaves_nothing_and_moves_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = fixture::image(1, &[10]);
    let sink = put(folder.path(), "app:1", &good).await;
    let before = blobs_in(folder.path());
    let (image, blobs) = fixture::image(2, &[2_000_000]);
    let store = store_of(&blobs).await;
    let all = Missing::all(&image);
    for source in [
        Faulty::corrupt_at(store.clone(), 10),
        Faulty::corrupt_at(store.clone(), 1_999_999),
        Faulty::cut_off_at(store.clone(), 1_500_000),
    ] {
        let error = sink.load(&opened(&image, &source), &all).await.unwrap_err();
        assert!(matches!(error, LoadError::Source(_)), "{error:?}");
        assert_eq!((blobs_in(folder.path()), coming_in(folder.path())), (before.clone(), 0));
        assert_eq!(sink.prove(&image).await.unwrap(), None);
        sink.discard(&image).await.unwrap();
    }
    let nothing = sink.load(&opened(&image, &MemoryStore::default()), &all).await.unwrap_err();
    assert!(matches!(nothing, LoadError::Source(BlobError::NotFound { .. })), "{nothing:?}");
    assert!(sink.prove(&good.0).await.unwrap().unwrap().references.contains(&name("app:1")));
}

#[tokio::test]
async fn a_dropped_load_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let sink = OciLayoutSink::open(folder.path()).await.unwrap();
    let (image, blobs) = fixture::image(1, &[3_000_000, 2_500_000]);
    let store = store_of(&blobs).await;
    for frames in 0..8 {
        let stalling = Stalling { store: store.clone(), frames };
        let all = Missing::all(&image);
        let source = opened(&image, &stalling);
        let load = sink.load(&source, &all);
        let limit = std::time::Duration::from_millis(150);
        tokio::time::timeout(limit, load).await.unwrap_err();
        // Work that had begun on another thread ends by itself.
        for _ in 0..200 {
            if coming_in(folder.path()) == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(coming_in(folder.path()), 0, "after {frames} frames");
        for blob in blobs_in(folder.path()) {
            let bytes = std::fs::read(folder.path().join("blobs/sha256").join(&blob)).unwrap();
            assert_eq!(Digest::of(&bytes).hex(), blob, "after {frames} frames");
        }
        assert_eq!(sink.prove(&image).await.unwrap(), None);
    }
    sink.discard(&image).await.unwrap();
    assert_eq!(blobs_in(folder.path()), BTreeSet::new());
}

/// A source whose streams stand still after some frames.
#[derive(Clone)]
struct Stalling {
    store: MemoryStore,
    frames: usize,
}

#[async_trait::async_trait]
impl BlobSource for Stalling {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<transfer::BlobStream, BlobError> {
        let stream = self.store.open(digest, offset).await?;
        Ok(stream.take(self.frames).chain(futures::stream::pending()).boxed())
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not() {
    let folder = tempfile::tempdir().unwrap();
    OciLayoutSink::open(folder.path()).await.unwrap();
    let (dead, living) = (folder.path().join("ingest/dead"), folder.path().join("ingest/living"));
    std::fs::write(&dead, "half").unwrap();
    let file = std::fs::File::create(&living).unwrap();
    file.lock().unwrap();
    OciLayoutSink::open(folder.path()).await.unwrap();
    assert!(!dead.exists() && living.exists());
}

#[tokio::test]
async fn discard_takes_what_no_name_reaches_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after, blobs) = before_and_after();
    let sink = put(folder.path(), "app:1", &(before.clone(), blobs.clone())).await;
    let named = blobs_in(folder.path());
    let store = store_of(&blobs).await;
    sink.load(&opened(&after, &store), &Missing::all(&after)).await.unwrap();
    assert_eq!(blobs_in(folder.path()).len(), named.len() + 3, "a layer and two documents more");

    // While another process brings something in, nothing is taken.
    let other = OciLayoutSink::open(folder.path()).await.unwrap();
    let (theirs, their_blobs) = fixture::image(9, &[10]);
    let their_store = store_of(&their_blobs).await;
    other.load(&opened(&theirs, &their_store), &Missing::all(&theirs)).await.unwrap();
    let all = blobs_in(folder.path());
    sink.discard(&after).await.unwrap();
    assert_eq!(blobs_in(folder.path()), all);
    other.discard(&theirs).await.unwrap();
    sink.discard(&after).await.unwrap();
    assert_eq!(blobs_in(folder.path()), named);
    sink.discard(&before).await.unwrap();
    assert_eq!(blobs_in(folder.path()), named, "what has a name stays");
    assert!(sink.prove(&before).await.unwrap().is_some());
}

#[tokio::test]
async fn two_sinks_of_one_folder_lose_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let puts = (0..8_u64).map(|seed| {
        let folder = folder.path().to_owned();
        async move {
            let image = fixture::image(seed, &[100_000, 10]);
            put(&folder, &format!("app:{seed}"), &image).await;
        }
    });
    futures::future::join_all(puts).await;
    let layout = OciLayout::open(folder.path()).await.unwrap();
    for seed in 0..8_u64 {
        let (image, _) = fixture::image(seed, &[100_000, 10]);
        let summary = layout.resolve(&name(&format!("app:{seed}"))).await.unwrap();
        assert_eq!(summary.config_digest, image.config_digest);
    }
}

#[tokio::test]
async fn from_folder_to_folder_compressed_layers_keep_their_digests() {
    use std::io::Write as _;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (image, blobs) = fixture::image(4, &[50_000]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&blobs[0].1).unwrap();
    let gzip = Bytes::from(gzip.finish().unwrap());
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = transfer::image::Manifest {
        config: Descriptor::of(transfer::MediaType::CONFIG, &image.config),
        layers: vec![Descriptor::of(media_type, &gzip)],
    };
    let manifest = Bytes::from(manifest.encode());
    by_hand(
        from.path(),
        &[&manifest, &image.config, &gzip],
        &[entry(&manifest, "manifest", &named("quay.io/team/app:1"))],
    );
    let source = OciLayout::open(from.path()).await.unwrap();
    let counted = Arc::new(source);
    let sink = OciLayoutSink::open(to.path()).await.unwrap();
    let puller = Puller::new(counted, Arc::new(sink), 1);
    let reports = puller.pull(&[name("quay.io/team/app:1")], Arc::new(|_: Event| {})).await;
    assert_eq!((reports[0].outcome, reports[0].bytes_moved), (Outcome::Synced, gzip.len() as u64));
    assert_eq!(reports[0].engine_image_id.unwrap().0, Digest::of(&manifest));
    assert_eq!(blobs_in(to.path()), blobs_in(from.path()));
}

#[tokio::test]
async fn a_folder_that_has_it_all_asks_the_host_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = fixture::image(1, &[1000, 2000]);
    let sink = put(folder.path(), "app:1", &image).await;
    let store = Metered::new(store_of(&image.1).await);
    let counters = store.counters().clone();
    let missing = sink.missing(&image.0).await.unwrap();
    sink.load(&opened(&image.0, &store), &missing).await.unwrap();
    assert_eq!(counters.snapshot().opens, 0);
}

#[tokio::test]
async fn from_folder_to_folder_an_image_keeps_the_index_it_was_published_under() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = transfer::Platform::host();
    let platform =
        format!(r#","platform":{{"os":"{}","architecture":"{}"}}"#, host.os, host.architecture);
    let (image, blobs) = fixture::image(4, &[500]);
    let elsewhere = r#","platform":{"os":"plan9","architecture":"mips"}"#;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        entry(b"of another platform", "manifest", elsewhere),
        entry(&image.manifest, "manifest", &platform)
    );
    by_hand(
        from.path(),
        &[index.as_bytes(), &image.manifest, &image.config, &blobs[0].1],
        &[entry(index.as_bytes(), "index", &named("app:1"))],
    );
    let source = OciLayout::open(from.path()).await.unwrap();
    let sink = OciLayoutSink::open(to.path()).await.unwrap();
    let puller = Puller::new(Arc::new(source), Arc::new(sink.clone()), 1);
    for outcome in [Outcome::Synced, Outcome::Skipped] {
        let reports = puller.pull(&[name("app:1")], Arc::new(|_: Event| {})).await;
        assert_eq!((reports[0].outcome, &reports[0].error), (outcome, &None));
        assert_eq!(reports[0].engine_image_id.unwrap().0, Digest::of(index.as_bytes()));
    }
    assert_eq!(blobs_in(to.path()), blobs_in(from.path()));
    let held = sink.images().await.unwrap();
    assert_eq!((held.len(), held[0].proven), (1, true));
    let read = OciLayout::open(to.path()).await.unwrap();
    assert_eq!(read.resolve(&name("app:1")).await.unwrap().config_digest, image.config_digest);
    sink.discard(&image).await.unwrap();
    assert_eq!(blobs_in(to.path()), blobs_in(from.path()), "an index reaches what it has here");
}
