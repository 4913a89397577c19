//! `ReadBlob` as bytes on the wire: what the generated code writes and reads, without its copies.
//!
//! ```text
//!   gRPC message:  0 │ length u32 │ ReadBlobResponse
//!                                   0x0a │ length varint │ data …        field 1
//!                                   0x10 │ blob_size varint              field 2, first message only
//!                                   0x18 │ encoding varint               field 3, first message only
//! ```
//!
//! The generated code copies each payload into a buffer of its own when it writes, and again when it
//! reads. Here a payload leaves in the buffer that it was read into, its header put in front
//! ([`message`]), and arrives as a slice of what the connection received ([`Slices`]). Either end
//! may meet generated code at the other; the tests pair them both ways.
//!
//! Formats: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>,
//! <https://protobuf.dev/programming-guides/encoding/>.

mod slices;

#[cfg(test)]
mod tests;

use bytes::{BufMut as _, Bytes, BytesMut};
use transfer::frame::with_header;

use crate::wire::Encoding;

pub(crate) use self::slices::{Part, Slices};

/// Path of the RPC.
pub(crate) const READ_BLOB: &str = "/longshore.v1.BlobService/ReadBlob";

/// Content type of gRPC requests and responses.
pub(crate) const CONTENT_TYPE: http::HeaderValue =
    http::HeaderValue::from_static("application/grpc");

/// Bytes in front of each message: a flag, and the message's length.
const PREFIX: usize = 5;

/// The longest varint.
const VARINT: usize = 10;

/// Bytes in front of a payload: prefix, key, and the payload's length.
const MOST_HEADER: usize = PREFIX + 1 + VARINT;

/// A payload below this is copied behind its header: one small piece instead of two.
const SMALL: usize = 16 << 10;

/// The keys of the fields: number and wire type.
mod key {
    /// `bytes data = 1`
    pub(super) const DATA: u8 = 1 << 3 | 2;
    /// `optional uint64 blob_size = 2`
    pub(super) const BLOB_SIZE: u8 = 2 << 3;
    /// `Encoding encoding = 3`
    pub(super) const ENCODING: u8 = 3 << 3;
}

/// The first message of a stream: how large the blob is, and how its bytes come.
pub(crate) fn head(blob_size: u64, encoding: Encoding) -> Bytes {
    let mut fields = BytesMut::with_capacity(2 * (1 + VARINT));
    fields.put_u8(key::BLOB_SIZE);
    put_varint(&mut fields, blob_size);
    if encoding != Encoding::Unspecified {
        fields.put_u8(key::ENCODING);
        fields.put_u8(encoding as u8);
    }
    let mut message = BytesMut::with_capacity(PREFIX + fields.len());
    put_prefix(&mut message, fields.len());
    message.put(fields);
    message.freeze()
}

/// Each further message: one piece of memory, or where the payload has no room in front, two.
pub(crate) fn message(payload: Bytes) -> (Bytes, Option<Bytes>) {
    let mut length = BytesMut::with_capacity(VARINT);
    put_varint(&mut length, payload.len() as u64);
    let mut header = BytesMut::with_capacity(MOST_HEADER);
    put_prefix(&mut header, 1 + length.len() + payload.len());
    header.put_u8(key::DATA);
    header.put(length);
    match with_header(payload, &header) {
        Ok(whole) => (whole, None),
        Err(payload) if payload.len() < SMALL => {
            header.extend_from_slice(&payload);
            (header.freeze(), None)
        }
        Err(payload) => (header.freeze(), Some(payload)),
    }
}

fn put_prefix(into: &mut BytesMut, len: usize) {
    let len = u32::try_from(len).expect("invariant: a message holds one frame");
    into.put_u8(0);
    into.put_u32(len);
}

fn put_varint(into: &mut BytesMut, mut value: u64) {
    while 0x7f < value {
        into.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.put_u8(value.to_le_bytes()[0]);
}
