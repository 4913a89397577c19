//! The accept loop: so many connections and no more, all of them gone when it ends.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as Http2;

use super::Services;
use super::authorize::Authorize;
use super::capacity::Connections;
use super::connection::Connection;
use super::listen::{Accepted, Listener};
use super::origin::Reach;
use crate::channel::Io;
use crate::wire::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// Pause before the next accept when the system is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest header of a request in bytes; ours have a few hundred.
const MAX_HEADERS: u32 = 16 * 1024;

/// Streams that a client may reset before they were looked at: more of them are an attack.
const MAX_PENDING_RESETS: usize = 20;

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Connections open at once; further ones wait in the system's own queue.
    pub connections: u32,
    /// Calls under way at once in one connection.
    pub calls: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections: 32, calls: 64 }
    }
}

/// Serving ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
#[error("serving on {listener} ended")]
pub struct ServeError {
    /// The listener.
    listener: String,
    /// Cause of the failure.
    #[source]
    source: tonic::transport::Error,
}

/// Source of connections.
enum Incoming {
    Listener(Listener),
    Pipes(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Box<dyn Io>>>),
}

impl Incoming {
    /// The next connection; `None` when no more will come.
    async fn accept(&self) -> Option<io::Result<Accepted>> {
        match self {
            Self::Listener(listener) => Some(listener.accept().await),
            Self::Pipes(pipes) => {
                let io = pipes.lock().await.recv().await?;
                Some(Ok(Accepted { io, reach: Reach::Network, wide: None }))
            }
        }
    }
}

/// One listener and what it serves.
pub struct Server {
    name: String,
    incoming: Incoming,
    services: Services,
    caps: Caps,
    connections: Connections,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("services", &self.services)
            .finish()
    }
}

impl Server {
    /// Will serve `services` on `listener`.
    #[must_use]
    pub fn new(listener: Listener, services: Services, caps: Caps) -> Self {
        Self::over(listener.to_string(), Incoming::Listener(listener), services, caps)
    }

    /// Will serve `services` on pipes that are made elsewhere: the other ends of what
    /// [`crate::Endpoint::dialled`] gives.
    #[must_use]
    pub fn on_pipes(
        pipes: tokio::sync::mpsc::Receiver<Box<dyn Io>>,
        services: Services,
        caps: Caps,
    ) -> Self {
        Self::over("pipes".into(), Incoming::Pipes(pipes.into()), services, caps)
    }

    fn over(name: String, incoming: Incoming, services: Services, caps: Caps) -> Self {
        Self { name, incoming, services, caps, connections: Connections::default() }
    }

    /// A view of the connections that outlives the server.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves until `shutdown`, then accepts nothing new and returns when all requests under way
    /// are done.
    ///
    /// Dropping the future ends every connection at once: so a drain is this with a timeout.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self { name, incoming, services, caps, connections } = self;
        let end = CancellationToken::new();
        let _end_all_on_drop = end.clone().drop_guard();
        let places = Arc::new(Semaphore::new(caps.connections as usize));
        let accepting =
            Accepting { incoming, places, connections, end, shutdown: shutdown.clone() };
        let incoming = Box::pin(accepting.stream());
        Http2::builder()
            .max_concurrent_streams(caps.calls)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
            .layer(Authorize { caller: services.caller })
            .add_routes(services.routes)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
            .map_err(|source| ServeError { listener: name, source })
    }
}

/// The accept loop.
struct Accepting {
    incoming: Incoming,
    places: Arc<Semaphore>,
    connections: Connections,
    /// Ends every connection that was accepted.
    end: CancellationToken,
    /// Ends the accepting.
    shutdown: CancellationToken,
}

impl Accepting {
    /// The connections, each with its place; the listener is closed with the stream.
    fn stream(self) -> impl Stream<Item = io::Result<Connection>> {
        stream::unfold(self, async |accepting| {
            let connection = accepting.next().await?;
            Some((Ok(connection), accepting))
        })
    }

    async fn next(&self) -> Option<Connection> {
        let permit = self.places.clone().acquire_owned().await.expect("places are never closed");
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                accepted = self.incoming.accept() => accepted?,
            };
            match accepted {
                Ok(accepted) => {
                    let place = self.connections.opened(permit);
                    return Some(Connection::new(accepted, place, &self.end));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
