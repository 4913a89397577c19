//! The listener: on a loopback address alone, with a bound on everything.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use transfer::ImageSource;

use super::answer::answer;
use super::library::Library;
use super::shelf::Shelf;
use super::stalled::Stalled;

/// Connections at once; who comes when all are taken waits in the system's queue. An engine that
/// pulls several images has three for layers and one or two for each image's documents.
const MAX_CONNECTIONS: usize = 32;

/// Blobs that are read at once, each with a frame or two in memory. Engines read three.
const MAX_STREAMS: usize = 8;

/// How long a request's head may take, and how long a connection may stay without one.
const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// How long a client may take nothing of what is sent to it: an engine whose disk is busy stands
/// still for seconds, one that is gone for ever.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// Most headers of a request; engines send ten.
const MAX_HEADERS: usize = 64;

/// Most bytes of a request's head; engines send 2 KiB.
const MAX_HEAD: usize = 32 << 10;

/// How long to wait when the system has no more connections to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that only this machine can reach, or this container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loopback(SocketAddr);

/// A text that is no address of this machine alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no loopback address with a port, such as 127.0.0.1:5055")]
pub struct InvalidLoopback {
    /// What was given, cut to a length that is safe to print.
    pub text: String,
}

impl Loopback {
    /// 127.0.0.1 with this port; 0 is one that the system chooses.
    #[must_use]
    pub const fn port(port: u16) -> Self {
        Self(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Listens there for a moment, for who has to know before a [`Registry`] can whether one could,
    /// and answers where that was: at a port of the system's choice where this has none.
    ///
    /// # Errors
    /// The system's own: the address is taken, most likely.
    pub fn try_out(&self) -> io::Result<Self> {
        std::net::TcpListener::bind(self.0)?.local_addr().map(Self)
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Loopback {
    type Err = InvalidLoopback;

    fn from_str(text: &str) -> Result<Self, InvalidLoopback> {
        let address: Option<SocketAddr> = text.parse().ok();
        let address = address.filter(|address| address.ip().is_loopback());
        let invalid = || InvalidLoopback { text: text.chars().take(100).collect() };
        address.map(Self).ok_or_else(invalid)
    }
}

/// A registry that listens, and answers once it [serves](Self::serve).
pub struct Registry {
    listener: TcpListener,
    address: Loopback,
    shelf: Arc<dyn Shelf>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Registry {
    /// Listens at `address` for who wants what `source` has.
    ///
    /// # Errors
    /// The system's own: the address is taken, most likely.
    pub async fn of_source(address: Loopback, source: Arc<dyn ImageSource>) -> io::Result<Self> {
        Self::bind(address, Arc::new(Library::new(source))).await
    }

    /// Listens at `address` for who wants what is on `shelf`.
    pub(crate) async fn bind(address: Loopback, shelf: Arc<dyn Shelf>) -> io::Result<Self> {
        let listener = TcpListener::bind(address.0).await?;
        let address = Loopback(listener.local_addr()?);
        Ok(Self { listener, address, shelf })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Loopback {
        self.address
    }

    /// Answers until `ended`; what is under way is hung up on then.
    ///
    /// Cancel safe: dropping the future ends every connection.
    pub async fn serve(self, ended: impl Future<Output = ()>) {
        tokio::select! {
            () = self.answer_all() => {}
            () = ended => {}
        }
    }

    /// Never returns.
    async fn answer_all(self) {
        let Self { listener, shelf, .. } = self;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (stream, place) = accept(&listener, &places) => {
                    connections.spawn(attend(stream, shelf.clone(), streams.clone(), place));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// The next connection, once there is a place for it. Cancel safe.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await;
    let place = place.expect("invariant: the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // Too many open files, or a client that is gone already.
            Err(error) => {
                tracing::warn!(%error, "a connection to the registry was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, to its end.
async fn attend(
    stream: TcpStream,
    shelf: Arc<dyn Shelf>,
    streams: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request| async {
        Ok::<_, Infallible>(answer(&*shelf, &streams, request).await)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Stalled::new(stream, STALL_LIMIT)), service);
    if let Err(error) = served.await {
        // Engines try TLS first, and hang up on what they do not need any more.
        tracing::debug!(error = transfer::explain(&error), "a connection to the registry broke");
    }
}
