//! `ReadBlob` beside the generated `BlobService`: a piece leaves in the buffer that it was read
//! into, as one DATA frame that is one message.
//!
//! All else of the service is the generated code's, and so is reading the one request.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic::server::NamedService;
use tonic_prost::ProstCodec;
use tower::Service;

use super::blobs::{Blobs, Kept};
use super::origin::Origin;
use super::piece::{Piece, Pieces};
use crate::raw::{self, CONTENT_TYPE, READ_BLOB};
use crate::wire::generated as pb;
use crate::wire::{BlobServer, MAX_REQUEST};

/// The whole of `BlobService`.
#[derive(Clone)]
pub(super) struct RawBlobs {
    blobs: Arc<Blobs>,
    generated: BlobServer<Blobs>,
}

impl RawBlobs {
    pub(super) fn new(blobs: Blobs) -> Self {
        let blobs = Arc::new(blobs);
        let generated = BlobServer::from_arc(blobs.clone()).max_decoding_message_size(MAX_REQUEST);
        Self { blobs, generated }
    }
}

impl NamedService for RawBlobs {
    const NAME: &'static str = <BlobServer<Blobs> as NamedService>::NAME;
}

impl Service<Request<Body>> for RawBlobs {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != READ_BLOB {
            return Box::pin(self.generated.call(request));
        }
        let blobs = self.blobs.clone();
        Box::pin(async move {
            let origin = Origin::of(request.extensions());
            let opened = match wanted(request.into_body()).await {
                Ok(wanted) => blobs.read(wanted, origin).await,
                Err(status) => Err(status),
            };
            Ok(opened.map_or_else(Status::into_http, |(pieces, kept)| {
                let messages = Messages { pieces, kept, payload: None, is_over: false };
                let mut response = Response::new(Body::new(messages));
                response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
                response
            }))
        })
    }
}

/// The one message of a request.
async fn wanted(body: Body) -> Result<pb::ReadBlobRequest, Status> {
    let decoder = ProstCodec::<pb::ReadBlobResponse, pb::ReadBlobRequest>::default().decoder();
    let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST));
    let message = messages.message().await?;
    message.ok_or_else(|| Status::internal("the request has no message"))
}

/// Pieces as the body of a response: a DATA frame each, and the status behind them.
struct Messages {
    pieces: Pieces,
    kept: Arc<Kept>,
    /// Payload that follows a header sent alone.
    payload: Option<Bytes>,
    is_over: bool,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(payload) = self.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_next_unpin(context));
        Poll::Ready(Some(Ok(match piece {
            Some(Ok(Piece::Head(size, encoding))) => Frame::data(raw::head(size, encoding)),
            Some(Ok(Piece::Data(data))) => {
                let (message, payload) = raw::message(data);
                self.payload = payload.map(|payload| self.counted(payload));
                Frame::data(self.counted(message))
            }
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// Bytes under way and the guards held with them: the connection keeps them for a while after the
/// stream has ended.
struct UnderWay {
    bytes: Bytes,
    _kept: Arc<Kept>,
}

impl AsRef<[u8]> for UnderWay {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Messages {
    fn counted(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(UnderWay { bytes, _kept: self.kept.clone() })
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        if let Err(unwritable) = status.add_header(&mut trailers) {
            // The message does not fit into a header; the failure itself does.
            trailers.clear();
            trailers.insert(Status::GRPC_STATUS, (unwritable.code() as i32).into());
        }
        Frame::trailers(trailers)
    }
}
