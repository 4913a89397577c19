//! `BlobService` over a library: blobs as streams of pieces, as fast as their reader takes them.
//!
//! ```text
//!   library ──► frames ──► watched ──► message ──► connection
//!                 │         a reader     header in front
//!                 │         that stands still loses its connection
//!                 └─ zstd, where the link is slower than that
//! ```
//! `ReadBlob` leaves by [`super::raw`]; the trait below says the same in generated words.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::origin::{Origin, Reach};
use super::piece::{Piece, Pieces};
use super::watched::{Watch, watched};
use crate::compress::{compressing_speed, squeezed};
use crate::convert::blob::{self, Wanted};
use crate::convert::status::{from_blob_error, from_read_error};
use crate::speed::{Speed, is_worth_compressing};
use crate::wire::Encoding;
use crate::wire::generated as pb;
use crate::wire::generated::blob_service_server::BlobService;
use control::identity::Caller;
use control::lending::{Known, Library, Opened, Turn};

/// The blobs of a library, for one caller.
pub(super) struct Blobs {
    caller: Caller,
    library: Arc<Library>,
    /// Speed at which this caller's connections take data.
    link: Arc<Speed>,
    /// Compression speed of this host.
    compressing: Arc<Speed>,
}

/// Guards held while any byte of a stream is under way: the reader's turn, and the watch over the
/// reader.
pub(super) struct Kept {
    _turn: Turn,
    _watch: Watch,
}

impl Blobs {
    pub(super) fn new(caller: Caller, library: Arc<Library>) -> Self {
        Self { caller, library, link: Arc::default(), compressing: Arc::default() }
    }

    /// Returns the pieces of the requested blob for a caller at that distance, and the guards to
    /// hold while any piece is under way.
    ///
    /// A reader that stands still loses its connection: where it shut its window, nobody polls the
    /// stream any more, and nothing else takes back what HTTP/2 has queued. The other streams of that
    /// connection go on at their offsets in a new one.
    pub(super) async fn read(
        &self,
        request: pb::ReadBlobRequest,
        origin: Origin,
    ) -> Result<(Pieces, Arc<Kept>), Status> {
        let wanted = blob::read_request(request)?;
        let Wanted { loan, digest, offset, .. } = &wanted;
        let opened = self.library.open(&self.caller, loan, digest, *offset).await;
        let Opened { known, frames, turn } = opened.map_err(|error| from_read_error(&error))?;
        let (encoding, frames) = match self.encoding(&wanted, known, origin.reach) {
            Encoding::Unspecified => (Encoding::Unspecified, frames),
            zstd => (zstd, squeezed(frames, *digest, self.compressing.clone())),
        };
        let data = frames.map(|frame| match frame {
            Ok(frame) => Ok(Piece::Data(frame)),
            Err(error) => Err(from_blob_error(&error)),
        });
        let head = futures::stream::iter([Ok(Piece::Head(known.size, encoding))]);
        let (caller, digest) = (self.caller.clone(), *digest);
        let late = move || {
            tracing::info!(%caller, blob.digest = %digest, "ending the connection of a late reader");
            origin.end.cancel();
        };
        let (pieces, watch) = watched(head.chain(data).boxed(), self.link.clone(), late);
        Ok((pieces, Arc::new(Kept { _turn: turn, _watch: watch })))
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
        let origin = Origin::of(request.extensions());
        let (pieces, kept) = self.read(request.into_inner(), origin).await?;
        let messages = pieces.map(move |piece| {
            let _kept = &kept;
            piece.map(|piece| match piece {
                Piece::Head(size, encoding) => blob::head(size, encoding),
                Piece::Data(data) => blob::piece(data),
            })
        });
        Ok(Response::new(messages.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use transfer::ConfigDigest;
    use transfer::Digest;
    use transfer::fixture::MemorySource;
    use transfer::store::Leases;

    use super::*;
    use control::lending::{AllImages, Loan, Terms};

    /// Encoding chosen for a compression speed of `ours` MB per second and a link speed that the
    /// caller reports as `theirs`.
    fn chosen(theirs: Option<u64>, ours: u32, compresses: bool, reach: Reach) -> Encoding {
        let images = Arc::new(MemorySource::default());
        let library =
            Library::new(images, Arc::new(AllImages), Leases::default(), Terms::default());
        let blobs = Blobs::new(Caller::Admin, Arc::new(library));
        if 0 < ours {
            blobs.link.note(50_000_000, Duration::from_secs(50) / ours);
        }
        let digest = Digest::of(b"blob");
        let loan = Loan { config_digest: ConfigDigest(digest), lease_id: String::new() };
        let link = theirs.map(|megabytes| megabytes * 1_000_000);
        let known = Known { size: 1 << 30, compresses };
        blobs.encoding(&Wanted { loan, digest, offset: 0, link }, known, reach)
    }

    #[test]
    fn only_a_slow_link_to_another_host_is_worth_compressing_for() {
        use Reach::{Host, Network};
        assert_eq!(chosen(Some(10), 10, true, Network), Encoding::Zstd);
        for (why, theirs, ours, compresses, reach) in [
            ("nobody asked", None, 10, true, Network),
            ("this end did not measure", Some(10), 0, true, Network),
            ("the caller finds it fast: we are slow", Some(1000), 10, true, Network),
            ("we find it fast: the caller is slow", Some(10), 1000, true, Network),
            ("it is compressed already", Some(10), 10, false, Network),
            ("it is the same host", Some(10), 10, true, Host),
        ] {
            let chosen = chosen(theirs, ours, compresses, reach);
            assert_eq!(chosen, Encoding::Unspecified, "{why}");
        }
    }
}
