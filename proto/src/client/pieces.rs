//! `ReadBlob` from the near end: data sliced out of what the connection received.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};
use transfer::MAX_FRAME;
use transfer::verify::BadFrame;

use crate::compress::expanded;
use crate::convert::Malformed;
use crate::raw::{CONTENT_TYPE, Part, READ_BLOB, Slices};
use crate::speed::Speed;
use crate::wire::{Encoding, MAX_MESSAGE};

/// A blob's stream under way.
pub(crate) struct Pieces {
    body: Body,
    slices: Slices,
    /// Bytes received and not parsed yet.
    received: Bytes,
    encoding: Encoding,
    /// Bytes of the message's data that came so far.
    seen: usize,
    /// Data that came along with the first message.
    early: VecDeque<Bytes>,
    /// Data of a message that is encoded, and so is of use as a whole only.
    encoded: BytesMut,
    /// Learns how long is waited for how many bytes.
    link: Arc<Speed>,
}

/// An answer that is not of the protocol: asking again would bring the same.
pub(crate) fn malformed(error: impl ToString) -> Status {
    Status::failed_precondition(error.to_string())
}

/// Asks for a blob over this connection; its size, and the stream of its bytes.
pub(crate) async fn read_blob(
    mut channel: Channel,
    wanted: &impl Message,
    link: Arc<Speed>,
) -> Result<(u64, Pieces), Status> {
    let unreached = |error| Status::from_error(Box::new(error));
    channel.ready().await.map_err(unreached)?;
    let response = channel.call(request(wanted)).await.map_err(unreached)?;
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    if response.status() != StatusCode::OK {
        return Err(not_of_grpc(response.status()));
    }
    let mut pieces = Pieces::new(response.into_body(), link);
    let size = pieces.begin().await?;
    Ok((size, pieces))
}

fn request(wanted: &impl Message) -> Request<Body> {
    let mut message = BytesMut::with_capacity(5 + wanted.encoded_len());
    message.put_u8(0);
    message.put_u32(u32::try_from(wanted.encoded_len()).unwrap_or(u32::MAX));
    wanted.encode(&mut message).expect("a BytesMut grows as far as it must");
    let mut request = Request::new(Body::new(Full::new(message.freeze())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(READ_BLOB);
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::TE, http::HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    request
}

/// Status for an answer without a gRPC status: it is not an agent's, but that of a proxy or another
/// program in between.
fn not_of_grpc(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        400 => Code::Internal,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the answer is not of gRPC, but HTTP status {status}"))
}

impl Pieces {
    fn new(body: Body, link: Arc<Speed>) -> Self {
        Self {
            body,
            slices: Slices::default(),
            received: Bytes::new(),
            encoding: Encoding::Unspecified,
            seen: 0,
            early: VecDeque::new(),
            encoded: BytesMut::new(),
            link,
        }
    }

    /// True if the bytes are encoded.
    pub(crate) fn is_encoded(&self) -> bool {
        self.encoding != Encoding::Unspecified
    }

    /// Reads the first message; the size of the blob.
    async fn begin(&mut self) -> Result<u64, Status> {
        let mut size = None;
        // The caller waits for the bytes read before the first; they say nothing of the link.
        let mut waited = Duration::ZERO;
        loop {
            match self.part(&mut waited).await? {
                None => return Err(malformed("a stream without a first message")),
                Some(Part::BlobSize(blob_size)) => size = Some(blob_size),
                Some(Part::Encoding(encoding)) => self.encoding = encoding,
                Some(Part::Data(data)) => {
                    self.count(data.len(), MAX_MESSAGE)?;
                    self.early.push_back(data);
                }
                Some(Part::End) => break,
            }
        }
        if self.is_encoded() {
            self.encoded.extend(self.early.drain(..).flatten());
            self.expand().await?;
        } else {
            self.count(0, MAX_FRAME)?;
        }
        self.seen = 0;
        size.ok_or_else(|| malformed(Malformed::absent("blob_size")))
    }

    /// The next bytes; `None` when the stream ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        let mut waited = Duration::ZERO;
        loop {
            match self.part(&mut waited).await? {
                None => return Ok(None),
                Some(Part::Data(data)) if self.is_encoded() => {
                    self.count(data.len(), MAX_MESSAGE)?;
                    self.encoded.extend_from_slice(&data);
                }
                Some(Part::Data(data)) => {
                    self.count(data.len(), MAX_FRAME)?;
                    self.link.note(data.len(), waited);
                    return Ok(Some(data));
                }
                Some(Part::End) => {
                    let seen = std::mem::take(&mut self.seen);
                    if seen == 0 {
                        return Err(malformed(Malformed::new("data", BadFrame { size: 0 })));
                    }
                    if self.is_encoded() {
                        self.link.note(seen, waited);
                        self.expand().await?;
                        return Ok(self.early.pop_front());
                    }
                }
                Some(Part::BlobSize(_) | Part::Encoding(_)) => {
                    return Err(malformed("a later message says what belongs in the first"));
                }
            }
        }
    }

    /// Counts data of the message under way, as long as it may be.
    fn count(&mut self, len: usize, most: usize) -> Result<(), Status> {
        self.seen += len;
        if most < self.seen {
            return Err(malformed(Malformed::new("data", BadFrame { size: self.seen })));
        }
        Ok(())
    }

    /// Decodes the encoded data of a message, if it had any.
    async fn expand(&mut self) -> Result<(), Status> {
        let data = self.encoded.split().freeze();
        if data.is_empty() {
            return Ok(());
        }
        let frame = expanded(data).await.map_err(|error| Malformed::new("data", error));
        self.early.extend(Some(frame.map_err(malformed)?).filter(|frame| !frame.is_empty()));
        Ok(())
    }

    /// Returns the next part; `None` when the stream ended well. `waited` grows by the time without
    /// anything to read.
    async fn part(&mut self, waited: &mut Duration) -> Result<Option<Part>, Status> {
        loop {
            if let Some(part) = self.slices.next(&mut self.received).map_err(malformed)? {
                return Ok(Some(part));
            }
            let begun = Instant::now();
            let frame = self.body.frame().await;
            *waited += begun.elapsed();
            match frame.transpose()? {
                // Without a status: reset by something in between, which the library beneath shows
                // as an end like any other.
                None => return Err(Status::unavailable("the stream ended without a status")),
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.received = data,
                    Err(frame) => return self.end(&frame.into_trailers().unwrap_or_default()),
                },
            }
        }
    }

    fn end(&self, trailers: &HeaderMap) -> Result<Option<Part>, Status> {
        match Status::from_header_map(trailers) {
            None => Err(Status::unavailable("the stream ended without a status")),
            Some(status) if status.code() != Code::Ok => Err(status),
            Some(_) if self.slices.is_between_messages() => Ok(None),
            Some(_) => Err(malformed("the stream ended within a message")),
        }
    }
}
