//! `BlobService` over a library: blobs as streams of pieces, as fast as their reader takes them.
//!
//! ```text
//!   library ──► frames ──► pump ──► channel ──► message ──► connection
//!                 │        own task   1 piece    header in front
//!                 └─ zstd, where the link is slower than that
//! ```
//! `ReadBlob` leaves by [`super::raw`]; the trait below says the same in generated words.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use super::connection::Reach;
use crate::convert::blob::{self, Wanted};
use crate::convert::status::{from_blob_error, from_read_error};
use crate::identity::Caller;
use crate::library::{Known, Library};
use crate::speed::{Speed, is_worth_compressing};
use crate::squeeze::{compressing_speed, squeezed};
use crate::wire::generated as pb;
use crate::wire::generated::blob_service_server::BlobService;
use crate::wire::{Encoding, PROGRESS_TIMEOUT};

/// Pieces read ahead of the network, each a frame. With the one that the pump holds and two in the
/// connection's queue a stream has four in flight: [`transfer::limited::WINDOW`].
const READ_AHEAD: usize = 1;

/// The blobs of a library, for one caller.
pub(super) struct Blobs {
    caller: Caller,
    library: Arc<Library>,
    /// How fast this caller's connections take what is sent.
    link: Arc<Speed>,
    /// How fast this host compresses.
    compressing: Arc<Speed>,
}

/// What is sent, one message each.
#[derive(Debug)]
pub(super) enum Piece {
    /// The first: the blob's size, and how its bytes come.
    Head(u64, Encoding),
    /// The next bytes.
    Data(Bytes),
}

pub(super) type Pieces = BoxStream<'static, Result<Piece, Status>>;

impl Blobs {
    pub(super) fn new(caller: Caller, library: Arc<Library>) -> Self {
        Self { caller, library, link: Arc::default(), compressing: Arc::default() }
    }

    /// The pieces of what is wanted, for a caller that is so far away.
    pub(super) async fn read(
        &self,
        request: pb::ReadBlobRequest,
        reach: Reach,
    ) -> Result<Pieces, Status> {
        let wanted = blob::read_request(request)?;
        let Wanted { loan, digest, offset, .. } = &wanted;
        let opened = self.library.open(&self.caller, loan, digest, *offset).await;
        let (known, frames) = opened.map_err(|error| from_read_error(&error))?;
        let (encoding, frames) = match self.encoding(&wanted, known, reach) {
            Encoding::Unspecified => (Encoding::Unspecified, frames),
            zstd => (zstd, squeezed(frames, *digest, self.compressing.clone())),
        };
        let data = frames.map(|frame| match frame {
            Ok(frame) => Ok(Piece::Data(frame)),
            Err(error) => Err(from_blob_error(&error)),
        });
        let head = futures::stream::iter([Ok(Piece::Head(known.size, encoding))]);
        Ok(paced(head.chain(data).boxed(), self.link.clone()))
    }

    /// Compresses only what the caller takes so and what gains by it, on a link to another host
    /// that both ends measured to be slow.
    fn encoding(&self, wanted: &Wanted, known: Known, reach: Reach) -> Encoding {
        let (Some(theirs), Some(ours)) = (wanted.link, self.link.bytes_per_second()) else {
            return Encoding::Unspecified;
        };
        let pays = is_worth_compressing(theirs.max(ours), compressing_speed(&self.compressing));
        if reach == Reach::Network && known.compresses && pays {
            return Encoding::Zstd;
        }
        Encoding::Unspecified
    }
}

#[tonic::async_trait]
impl BlobService for Blobs {
    type ReadBlobStream = BoxStream<'static, Result<pb::ReadBlobResponse, Status>>;

    async fn stat_blobs(
        &self,
        request: Request<pb::StatBlobsRequest>,
    ) -> Result<Response<pb::StatBlobsResponse>, Status> {
        let (loan, digests) = blob::stat_request(request.into_inner())?;
        let mut sizes = Vec::with_capacity(digests.len());
        for digest in digests {
            let size = self.library.stat(&self.caller, &loan, &digest).await;
            sizes.push((digest, size.map_err(|error| from_blob_error(&error))?));
        }
        Ok(Response::new(blob::stat_response(&sizes)))
    }

    async fn read_blob(
        &self,
        request: Request<pb::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        let reach = Reach::of(request.extensions());
        let pieces = self.read(request.into_inner(), reach).await?;
        let messages = pieces.map(|piece| {
            piece.map(|piece| match piece {
                Piece::Head(size, encoding) => blob::head(size, encoding),
                Piece::Data(data) => blob::piece(data),
            })
        });
        Ok(Response::new(messages.boxed()))
    }
}

/// The same pieces, read a little ahead; a reader that takes none for [`PROGRESS_TIMEOUT`] loses its
/// stream, and what the stream held. `link` learns how long pieces had to wait.
///
/// The pump is a task of its own since a body is not polled while its reader is slow; it ends with
/// the stream that it fills.
fn paced(mut pieces: Pieces, link: Arc<Speed>) -> Pieces {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let pump = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(piece) = pieces.next().await {
            let (is_last, len) = (piece.is_err(), len_of(&piece));
            let begun = Instant::now();
            match sender.send_timeout(piece, PROGRESS_TIMEOUT).await {
                Ok(()) if !is_last => link.note(len, begun.elapsed()),
                _ => return is_last,
            }
        }
        true
    }));
    let tail = async move {
        // The channel is closed: either all was sent, or the pump lost its patience.
        match pump.await {
            Ok(true) => None,
            _ => Some(Err(Status::deadline_exceeded("the reader took nothing for too long"))),
        }
    };
    let tail = futures::stream::once(tail).filter_map(futures::future::ready);
    ReceiverStream::new(receiver).chain(tail).boxed()
}

fn len_of(piece: &Result<Piece, Status>) -> usize {
    match piece {
        Ok(Piece::Data(data)) => data.len(),
        Ok(Piece::Head(..)) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(count: u64) -> Pieces {
        let head = |size| Ok(Piece::Head(size, Encoding::Unspecified));
        futures::stream::iter((0..count).map(head)).boxed()
    }

    fn through_pump(pieces: Pieces) -> Pieces {
        paced(pieces, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let mut paced = through_pump(pieces(10));
        let mut seen = 0;
        while let Some(piece) = paced.next().await {
            assert!(matches!(piece, Ok(Piece::Head(size, _)) if size == seen), "{piece:?}");
            seen += 1;
            tokio::time::sleep(PROGRESS_TIMEOUT / 2).await;
        }
        assert_eq!(seen, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_stream() {
        let held = Arc::new(());
        let stream = pieces(100).map({
            let held = held.clone();
            move |piece| {
                let _held = &held;
                piece
            }
        });
        let mut paced = through_pump(stream.boxed());
        assert!(paced.next().await.unwrap().is_ok());
        tokio::time::sleep(PROGRESS_TIMEOUT * 2).await;
        assert_eq!(Arc::strong_count(&held), 1, "the stream is still held");
        let rest: Vec<_> = paced.collect().await;
        let error = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let broken = pieces(1).chain(futures::stream::iter([Err(Status::data_loss("bad"))]));
        let seen: Vec<_> = through_pump(broken.chain(pieces(1)).boxed()).collect().await;
        assert_eq!(seen.len(), 2);
        assert!(seen[1].is_err());
    }
}
