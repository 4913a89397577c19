//! Bytes in flight: no more than allowed, for each caller and in all, however slow readers are.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use control::Library;
use control::lending::{AllImages, Terms};
use futures::{StreamExt as _, stream};
use proto::RemoteHost;
use proto::server::{HOST_SERVICES, Health, Services};
use tokio::task::JoinSet;
use transfer::fixture::bytes;
use transfer::frame::{HEADROOM, Pool};
use transfer::store::Leases;
use transfer::{BlobError, BlobSource, BlobStream, Digest, MAX_FRAME};

use crate::elsewhere::Elsewhere;
use crate::pipe::{Idle, LARGE, Served, image_of, lent, manners, range};

/// Frames of one blob, in all and of each caller.
const ALL: usize = 30;
const EACH: usize = 12;

/// Maximum time to the first byte when many tests share a core.
const PATIENCE: Duration = Duration::from_secs(60);

/// One blob, in frames that are counted while anybody holds them.
#[derive(Clone)]
struct Counted {
    blob: bytes::Bytes,
    pool: Pool,
    most: Arc<AtomicUsize>,
}

impl Counted {
    fn frame(&self, at: usize) -> bytes::Bytes {
        let part = &self.blob[at..self.blob.len().min(at + MAX_FRAME)];
        let filled = self.pool.frame(part.len(), |buffer| {
            buffer.copy_from_slice(part);
            Ok::<_, Infallible>(part.len())
        });
        self.most.fetch_max(self.pool.out() / (MAX_FRAME + HEADROOM), Ordering::Relaxed);
        filled.unwrap_or_else(|never| match never {})
    }
}

#[async_trait]
impl BlobSource for Counted {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(Some(self.blob.len() as u64))
    }

    async fn open(&self, _: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (source, offset) = (self.clone(), usize::try_from(offset).unwrap());
        let frames = stream::iter((offset..self.blob.len()).step_by(MAX_FRAME));
        let frames = frames.map(move |at| {
            let source = source.clone();
            async move { Ok(source.frame(at)) }
        });
        // Reads as far ahead as a store does.
        Ok(frames.buffered(2).boxed())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stand_still_hold_no_more_than_allowed() {
    let blob = bytes(1, 16 * MAX_FRAME);
    let image = image_of(std::slice::from_ref(&blob));
    let lent_image = image.clone();
    let source = Counted { blob, pool: Pool::default(), most: Arc::default() };
    let images = Elsewhere { image, blobs: Arc::new(source.clone()) };
    let terms = Terms {
        reads: 100,
        reads_per_caller: 50,
        bytes_in_flight: (ALL * MAX_FRAME) as u64,
        bytes_in_flight_per_caller: (EACH * MAX_FRAME) as u64,
        ..Terms::default()
    };
    let library = Library::new(Arc::new(images), Arc::new(AllImages), Leases::default(), terms);
    let library = Arc::new(library);
    let health = Health::not_serving(&HOST_SERVICES).await;
    let mut served = Vec::new();
    let mut reads = JoinSet::new();
    for (callers, name) in ["a", "b", "c"].into_iter().enumerate() {
        let services = Services::of_host(
            range(name),
            library.clone(),
            Arc::new(Idle),
            Arc::new(Idle),
            &health,
        );
        let server = Served::new(services, LARGE);
        let host = RemoteHost::new(server.endpoint(), manners());
        served.push(server);
        let blobs = lent(&host, &lent_image).await;
        for reader in 0..6 {
            let (source, blobs) = (source.clone(), blobs.clone());
            reads.spawn(async move {
                let digest = Digest::of(&source.blob);
                let mut read = blobs.open(&digest, 0).await.unwrap();
                let mut seen = 0;
                // Everyone stands still long enough for all that fits to be read ahead, at times
                // of their own.
                tokio::time::sleep(Duration::from_millis(200)).await;
                while let Some(frame) = read.next().await {
                    seen += frame.unwrap().len();
                    if seen % (5 * MAX_FRAME) == 0 {
                        tokio::time::sleep(Duration::from_millis(20 * reader)).await;
                    }
                }
                assert_eq!(seen, source.blob.len());
            });
        }
        // The first alone, then two, then all: so that the bound of one shows, and that of all.
        let reading = async {
            while source.most.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("nothing is being read");
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (most, allowed) = (source.most.load(Ordering::Relaxed), EACH * (callers + 1));
        assert!(most <= allowed.min(ALL), "{most} frames in flight for {} callers", callers + 1);
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }
    let most = source.most.load(Ordering::Relaxed);
    assert!(most <= ALL, "{most} frames were in flight");
    assert!(ALL / 3 < most, "only {most} frames were ever in flight: this shows nothing");
    assert_eq!(source.pool.out(), 0, "something is still held");
}
