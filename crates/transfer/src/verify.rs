//! The trust boundary: bytes enter unverified, and leave verified or not at all.
//!
//! The last frame is held back until digest and size were found right. A reader that counts bytes
//! could otherwise act on a complete blob before our end of the stream reaches it; so, having all
//! the bytes means having the right ones. This costs one frame of memory for each stream.

use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::blob::{BlobError, BlobStream, MAX_FRAME};
use crate::descriptor::Descriptor;
use crate::digest::Hasher;

/// A peer's frame was empty or larger than [`MAX_FRAME`].
#[derive(Debug, thiserror::Error)]
#[error("a frame of {size} bytes came, frames have 1 to {MAX_FRAME}")]
pub struct BadFrame {
    /// The frame's size in bytes.
    pub size: usize,
}

/// The same stream, ending well only if its bytes are those that `descriptor` names.
///
/// `stream` begins at offset 0; whoever joins the pieces of a broken stream does so before this.
///
/// Yields [`BlobError::SizeMismatch`] as soon as there are too many bytes and when there were too
/// few, [`BlobError::DigestMismatch`] in place of the last frame, and [`BlobError::Unavailable`] for
/// a [`BadFrame`]; errors of `stream` pass through. An error is the last thing that it yields.
#[must_use]
pub fn verify(stream: BlobStream, descriptor: &Descriptor) -> BlobStream {
    let state = Verified {
        stream,
        descriptor: descriptor.clone(),
        hasher: Hasher::default(),
        seen: 0,
        held: None,
    };
    stream::try_unfold(state, async |mut state| Ok(state.next().await?.map(|frame| (frame, state))))
        .boxed()
}

struct Verified {
    stream: BlobStream,
    descriptor: Descriptor,
    hasher: Hasher,
    seen: u64,
    held: Option<Bytes>,
}

impl Verified {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            let Some(frame) = self.stream.next().await else {
                return self.finish();
            };
            let frame = frame?;
            check_frame(&frame).map_err(|e| BlobError::unavailable(self.descriptor.digest, e))?;
            self.seen += frame.len() as u64;
            if self.descriptor.size < self.seen {
                return Err(self.size_mismatch());
            }
            self.hasher.update(&frame);
            if let Some(ready) = self.held.replace(frame) {
                return Ok(Some(ready));
            }
        }
    }

    /// The last frame, then the end.
    fn finish(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.seen != self.descriptor.size {
            return Err(self.size_mismatch());
        }
        let actual = self.hasher.digest();
        if actual != self.descriptor.digest {
            return Err(BlobError::DigestMismatch { expected: self.descriptor.digest, actual });
        }
        // A stream that has ended stays ended, so that the next poll is the end of ours.
        self.stream = stream::empty().boxed();
        Ok(self.held.take())
    }

    fn size_mismatch(&self) -> BlobError {
        let Descriptor { digest, size, .. } = self.descriptor;
        BlobError::SizeMismatch { digest, expected: size, actual: self.seen }
    }
}

/// Refuses what [`BlobStream`] does not allow.
///
/// # Errors
/// [`BadFrame`].
pub fn check_frame(frame: &Bytes) -> Result<(), BadFrame> {
    match frame.len() {
        1..=MAX_FRAME => Ok(()),
        size => Err(BadFrame { size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{descriptor_of, drain, scripted};

    /// What a reader of `frames` sees when it was promised `blob`: the bytes, and how it ended.
    async fn read(blob: &[u8], frames: &[&[u8]]) -> (Vec<u8>, Result<(), BlobError>) {
        let frames = frames.iter().map(|frame| Ok(Bytes::copy_from_slice(frame)));
        drain(verify(scripted(frames), &descriptor_of(blob))).await
    }

    #[tokio::test]
    async fn the_right_bytes_end_well_however_they_are_cut() {
        for frames in [vec![b"abc".as_slice()], vec![b"a", b"bc"], vec![b"a", b"b", b"c"]] {
            let (bytes, end) = read(b"abc", &frames).await;
            assert_eq!(bytes, b"abc");
            end.unwrap();
        }
        let (bytes, end) = read(b"", &[]).await;
        assert_eq!(bytes, b"");
        end.unwrap();
    }

    #[tokio::test]
    async fn wrong_bytes_never_end_well() {
        let (bytes, end) = read(b"abc", &[b"ab", b"d"]).await;
        assert_eq!(bytes, b"ab", "the last frame is held back");
        assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");

        let (bytes, end) = read(b"abc", &[b"a", b"b"]).await;
        assert_eq!(bytes, b"a");
        assert!(matches!(end, Err(BlobError::SizeMismatch { actual: 2, .. })), "{end:?}");

        let (bytes, end) = read(b"abc", &[b"abc", b"d"]).await;
        assert_eq!(bytes, b"", "having all bytes means having the right ones");
        assert!(matches!(end, Err(BlobError::SizeMismatch { actual: 4, .. })), "{end:?}");

        let (_, end) = read(b"", &[b"a"]).await;
        assert!(matches!(end, Err(BlobError::SizeMismatch { actual: 1, .. })), "{end:?}");
    }

    #[tokio::test]
    async fn an_endless_stream_is_cut_off() {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(b"more"))).boxed();
        let (_, end) = drain(verify(endless, &descriptor_of(b"some"))).await;
        assert!(matches!(end, Err(BlobError::SizeMismatch { .. })), "{end:?}");
    }

    #[tokio::test]
    async fn frames_that_are_not_frames_are_refused() {
        let large = vec![0; MAX_FRAME + 1];
        for frames in [[b"a".as_slice(), b"", b"b"], [b"a", b"b", b""], [&large, b"", b""]] {
            let (_, end) = read(&frames.concat(), &frames).await;
            assert!(matches!(end, Err(BlobError::Unavailable { .. })), "{end:?}");
        }
    }

    #[tokio::test]
    async fn an_error_of_the_source_passes_through_and_is_the_last() {
        let broken = || BlobError::unavailable(descriptor_of(b"abc").digest, "broken pipe");
        let frames = [Ok(Bytes::from_static(b"a")), Err(broken()), Ok(Bytes::from_static(b"bc"))];
        let mut stream = verify(scripted(frames), &descriptor_of(b"abc"));
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
        assert!(stream.next().await.is_none());
    }
}
