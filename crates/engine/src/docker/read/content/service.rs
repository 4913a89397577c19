//! containerd's content service, read-only: one blob, from any byte.
//!
//! ```text
//!   docker.sock      POST /grpc, Upgrade: h2c ─► 101 ─┐
//!   containerd.sock ──────────────────────────────────┴─► HTTP/2 ─► Content.Info, Content.Read
//! ```
//! Spec: <https://github.com/containerd/containerd/blob/v2.1.4/api/services/content/v1/content.proto>.
//! The few fields that are needed are declared here by hand. Each call has a connection of its own:
//! readers of different speed share no window, and dropping a stream closes its socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use transfer::blob::Cause;
use transfer::{BlobError, BlobSource, BlobStream, Digest, MAX_FRAME};

use crate::docker::api::UNARY_DEADLINE;
use crate::docker::api::http::Http;
use crate::file_blob::from_start;

const UPGRADING: &str = "asking for its content service";

/// Docker keeps its images in this namespace of containerd.
const NAMESPACE: &str = "moby";

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";

/// How long connecting may take: the socket is on this machine or near it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a stream may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that may be under way to one reader; containerd sends messages of 1 MiB.
const WINDOW: u32 = 4 << 20;

/// Largest message that is taken.
const MAX_MESSAGE: usize = 8 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Info {
    #[prost(int64, tag = "2")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadContentRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadContentResponse {
    // The message's offset counts from 0 in some releases and from the request's in others.
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

/// Where the service is.
#[derive(Clone, Debug)]
pub(super) enum Service {
    /// Behind the engine's own socket.
    Engine(Http),
    /// Behind containerd's socket at this path.
    Containerd(PathBuf),
}

impl Service {
    /// Whether somebody there answers as the content service does.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn probe(&self) -> Result<(), Cause> {
        self.info(&Digest::of(b"")).await.map(drop)
    }

    /// The size of a blob in bytes; `None` where there is none.
    async fn info(&self, digest: &Digest) -> Result<Option<u64>, Cause> {
        let asked = async {
            let mut line = self.dial().await?;
            line.grpc.ready().await?;
            let request = request(InfoRequest { digest: digest.to_string() });
            let path = PathAndQuery::from_static(INFO);
            let codec = ProstCodec::<_, InfoResponse>::default();
            match line.grpc.unary(request, path, codec).await {
                Ok(answer) => size(answer.into_inner().info).map(Some),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(told(status)),
            }
        };
        timeout(UNARY_DEADLINE, asked).await.unwrap_or_else(|_| Err(silent(UNARY_DEADLINE)))
    }

    /// The blob's bytes from `offset` to `end`, unverified.
    async fn read(&self, digest: &Digest, offset: u64, end: u64) -> Result<BlobStream, Cause> {
        let mut line = self.dial().await?;
        line.grpc.ready().await?;
        let request = request(ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset)?,
            size: i64::try_from(end - offset)?,
        });
        let path = PathAndQuery::from_static(READ);
        let codec = ProstCodec::<_, ReadContentResponse>::default();
        let answer = line.grpc.server_streaming(request, path, codec);
        let messages = match timeout(PATIENCE, answer).await {
            Err(_) => return Err(silent(PATIENCE)),
            Ok(Err(status)) if status.code() == Code::NotFound => {
                return Err(BlobError::NotFound { digest: *digest }.into());
            }
            Ok(answer) => answer.map_err(told)?.into_inner(),
        };
        let reading =
            Reading { digest: *digest, messages, at: offset, end, rest: Bytes::new(), _line: line };
        let frames = stream::try_unfold(reading, async |mut reading| {
            Ok(reading.next().await?.map(|frame| (frame, reading)))
        });
        Ok(frames.boxed())
    }

    async fn dial(&self) -> Result<Line, Cause> {
        let dialing = async {
            match self {
                Self::Engine(http) => {
                    Line::over(http.upgrade(UPGRADING, "/grpc", "h2c").await?).await
                }
                Self::Containerd(path) => Line::unix(path).await,
            }
        };
        timeout(CONNECT_DEADLINE, dialing).await.unwrap_or_else(|_| Err(silent(CONNECT_DEADLINE)))
    }
}

#[async_trait]
impl BlobSource for Service {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.info(digest).await.map_err(|error| BlobError::unavailable(*digest, error))
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (size, frames) = self.frames(digest, offset).await?;
        Ok(from_start(offset, frames, *digest, size))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(self.frames(digest, offset).await?.1)
    }
}

impl Service {
    /// The blob's size, and its bytes from `offset` on, which nobody verified.
    async fn frames(&self, digest: &Digest, offset: u64) -> Result<(u64, BlobStream), BlobError> {
        let digest = *digest;
        let size = self.stat(&digest).await?.ok_or(BlobError::NotFound { digest })?;
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        // containerd takes a size of 0 for all that is left.
        let frames = match offset == size {
            true => stream::empty().boxed(),
            false => self.read(&digest, offset, size).await.map_err(|error| {
                match error.downcast::<BlobError>() {
                    Ok(error) => *error,
                    Err(error) => BlobError::unavailable(digest, error),
                }
            })?,
        };
        Ok((size, frames))
    }
}

/// A connection that speaks HTTP/2. Dropping it closes the socket.
pub(in crate::docker) struct Line {
    pub(in crate::docker) grpc: Grpc<Connection>,
    _task: AbortOnDropHandle<()>,
}

impl Line {
    /// To whom listens at this path.
    pub(in crate::docker) async fn unix(path: &Path) -> Result<Self, Cause> {
        Self::over(TokioIo::new(UnixStream::connect(path).await?)).await
    }

    async fn over<I>(io: I) -> Result<Self, Cause>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(io)
            .await?;
        // Its error is told by the call or by the stream as well.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the content service ended");
            }
        });
        let origin = Uri::from_static("http://localhost");
        let grpc = Grpc::with_origin(Connection(sender), origin);
        let grpc = grpc.max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { grpc, _task: AbortOnDropHandle::new(task) })
    }
}

/// hyper's end of a connection as tonic wants it.
pub(in crate::docker) struct Connection(http2::SendRequest<Body>);

impl GrpcService<Body> for Connection {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A blob on its way.
struct Reading {
    digest: Digest,
    messages: tonic::Streaming<ReadContentResponse>,
    at: u64,
    end: u64,
    /// What is left of a message that is longer than a frame.
    rest: Bytes,
    _line: Line,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        while self.rest.is_empty() {
            let message = match timeout(PATIENCE, self.messages.message()).await {
                Err(_) => Err(silent(PATIENCE)),
                Ok(message) => message.map_err(told),
            };
            let message = message.map_err(|e| BlobError::unavailable(self.digest, e))?;
            let Some(message) = message else { return self.finish() };
            self.at += message.data.len() as u64;
            if self.end < self.at {
                return Err(self.wrong_size());
            }
            self.rest = message.data;
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(MAX_FRAME))))
    }

    fn finish(&self) -> Result<Option<Bytes>, BlobError> {
        if self.at == self.end { Ok(None) } else { Err(self.wrong_size()) }
    }

    fn wrong_size(&self) -> BlobError {
        BlobError::SizeMismatch { digest: self.digest, expected: self.end, actual: self.at }
    }
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
    request.metadata_mut().insert("containerd-namespace", namespace);
    request
}

fn size(info: Option<Info>) -> Result<u64, Cause> {
    let info = info.ok_or("the content service tells no size")?;
    Ok(u64::try_from(info.size)?)
}

/// A status as a cause: its code and message say all that a person can use.
fn told(status: Status) -> Cause {
    format!("the content service answered: {}: {}", status.code(), status.message()).into()
}

fn silent(limit: Duration) -> Cause {
    format!("the content service was silent for {} s", limit.as_secs()).into()
}

#[cfg(test)]
mod tests;
