//! containerd behind its socket: one call at a time, and what can go wrong with it.

use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tokio::time::timeout;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use transfer::blob::Cause;

use super::api::Empty;
use crate::docker::api::UNARY_DEADLINE;
use crate::docker::read::content::Line;

/// How long connecting may take: the socket is beside us.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why containerd did not do something.
#[derive(Debug, thiserror::Error)]
pub(in crate::docker) enum Fault {
    /// It answered, and said no.
    #[error("containerd answered to {call}: {code}: {message}")]
    Answer {
        /// The last part of the call's path.
        call: &'static str,
        /// The gRPC code.
        code: Code,
        /// What it said.
        message: String,
    },
    /// It did not answer, or not in time.
    #[error("containerd at {} did not answer to {call}", path.display())]
    Line {
        /// Its socket.
        path: PathBuf,
        /// The last part of the call's path.
        call: &'static str,
        /// What failed.
        #[source]
        source: Cause,
    },
    /// It did something else than it was asked for.
    #[error("containerd {0}")]
    Odd(String),
}

impl Fault {
    /// The answer's code; `None` where there was none.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Answer { code, .. } => Some(*code),
            Self::Line { .. } | Self::Odd(_) => None,
        }
    }

    /// Whether the connection failed, and not the call.
    pub(super) fn is_line(&self) -> bool {
        matches!(self, Self::Line { .. })
    }
}

/// The part of containerd that one engine uses.
#[derive(Clone, Debug)]
pub(super) struct Containerd {
    path: PathBuf,
    namespace: AsciiMetadataValue,
}

impl Containerd {
    /// containerd at this socket; `None` for a namespace that cannot be one.
    pub(super) fn new(path: PathBuf, namespace: &str) -> Option<Self> {
        Some(Self { path, namespace: namespace.parse().ok()? })
    }

    /// A call that changes or asks one thing. `lease` is the lease that what it makes belongs to.
    pub(super) async fn call<Q, A>(
        &self,
        method: &'static str,
        lease: Option<&str>,
        message: Q,
    ) -> Result<A, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let asked = self.call_patiently(method, lease, message);
        timeout(UNARY_DEADLINE, asked)
            .await
            .unwrap_or_else(|_| Err(self.line(method, "it was silent for too long")))
    }

    /// A call of whose answer nothing is looked at.
    pub(super) async fn tell<Q>(
        &self,
        method: &'static str,
        lease: Option<&str>,
        message: Q,
    ) -> Result<(), Fault>
    where
        Q: Message + Send + Sync + 'static,
    {
        let _told: Empty = self.call(method, lease, message).await?;
        Ok(())
    }

    /// A call without a deadline: for a call that takes as long as its layer is large.
    pub(super) async fn call_patiently<Q, A>(
        &self,
        method: &'static str,
        lease: Option<&str>,
        message: Q,
    ) -> Result<A, Fault>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut line = self.dial(method).await?;
        let request = self.request(message, lease);
        let codec = ProstCodec::<Q, A>::default();
        let answer = line.grpc.unary(request, PathAndQuery::from_static(method), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.fault(method, &status))
    }

    /// A connection of its own for one call.
    pub(super) async fn dial(&self, method: &'static str) -> Result<Line, Fault> {
        let dialing = async {
            let mut line = Line::unix(&self.path).await?;
            line.grpc.ready().await?;
            Ok::<_, Cause>(line)
        };
        timeout(CONNECT_DEADLINE, dialing)
            .await
            .unwrap_or_else(|_| Err("connecting took too long".into()))
            .map_err(|error| self.line(method, error))
    }

    /// A request in the engine's namespace.
    pub(super) fn request<T>(&self, message: T, lease: Option<&str>) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        // Lease IDs are ours, of plain letters.
        if let Some(lease) = lease.and_then(|lease| lease.parse().ok()) {
            request.metadata_mut().insert("containerd-lease", lease);
        }
        request
    }

    /// Sorts a status: what the connection did is told by the same type as what containerd said.
    pub(super) fn fault(&self, method: &'static str, status: &Status) -> Fault {
        match std::error::Error::source(status) {
            Some(source) => self.line(method, transfer::explain(source)),
            None => {
                let (code, message) = (status.code(), status.message().to_owned());
                Fault::Answer { call: last(method), code, message }
            }
        }
    }

    pub(super) fn line(&self, method: &'static str, source: impl Into<Cause>) -> Fault {
        Fault::Line { path: self.path.clone(), call: last(method), source: source.into() }
    }
}

/// `Content/Write` of a call's path.
fn last(method: &'static str) -> &'static str {
    method.rsplit_once('.').map_or(method, |(_, call)| call)
}
