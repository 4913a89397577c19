//! Frames as zstd frames and back: for links that are slower than that.
//!
//! Each frame is compressed by itself, so that a stream can be taken up at any of them, neither end
//! keeps a window, and what a message becomes is bounded before it is decoded. Both directions run
//! on a blocking thread: a frame takes milliseconds.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use transfer::{BlobError, BlobStream, Digest, MAX_FRAME};

use crate::speed::Speed;

/// The fastest of zstd's usual levels: on layers it makes about half of them, and the next ones
/// cost more time than they save.
const LEVEL: i32 = 1;

/// Assumed compression speed of one core where none was measured, in bytes per second: a cautious
/// guess.
pub(crate) const USUAL_SPEED: u64 = 400_000_000;

/// Compression speed of this host, in bytes per second.
pub(crate) fn compressing_speed(measured: &Speed) -> u64 {
    measured.bytes_per_second().unwrap_or(USUAL_SPEED)
}

/// The frames of `digest`, each compressed; `speed` learns how long that takes.
pub(crate) fn squeezed(frames: BlobStream, digest: Digest, speed: Arc<Speed>) -> BlobStream {
    let squeezed = stream::try_unfold((frames, speed), move |(mut frames, speed)| async move {
        let Some(frame) = frames.next().await.transpose()? else {
            return Ok(None);
        };
        let taken = speed.clone();
        let squeezed = off_thread(move || {
            let (begun, len) = (Instant::now(), frame.len());
            let squeezed = zstd::bulk::compress(&frame, LEVEL)?;
            taken.note(len, begun.elapsed());
            Ok(squeezed)
        });
        let squeezed = squeezed.await.map_err(|error| BlobError::unavailable(digest, error))?;
        Ok(Some((squeezed, (frames, speed))))
    });
    squeezed.boxed()
}

/// The frame that a message's data was made from.
///
/// # Errors
/// That it was not, or that it becomes more than a frame may be.
pub(crate) async fn expanded(data: Bytes) -> io::Result<Bytes> {
    off_thread(move || zstd::bulk::decompress(&data, MAX_FRAME)).await
}

async fn off_thread(
    work: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> io::Result<Bytes> {
    spawn_blocking(work).await.map_err(io::Error::other)?.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use transfer::fixture::{bytes, scripted};

    use super::*;
    use crate::wire::MAX_MESSAGE;

    #[tokio::test]
    async fn frames_come_back_as_they_were() {
        let noise = bytes(1, MAX_FRAME);
        let text = Bytes::from("a layer mostly is text. ".repeat(MAX_FRAME / 24));
        let frames = [Bytes::from_static(b"x"), text.clone(), noise];
        let speed = Arc::new(Speed::default());
        let stream = scripted(frames.clone().map(Ok));
        let data: Vec<Bytes> =
            squeezed(stream, Digest::of(b""), speed).try_collect().await.unwrap();
        assert_eq!(data.len(), frames.len());
        assert!(data[1].len() < text.len() / 10, "text became {} bytes", data[1].len());
        for (data, frame) in data.into_iter().zip(frames) {
            assert!(data.len() + 64 < MAX_MESSAGE, "{} bytes do not fit a message", data.len());
            assert!(expanded(data).await.unwrap() == frame);
        }
    }

    #[tokio::test]
    async fn what_becomes_more_than_a_frame_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_FRAME + 1], LEVEL).unwrap();
        assert!(bomb.len() < 1000);
        let twice = [zstd::bulk::compress(&vec![0; MAX_FRAME], LEVEL).unwrap(), bomb.clone()];
        for data in [bomb, twice.concat(), b"no zstd".to_vec()] {
            assert!(expanded(data.into()).await.is_err());
        }
    }

    #[tokio::test]
    async fn an_error_passes_through() {
        let broken = BlobError::NotFound { digest: Digest::of(b"gone") };
        let stream = scripted([Ok(Bytes::from_static(b"a")), Err(broken)]);
        let mut squeezed = squeezed(stream, Digest::of(b""), Arc::default());
        assert!(squeezed.next().await.unwrap().is_ok());
        let error = squeezed.next().await.unwrap().unwrap_err();
        assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    }
}
