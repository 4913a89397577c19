//! How many readers share one ingest, and what each of them sees when something goes wrong.

use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::join_all;
use futures::{FutureExt, SinkExt};

use super::*;
use crate::MAX_FRAME;
use crate::fixture::{Faulty, bytes, contract, descriptor_of, drain, frames, keep, unknown};
use crate::metered::{Metered, MeteredStore};
use crate::store::{FsStore, MemoryStore};
use crate::verify::verify;

type Feed = mpsc::Sender<Result<Bytes, BlobError>>;

/// A far source of one blob, whose frames come when a test sends them.
struct Fed {
    blob: Descriptor,
    stream: Mutex<Option<mpsc::Receiver<Result<Bytes, BlobError>>>>,
}

#[async_trait]
impl BlobSource for Fed {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        Ok((*digest == self.blob.digest).then_some(self.blob.size))
    }

    async fn open(&self, digest: &Digest, _: u64) -> Result<BlobStream, BlobError> {
        let stream = self.stream.lock().unwrap().take();
        Ok(stream.ok_or_else(|| BlobError::unavailable(*digest, "opened twice"))?.boxed())
    }
}

/// A far source that notices what is wrong, as each does.
struct Verifying<S>(S);

#[async_trait]
impl<S: BlobSource> BlobSource for Verifying<S> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        assert_eq!(offset, 0, "what is to be kept is read from its beginning");
        let size = self.0.stat(digest).await?.ok_or(BlobError::NotFound { digest: *digest })?;
        let media_type = MediaType::new(MediaType::LAYER);
        let blob = Descriptor { media_type, digest: *digest, size };
        Ok(verify(self.0.open(digest, 0).await?, &blob))
    }
}

fn fed(blob: &[u8]) -> (Shared, Arc<MeteredStore<MemoryStore>>, Feed) {
    let (feed, stream) = mpsc::channel(0);
    let store = Arc::new(MeteredStore::new(MemoryStore::default()));
    let stream = Mutex::new(Some(stream));
    let far = Arc::new(Fed { blob: descriptor_of(blob), stream });
    (Shared::new(store.clone(), far), store, feed)
}

fn far() -> MemoryStore {
    let far = MemoryStore::default();
    for blob in contract::blobs() {
        far.insert(blob);
    }
    far
}

#[tokio::test]
async fn shared_is_a_source() {
    let shared = Shared::new(Arc::new(MemoryStore::default()), Arc::new(far()));
    contract::source(&shared, &contract::blobs()).await;
    shared.drained().await;
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(FsStore::open(folder.path()).await.unwrap());
    let shared = Shared::new(files, Arc::new(far()));
    contract::source(&shared, &contract::blobs()).await;
    shared.drained().await;
}

#[tokio::test]
async fn a_blob_that_many_ask_for_is_taken_in_once() {
    let store = Arc::new(MeteredStore::new(MemoryStore::default()));
    let far = Metered::new(far());
    let counters = far.counters().clone();
    let shared = Shared::new(store.clone(), Arc::new(far));
    let reads = (0..16).flat_map(|_| contract::blobs()).map(|blob| {
        let shared = &shared;
        async move {
            let (read, end) = drain(shared.open(&Digest::of(&blob), 0).await.unwrap()).await;
            end.unwrap();
            assert_eq!(read, blob);
        }
    });
    join_all(reads).await;
    shared.drained().await;
    let ingests = store.ingests().snapshot();
    assert_eq!(counters.snapshot().opens, contract::blobs().len() as u64);
    assert!(ingests.committed.values().all(|times| *times == 1), "{ingests:?}");
    assert_eq!((ingests.committed.len(), ingests.dropped), (contract::blobs().len(), 0));
}

#[tokio::test]
async fn readers_follow_from_any_offset_and_the_end_waits_for_the_commit() {
    let blob = bytes(1, 3 * MAX_FRAME);
    let (shared, store, mut feed) = fed(&blob);
    let digest = Digest::of(&blob);
    let open = async |offset| shared.open(&digest, offset).await.unwrap();
    let (mut first, mut second) = tokio::join!(open(0), open(2 * MAX_FRAME as u64));
    assert_eq!(shared.stat(&digest).await.unwrap(), Some(blob.len() as u64));
    let error = shared.open(&digest, blob.len() as u64 + 1).await.map(drop).unwrap_err();
    assert!(matches!(error, BlobError::OffsetBeyondEnd { .. }), "{error:?}");

    for frame in frames(&blob, MAX_FRAME) {
        feed.send(Ok(frame)).await.unwrap();
    }
    assert_eq!(first.next().await.unwrap().unwrap(), blob[..MAX_FRAME]);
    assert_eq!(first.next().await.unwrap().unwrap(), blob[MAX_FRAME..2 * MAX_FRAME]);
    tokio::task::yield_now().await;
    assert!(first.next().now_or_never().is_none(), "the last frame came before the commit");
    assert!(second.next().now_or_never().is_none(), "the last frame came before the commit");
    assert!(shared.in_progress(&digest));
    drop(feed);
    assert_eq!(drain(first).await.0, blob[2 * MAX_FRAME..]);
    assert_eq!(second.next().await.unwrap().unwrap(), blob[2 * MAX_FRAME..]);
    assert!(second.next().await.is_none());
    assert!(!shared.in_progress(&digest));
    assert_eq!(store.ingests().committed(&digest), 1);
}

#[tokio::test(start_paused = true)]
async fn an_ingest_goes_on_while_anybody_reads_and_ends_some_time_after_nobody_does() {
    let blob = bytes(1, 4 * MAX_FRAME);
    let (shared, store, mut feed) = fed(&blob);
    let digest = Digest::of(&blob);
    let first = shared.open(&digest, 0).await.unwrap();
    let mut second = shared.open(&digest, 0).await.unwrap();
    drop(first);
    let mut frames = frames(&blob, MAX_FRAME).into_iter();
    for _ in 0..2 {
        feed.send(Ok(frames.next().unwrap())).await.unwrap();
    }
    assert_eq!(second.next().await.unwrap().unwrap().len(), MAX_FRAME);
    drop(second);
    // Whoever lost its connection comes back, to the same ingest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut again = shared.open(&digest, MAX_FRAME as u64).await.unwrap();
    feed.send(Ok(frames.next().unwrap())).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().len(), MAX_FRAME);
    drop(again);
    // The task's end closes the feed.
    shared.drained().await;
    feed.send(Ok(frames.next().unwrap())).await.unwrap_err();
    assert!(!shared.in_progress(&digest));
    let ingests = store.ingests().snapshot();
    assert_eq!((ingests.committed.len(), ingests.dropped), (0, 1));
    assert_eq!(store.stat(&digest).await.unwrap(), None);
}

/// Reads a blob; a task that is quicker than its readers fails their opening already.
async fn read_all(shared: &Shared, digest: &Digest) -> (Vec<u8>, Result<(), BlobError>) {
    match shared.open(digest, 0).await {
        Ok(stream) => drain(stream).await,
        Err(error) => (Vec::new(), Err(error)),
    }
}

#[tokio::test]
async fn an_error_reaches_all_who_follow_and_the_next_begins_anew() {
    let blob = bytes(1, 3 * MAX_FRAME);
    let digest = Digest::of(&blob);
    let memory = MemoryStore::default();
    memory.insert(blob.clone());
    let cut = Faulty::cut_off_at(memory.clone(), MAX_FRAME as u64 * 2 + 9).only(1);
    let shared = Shared::new(Arc::new(MemoryStore::default()), Arc::new(cut));
    let read = || read_all(&shared, &digest);
    for (bytes, end) in join_all((0..3).map(|_| read())).await {
        assert!(blob.starts_with(&bytes));
        let error = end.unwrap_err();
        assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
        assert_eq!(error.source().unwrap().to_string(), "the line went dead");
    }
    read().await.1.unwrap();

    let corrupt = Verifying(Faulty::corrupt_at(memory, 5).only(1));
    let store = Arc::new(MemoryStore::default());
    let shared = Shared::new(store.clone(), Arc::new(corrupt));
    let read = || read_all(&shared, &digest);
    for (_, end) in join_all((0..3).map(|_| read())).await {
        assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    }
    assert_eq!(store.list(), []);
    read().await.1.unwrap();
}

#[tokio::test]
async fn more_bytes_than_the_source_announced_are_an_error() {
    let blob = bytes(1, 2 * MAX_FRAME);
    let (shared, store, mut feed) = fed(&blob);
    let follower = shared.open(&Digest::of(&blob), 0).await.unwrap();
    for frame in frames(&blob, MAX_FRAME) {
        feed.send(Ok(frame)).await.unwrap();
    }
    feed.send(Ok(Bytes::from_static(b"!"))).await.unwrap();
    let error = drain(follower).await.1.unwrap_err();
    let expected = blob.len() as u64;
    assert!(
        matches!(error, BlobError::SizeMismatch { actual, .. } if actual == expected + 1),
        "{error:?}"
    );
    shared.drained().await;
    let ingests = store.ingests().snapshot();
    assert_eq!((ingests.committed.len(), ingests.dropped), (0, 1));
}

#[tokio::test]
async fn a_store_without_room_is_told_of_the_blob_that_it_had_no_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path().join("store")).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("store/ingest")).unwrap();
    let blob = contract::blobs().pop().unwrap();
    let shared = Shared::new(Arc::new(store), Arc::new(far()));
    match shared.open(&Digest::of(&blob), 0).await.map(drop) {
        Err(BlobError::Storage { digest, source, .. }) => {
            assert_eq!(digest, Digest::of(&blob));
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_nowhere_is_not_found_by_any_who_ask() {
    let shared = Shared::new(Arc::new(MemoryStore::default()), Arc::new(far()));
    let nowhere = unknown();
    for opened in join_all((0..3).map(|_| shared.open(&nowhere, 0))).await {
        let error = opened.map(drop).unwrap_err();
        assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_rotten_blob_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).await.unwrap();
    let blob = bytes(1, 2 * MAX_FRAME);
    let far = MemoryStore::default();
    far.insert(blob.clone());
    let digest = keep(&store, &blob).await.digest;
    std::fs::write(folder.path().join("blobs/sha256").join(digest.hex()), "rot").unwrap();
    let shared = Shared::new(Arc::new(store.clone()), Arc::new(far));
    drain(shared.open(&digest, 0).await.unwrap()).await.1.unwrap_err();
    assert_eq!(store.quarantined(), 1);
    assert_eq!(drain(shared.open(&digest, 0).await.unwrap()).await.0, blob);
    // Its reader did not wait for the disk.
    shared.drained().await;
    assert_eq!(store.list().await.unwrap(), [(digest, blob.len() as u64)]);
}

/// A store whose disk never says that it is done.
struct Unflushed(MemoryStore);

struct NeverDone(Box<dyn Ingest>);

#[async_trait]
impl BlobSource for Unflushed {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.0.open(digest, offset).await
    }
}

#[async_trait]
impl BlobStore for Unflushed {
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError> {
        Ok(Box::new(NeverDone(self.0.ingest().await?)))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.0.remove(digest).await
    }
}

#[async_trait]
impl Ingest for NeverDone {
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        self.0.write(frame).await
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn digest(&self) -> Digest {
        self.0.digest()
    }

    fn written(&self) -> Arc<dyn crate::blob::Written> {
        self.0.written()
    }

    async fn verify(&mut self, expected: &Descriptor) -> Result<(), BlobError> {
        self.0.verify(expected).await
    }

    async fn commit(self: Box<Self>, _: &Descriptor) -> Result<(), BlobError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn whoever_follows_waits_for_the_hash_and_not_for_the_disk() {
    let shared = Shared::new(Arc::new(Unflushed(MemoryStore::default())), Arc::new(far()));
    for blob in contract::blobs() {
        let digest = Digest::of(&blob);
        let first = read_all(&shared, &digest).await;
        first.1.unwrap();
        assert_eq!(first.0, blob);
        assert!(shared.in_progress(&digest), "others join until it is kept");
        assert_eq!(read_all(&shared, &digest).await.0, blob);
    }
}

#[tokio::test]
async fn a_verified_blob_that_could_not_be_kept_still_reaches_those_who_follow() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path().join("store")).await.unwrap();
    let blob = bytes(1, 3 * MAX_FRAME);
    let digest = Digest::of(&blob);
    let (feed, stream) = mpsc::channel(0);
    let mut feed: Feed = feed;
    let far = Fed { blob: descriptor_of(&blob), stream: Mutex::new(Some(stream)) };
    let shared = Shared::new(Arc::new(store), Arc::new(far));
    let follower = shared.open(&digest, 0).await.unwrap();
    for frame in frames(&blob, MAX_FRAME) {
        feed.send(Ok(frame)).await.unwrap();
    }
    // Stands for a disk that is full when all is to be flushed.
    std::fs::remove_dir_all(folder.path().join("store/blobs")).unwrap();
    drop(feed);
    let (read, end) = drain(follower).await;
    end.unwrap();
    assert_eq!(read, blob);
    shared.drained().await;
    assert!(!shared.in_progress(&digest), "the next begins anew");
}

#[tokio::test(start_paused = true)]
async fn no_more_blobs_are_taken_in_at_once_than_memory_is_meant_for() {
    let memory = MemoryStore::default();
    let blobs: Vec<Digest> = (0..40_u64).map(|n| memory.insert(bytes(n, 2 * MAX_FRAME))).collect();
    let store = Arc::new(MeteredStore::new(MemoryStore::default()));
    let far = Metered::new(Faulty::slow(memory, Duration::from_secs(1)));
    let opened = far.counters().clone();
    let shared = Shared::new(store.clone(), Arc::new(far));
    let mut reads = join_all(blobs.iter().map(|blob| read_all(&shared, blob)));
    let most = taken_at_once() as u64;
    for round in 1..=2 {
        // All that may go on are between two of their frames.
        let part = Duration::from_millis(1500);
        tokio::time::timeout(part, &mut reads).await.map(drop).unwrap_err();
        let (opens, done) = (opened.snapshot().opens, store.ingests().snapshot().committed.len());
        assert_eq!(opens - done as u64, most, "in round {round}");
        tokio::time::timeout(Duration::from_millis(500), &mut reads).await.map(drop).unwrap_err();
    }
    for (_, end) in reads.await {
        end.unwrap();
    }
}
