//! The two long streams of the engine's API, over a socket of their own.
//!
//! bollard gives every call one total deadline, also for the head of an answer that the engine
//! withholds until a load of many gigabytes is done. Here a call lives as long as it progresses.

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;
use transfer::blob::Cause;

use crate::docker::api::error::EngineError;

/// Maximum time of a call that only asks or changes one thing.
///
/// An engine that is extracting layers answers late, not never: on two busy cores `inspect` was
/// seen to take seconds. A dead engine is found within this time.
pub(crate) const UNARY_DEADLINE: Duration = Duration::from_secs(60);

/// How long connecting may take: the socket is on this machine or near it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read whole, in bytes: a list of some ten thousand images.
const MAX_DOCUMENT: usize = 64 << 20;

type RequestBody = BoxBody<Bytes, Cause>;

/// Where an engine answers.
#[derive(Clone, Debug)]
enum Address {
    Unix(String),
    Tcp(String),
}

/// Opens a connection per call.
#[derive(Clone)]
pub(in crate::docker) struct Http {
    address: Address,
    text: Arc<str>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.address, f)
    }
}

impl Http {
    pub(in crate::docker) fn new(address: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::Address { address: address.chars().take(200).collect() };
        let parsed = if let Some(path) = address.strip_prefix("unix://") {
            Address::Unix(path.to_owned())
        } else if address.starts_with('/') {
            Address::Unix(address.to_owned())
        } else if let Some(authority) = address.strip_prefix("tcp://") {
            Address::Tcp(authority.trim_end_matches('/').to_owned())
        } else {
            return Err(invalid());
        };
        let text = match &parsed {
            Address::Unix(path) if path.starts_with('/') => format!("unix://{path}"),
            Address::Tcp(authority) if authority.contains(':') => format!("tcp://{authority}"),
            _ => return Err(invalid()),
        };
        Ok(Self { address: parsed, text: text.into() })
    }

    /// The address as people write it.
    pub(in crate::docker) fn address(&self) -> &str {
        &self.text
    }

    /// The path of the socket, if it is one.
    pub(in crate::docker) fn socket(&self) -> Option<&str> {
        match &self.address {
            Address::Unix(path) => Some(path),
            Address::Tcp(_) => None,
        }
    }

    /// Begins reading what `GET path` answers. `patience` bounds the wait for the head of the
    /// answer, and for each piece of its body.
    pub(in crate::docker) async fn get(
        &self,
        action: &'static str,
        path: &str,
        patience: Duration,
    ) -> Result<Answer, EngineError> {
        let nothing = Empty::new().map_err(|never| match never {}).boxed();
        let sending = self.send(action, Method::GET, path, nothing, patience);
        tokio::time::timeout(patience, sending)
            .await
            .unwrap_or_else(|_| Err(EngineError::timed_out(&self.text, action, patience)))
    }

    /// The document that `GET path` answers; `None` where there is no such thing.
    pub(in crate::docker) async fn document<T: DeserializeOwned>(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<Option<T>, EngineError> {
        let read = async {
            let answer = match self.get(action, path, UNARY_DEADLINE).await {
                Err(error) if error.is_not_found() => return Ok(None),
                answer => answer?,
            };
            let failed = |error| EngineError::transport(&self.text, action, error);
            let bytes = answer.read_all(MAX_DOCUMENT).await.map_err(failed)?;
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| EngineError::transport(&self.text, action, error))
        };
        tokio::time::timeout(UNARY_DEADLINE, read)
            .await
            .unwrap_or_else(|_| Err(EngineError::timed_out(&self.text, action, UNARY_DEADLINE)))
    }

    /// Sends `body` to `path` and returns the head of the answer, which may come before the body
    /// has ended. Waits for it without limit: whoever makes the body knows whether it progresses.
    pub(in crate::docker) async fn post_tar<S>(
        &self,
        action: &'static str,
        path: &str,
        body: S,
        patience: Duration,
    ) -> Result<Answer, EngineError>
    where
        S: Stream<Item = Result<Bytes, Cause>> + Send + Sync + 'static,
    {
        use futures::TryStreamExt as _;
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed();
        self.send(action, Method::POST, path, body, patience).await
    }

    /// Has the engine do what `path` says and returns the head of the answer, waited for without
    /// limit: whoever knows whether it progresses ends it by dropping the future.
    pub(in crate::docker) async fn post(
        &self,
        action: &'static str,
        path: &str,
        patience: Duration,
    ) -> Result<Answer, EngineError> {
        let nothing = Empty::new().map_err(|never| match never {}).boxed();
        self.send(action, Method::POST, path, nothing, patience).await
    }

    /// Turns a connection over to `protocol`, which the engine agrees to speak at `path`.
    pub(in crate::docker) async fn upgrade(
        &self,
        action: &'static str,
        path: &str,
        protocol: &'static str,
    ) -> Result<hyper::upgrade::Upgraded, EngineError> {
        let failed = |error: Cause| EngineError::transport(&self.text, action, error);
        let (mut sender, connection) = self.connect().await.map_err(failed)?;
        let nothing = Empty::new().map_err(|never| match never {}).boxed();
        let request = Request::post(path)
            .header(hyper::header::HOST, "docker")
            .header(hyper::header::CONNECTION, "Upgrade")
            .header(hyper::header::UPGRADE, protocol)
            .body(nothing)
            .map_err(|error| failed(error.into()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.into()))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hyper::upgrade::on(response).await.map_err(|error| failed(error.into()));
        }
        let (head, body) = response.into_parts();
        let answer =
            Answer { body, patience: UNARY_DEADLINE, sleep: None, _connection: connection };
        Err(self.refusal(action, head.status, answer).await)
    }

    async fn send(
        &self,
        action: &'static str,
        method: Method,
        path: &str,
        body: RequestBody,
        patience: Duration,
    ) -> Result<Answer, EngineError> {
        let failed = |error: Cause| EngineError::transport(&self.text, action, error);
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, self.connect());
        let (mut sender, connection) = connecting
            .await
            .map_err(|_| EngineError::timed_out(&self.text, action, CONNECT_DEADLINE))?
            .map_err(failed)?;
        let host = match &self.address {
            Address::Unix(_) => "docker",
            Address::Tcp(authority) => authority,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, host)
            .header(hyper::header::CONTENT_TYPE, "application/x-tar")
            .body(body)
            .map_err(|error| failed(error.into()))?;
        let response = sender.send_request(request).await.map_err(|e| failed(e.into()))?;
        let (head, body) = response.into_parts();
        let answer = Answer { body, patience, sleep: None, _connection: connection };
        if head.status.is_success() {
            return Ok(answer);
        }
        Err(self.refusal(action, head.status, answer).await)
    }

    async fn refusal(
        &self,
        action: &'static str,
        status: StatusCode,
        answer: Answer,
    ) -> EngineError {
        #[derive(serde::Deserialize)]
        struct Refusal {
            message: String,
        }
        let said = answer.read_all(1 << 20).await.unwrap_or_default();
        let message = serde_json::from_slice::<Refusal>(&said)
            .map(|refusal| refusal.message)
            .unwrap_or_else(|_| String::from_utf8_lossy(&said).trim().to_owned());
        EngineError::status(&self.text, action, status.as_u16(), message)
    }

    async fn connect(&self) -> Result<(Sender, AbortOnDropHandle<()>), Cause> {
        match &self.address {
            Address::Unix(path) => handshake(UnixStream::connect(path).await?).await,
            Address::Tcp(authority) => handshake(TcpStream::connect(authority).await?).await,
        }
    }
}

/// A text as it stands in a query.
pub(in crate::docker) fn percent_encoded(text: &str) -> String {
    let mut query = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() => query.push(byte.into()),
            byte => write!(query, "%{byte:02X}").expect("a String takes all that is written"),
        }
    }
    query
}

type Sender = hyper::client::conn::http1::SendRequest<RequestBody>;

async fn handshake<S>(stream: S) -> Result<(Sender, AbortOnDropHandle<()>), Cause>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    // The task belongs to the answer: dropping that closes the socket. Its error is told by the
    // request or by the body as well.
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the connection to the engine ended");
        }
    });
    Ok((sender, AbortOnDropHandle::new(task)))
}

/// The body of an answer, in pieces as they come. Dropping it closes the connection.
pub(in crate::docker) struct Answer {
    body: Incoming,
    patience: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// The next piece, waited for without limit; `None` at the end.
    pub(in crate::docker) async fn next_piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.body.frame().await? {
                Err(error) => return Some(Err(error)),
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
            }
        }
    }

    async fn read_all(mut self, limit: usize) -> Result<Vec<u8>, Cause> {
        let mut all = Vec::new();
        while let Some(piece) = self.next_piece().await {
            let piece = piece?;
            if limit < all.len() + piece.len() {
                return Err(format!("the answer is longer than {limit} bytes").into());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

impl Stream for Answer {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
                this.sleep = None;
                return Poll::Ready(match frame {
                    None => None,
                    Some(Err(error)) => Some(Err(io::Error::other(error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Some(Ok(data)),
                        Err(_) => continue,
                    },
                });
            }
            let patience = this.patience;
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            return match sleep.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing came for {} s", patience.as_secs()),
                )))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_tcp_and_nothing_else() {
        let good = [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("/run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://127.0.0.1:2375/", "tcp://127.0.0.1:2375"),
        ];
        for (text, expected) in good {
            assert_eq!(Http::new(text).unwrap().address(), expected, "{text}");
        }
        for text in ["", "docker.sock", "unix://docker.sock", "tcp://", "ssh://host", "https://a:1"]
        {
            assert!(Http::new(text).is_err(), "{text:?} was accepted");
        }
    }
}
