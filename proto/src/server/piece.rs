//! A message of a stream of blob bytes, before it is encoded.

use bytes::Bytes;
use futures::stream::BoxStream;
use tonic::Status;

use crate::wire::Encoding;

/// One message of a stream.
#[derive(Debug)]
pub(super) enum Piece {
    /// The first message: the blob's size, and the encoding of its bytes.
    Head(u64, Encoding),
    /// The next bytes.
    Data(Bytes),
}

impl Piece {
    /// Number of the blob's bytes in it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Head(..) => 0,
        }
    }
}

/// The messages of one stream.
pub(super) type Pieces = BoxStream<'static, Result<Piece, Status>>;
