//! The pipeline against engines in memory, of both stores, that fail when told to.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::blob::BlobStream;
use crate::digest::Digest;
use crate::event::{Event, EventKind};
use crate::fixture::{self, MemorySink, MemorySource, SinkFault};
use crate::image::LayerForm;

const RULES: [Sharing; 2] = [Sharing::ByChain, Sharing::ByBlob];

fn quiet() -> Arc<dyn Observer> {
    Arc::new(|_: Event| {})
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn pull(source: &MemorySource, sink: &MemorySink, reference: &str) -> ImageReport {
    let puller = Puller::new(Arc::new(source.clone()), Arc::new(sink.clone()), 1);
    puller.pull_one(name(reference), quiet()).await
}

fn stages(report: &ImageReport) -> Vec<Stage> {
    report.stages.iter().map(|(stage, _)| *stage).collect()
}

#[tokio::test]
async fn an_image_is_loaded_proven_and_then_named() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        source.insert("app:1", fixture::image(1, &[1000, 2000]));
        let report = pull(&source, &sink, "app:1").await;
        assert_eq!((report.outcome, report.proven), (Outcome::Synced, true), "{report:?}");
        assert_eq!(report.error, None);
        assert!(3000 <= report.bytes_moved, "{report:?}");
        use Stage::{Export, Load, Plan, Prove, Resolve, Tag};
        assert_eq!(stages(&report), [Resolve, Plan, Export, Plan, Load, Prove, Tag]);
        assert_eq!(sink.tags().get(&name("app:1")).copied(), report.engine_image_id);

        let again = pull(&source, &sink, "app:1").await;
        assert_eq!((again.outcome, again.proven, again.bytes_moved), (Outcome::Skipped, true, 0));
        assert_eq!(again.bytes_saved, report.bytes_moved);
        assert_eq!(sink.loads().len(), 1);
    }
}

#[tokio::test]
async fn an_image_that_only_lacks_its_name_gets_it_and_moves_nothing() {
    let (source, sink) = (MemorySource::default(), MemorySink::new(Sharing::ByChain));
    source.insert("app:1", fixture::image(1, &[1000]));
    source.insert("app:latest", fixture::image(1, &[1000]));
    pull(&source, &sink, "app:1").await;
    let report = pull(&source, &sink, "app:latest").await;
    assert_eq!((report.outcome, report.bytes_moved), (Outcome::Synced, 0), "{report:?}");
    assert_eq!(sink.tags().len(), 2);
}

#[tokio::test]
async fn only_a_changed_layer_moves() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        source.insert("app:1", fixture::image(1, &[5000, 10]));
        pull(&source, &sink, "app:1").await;
        source.insert("app:1", fixture::image(1, &[5000, 20]));
        let report = pull(&source, &sink, "app:1").await;
        assert_eq!(report.outcome, Outcome::Synced, "{report:?}");
        assert_eq!(sink.loads()[1].len(), 1, "{sharing}");
        assert!(report.bytes_moved < 5000 && 5000 <= report.bytes_saved, "{report:?}");
    }
}

#[tokio::test]
async fn what_is_not_proven_is_healed_once_with_the_full_set() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        source.insert("app:1", fixture::image(1, &[1000, 2000]));
        sink.fail(SinkFault::DropsALayer);
        let report = pull(&source, &sink, "app:1").await;
        assert_eq!(report.outcome, Outcome::Synced, "{sharing}: {report:?}");
        assert!(stages(&report).contains(&Stage::Heal));
        assert_eq!(sink.loads().iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }
}

#[tokio::test]
async fn a_failed_pull_never_moves_a_good_name() {
    for sharing in RULES {
        for (fault, words) in [
            (SinkFault::NeverProves, "does not confirm"),
            (SinkFault::Refuses, "refused"),
            (SinkFault::IsFull, "no space left"),
        ] {
            let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
            source.insert("app:1", fixture::image(1, &[1000]));
            let old = pull(&source, &sink, "app:1").await;
            let broken = fixture::image(2, &[1000]);
            let config_digest = broken.0.config_digest;
            source.insert("app:1", broken);
            sink.fail(fault);
            let report = pull(&source, &sink, "app:1").await;
            assert_eq!((report.outcome, report.proven), (Outcome::Failed, false), "{fault:?}");
            let error = report.error.unwrap();
            assert!(error.contains(words) && error.contains("; "), "{error}");
            assert_eq!(sink.tags().get(&name("app:1")).copied(), old.engine_image_id, "{fault:?}");
            assert_eq!(sink.discarded(), [config_digest]);
        }
    }
}

#[tokio::test]
async fn an_image_that_is_not_there_stops_no_other_and_says_what_to_do() {
    let (source, sink) = (MemorySource::default(), MemorySink::new(Sharing::ByBlob));
    source.insert("app:1", fixture::image(1, &[10]));
    let puller = Puller::new(Arc::new(source), Arc::new(sink), 2);
    let reports = puller.pull(&[name("nobody:1"), name("app:1")], quiet()).await;
    assert_eq!(reports[0].reference, name("nobody:1"), "reports come in the order asked");
    let error = reports[0].error.as_deref().unwrap();
    assert!(error.contains("nobody:1") && error.contains("docker images"), "{error}");
    assert_eq!(reports[1].outcome, Outcome::Synced);
}

#[tokio::test]
async fn a_layer_that_several_images_lack_goes_in_once() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        // One seed: the first layer is the same in all of them.
        let references: Vec<_> = (1..=4).map(|n| format!("app:{n}")).collect();
        for (number, reference) in references.iter().enumerate() {
            source.insert(reference, fixture::image(1, &[5000, 10 + number]));
        }
        let puller = Puller::new(Arc::new(source), Arc::new(sink.clone()), 4);
        let names: Vec<_> = references.iter().map(|reference| name(reference)).collect();
        let reports = puller.pull(&names, quiet()).await;
        assert!(reports.iter().all(|report| report.outcome == Outcome::Synced), "{reports:?}");
        let layers: usize = sink.loads().iter().map(Vec::len).sum();
        assert_eq!(layers, 5, "{sharing}: one base and four tops");
        // The base first, by itself; nothing is left of that, and each byte is counted once.
        assert_eq!(sink.loads()[0].len(), 1, "{sharing}");
        assert_eq!(sink.bases(), 0, "{sharing}");
        let moved: u64 = reports.iter().map(|report| report.bytes_moved).sum();
        let saved: u64 = reports.iter().map(|report| report.bytes_saved).sum();
        let base = 5632 + 1024;
        assert_eq!((moved, saved), (base + 4 * 2048, 3 * base), "{sharing}: {reports:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_base_that_did_not_go_in_costs_its_sharing_for_a_while_only() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        let puller = Puller::new(Arc::new(source.clone()), Arc::new(sink.clone()), 4);
        // Two images with a base of their own; how many layers go in with each load.
        let loads = async |seed: u64| {
            let names = [1, 2].map(|top| name(&format!("app{seed}:{top}")));
            for (top, name) in names.iter().enumerate() {
                source.insert(&name.to_string(), fixture::image(seed, &[5000, 10 + top]));
            }
            let before = sink.loads().len();
            let reports = puller.pull(&names, quiet()).await;
            assert!(reports.iter().all(|report| report.outcome == Outcome::Synced), "{reports:?}");
            sink.loads()[before..].iter().map(Vec::len).collect::<Vec<_>>()
        };
        sink.fail(SinkFault::DropsALayer);
        assert_eq!(
            loads(1).await,
            [1, 2, 1],
            "{sharing}: the base, one whole, and the other's top"
        );
        assert_eq!(loads(2).await, [2, 1], "{sharing}");
        tokio::time::advance(WHOLE_FOR).await;
        assert_eq!(loads(3).await, [1, 1, 1], "{sharing}");
        assert_eq!(sink.bases(), 0, "{sharing}");
    }
}

#[tokio::test]
async fn every_image_is_told_from_its_first_stage_to_its_report() {
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let (source, sink) = (MemorySource::default(), MemorySink::new(Sharing::ByChain));
    source.insert("app:1", fixture::image(1, &[1000]));
    let puller = Puller::new(Arc::new(source), Arc::new(sink), 1);
    let seen = events.clone();
    let observer = Arc::new(move |event| seen.lock().unwrap().push(event));
    let report = puller.pull_one(name("app:1"), observer).await;
    let events = events.lock().unwrap();
    assert_eq!(events[0].kind, EventKind::Entered(Stage::Resolve));
    assert_eq!(events[events.len() - 1].kind, EventKind::Done(report));
    let moved = |event: &&Event| matches!(event.kind, EventKind::Moved { .. });
    assert_eq!(events.iter().filter(moved).count(), 1);
}

/// Blobs that nobody is to hash.
struct Unhashed(Bytes);

#[async_trait]
impl BlobSource for Unhashed {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(Some(self.0.len() as u64))
    }

    async fn open(&self, digest: &Digest, _: u64) -> Result<BlobStream, BlobError> {
        panic!("{digest} was hashed on its way to a sink that does so itself")
    }

    async fn open_unverified(&self, _: &Digest, _: u64) -> Result<BlobStream, BlobError> {
        Ok(fixture::scripted([Ok(self.0.clone())]))
    }
}

#[tokio::test]
async fn nothing_hashes_for_a_sink_that_verifies_by_itself() {
    let journey = Progress::begin(name("app:1"), quiet());
    let blobs = journey.metered(Arc::new(Unhashed(Bytes::from_static(b"other"))));
    let stream = blobs.open_unverified(&Digest::of(b"bytes"), 0).await.unwrap();
    let (bytes, end) = fixture::drain(stream).await;
    assert_eq!(bytes, b"other");
    end.unwrap();
}

/// A host that forgets its lease some times before it gives a blob.
struct Forgetful {
    host: MemorySource,
    times: Arc<AtomicU32>,
}

struct ForgetfulBlobs(Arc<dyn BlobSource>, Arc<AtomicU32>);

#[async_trait]
impl BlobSource for ForgetfulBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let left = |times: u32| times.checked_sub(1);
        match self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
            Ok(_) => Err(BlobError::LeaseLost { digest: *digest }),
            Err(_) => self.0.open(digest, offset).await,
        }
    }
}

#[async_trait]
impl ImageSource for Forgetful {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.host.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.host.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let forgetful = |blobs| Arc::new(ForgetfulBlobs(blobs, self.times.clone())) as _;
        Ok(self.host.open(key, form).await?.through(forgetful))
    }
}

#[tokio::test]
async fn a_lost_lease_is_asked_for_again_but_not_for_ever() {
    for (times, outcome) in [(1, Outcome::Synced), (3, Outcome::Synced), (4, Outcome::Failed)] {
        let host = MemorySource::default();
        host.insert("app:1", fixture::image(1, &[1000]));
        let source = Forgetful { host, times: Arc::new(AtomicU32::new(times)) };
        let sink = MemorySink::new(Sharing::ByBlob);
        let report =
            Puller::new(Arc::new(source), Arc::new(sink), 1).pull_one(name("app:1"), quiet()).await;
        assert_eq!(report.outcome, outcome, "{times} times: {report:?}");
    }
}

#[tokio::test]
async fn two_images_of_one_config_are_two_images() {
    let (source, sink) = (MemorySource::default(), MemorySink::new(Sharing::ByBlob));
    let (image, blobs) = fixture::image(1, &[1000]);
    let twin = fixture::twin(&image);
    source.insert("app:1", (image.clone(), blobs.clone()));
    source.insert("app:2", (twin.clone(), blobs));
    for (reference, image) in [("app:1", &image), ("app:2", &twin)] {
        let report = pull(&source, &sink, reference).await;
        assert_eq!(report.outcome, Outcome::Synced, "{report:?}");
        let id = report.engine_image_id.map(|id| id.0);
        assert_eq!(id, Some(image.manifest_digest), "{reference}");
    }
}

/// A host whose blobs have wrong bytes until they are doubted.
struct Rotten(MemorySource, Arc<Mutex<Vec<Digest>>>);

struct RottenBlobs(Arc<dyn BlobSource>, Arc<Mutex<Vec<Digest>>>);

#[async_trait]
impl ImageSource for Rotten {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let rotten = |blobs| Arc::new(RottenBlobs(blobs, self.1.clone())) as _;
        Ok(self.0.open(key, form).await?.through(rotten))
    }
}

#[async_trait]
impl BlobSource for RottenBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        if self.1.lock().unwrap().contains(digest) {
            return self.0.open(digest, offset).await;
        }
        Err(BlobError::DigestMismatch { expected: *digest, actual: fixture::unknown() })
    }

    fn doubt(&self, digest: &Digest) {
        self.1.lock().unwrap().push(*digest);
    }
}

#[tokio::test]
async fn only_a_blob_with_wrong_bytes_is_doubted_and_then_read_again() {
    let host = MemorySource::default();
    let (image, blobs) = fixture::image(1, &[1000, 2000]);
    host.insert("app:1", (image.clone(), blobs));
    let doubted = Arc::default();
    let source = Rotten(host, Arc::clone(&doubted));
    let sink = MemorySink::new(Sharing::ByBlob);
    let puller = Puller::new(Arc::new(source), Arc::new(sink), 1);
    let report = puller.pull_one(name("app:1"), quiet()).await;
    assert_eq!(report.outcome, Outcome::Synced, "{report:?}");
    let layers: Vec<_> = image.layers.iter().map(|layer| layer.blob.digest).collect();
    assert_eq!(*doubted.lock().unwrap(), layers, "each once");
}

#[tokio::test]
async fn a_base_that_a_killed_pull_left_is_removed_by_the_next() {
    for sharing in RULES {
        let (source, sink) = (MemorySource::default(), MemorySink::new(sharing));
        let (first, blobs) = fixture::image(1, &[5000, 10]);
        let base = base_of(&first, 1).unwrap();
        source.insert("app:1", (first.clone(), blobs));
        let blobs = Arc::new(source.store().clone());
        let opened = OpenImage { image: base, blobs };
        sink.load(&opened, &Missing::all(&opened.image)).await.unwrap();
        assert_eq!(sink.bases(), 1);
        let report = pull(&source, &sink, "app:1").await;
        assert_eq!(report.outcome, Outcome::Synced);
        assert_eq!(sink.bases(), 0, "{sharing}");
        // What it had brought is not brought again.
        assert!(5000 <= report.bytes_saved && report.bytes_moved < 5000, "{sharing}: {report:?}");
    }
}

#[tokio::test]
async fn what_a_graphdriver_confirms_is_not_asked_for() {
    let (source, sink) = (MemorySource::default(), MemorySink::new(Sharing::ByChain));
    source.insert("app:1", fixture::image(1, &[1000]));
    pull(&source, &sink, "app:1").await;
    let report = pull(&source, &sink, "app:1").await;
    assert_eq!(stages(&report), [Stage::Resolve, Stage::Plan]);
    assert_eq!(report.outcome, Outcome::Skipped);
}
