//! The ranges that are served: a listener each, whose callers can be nobody else.

use std::collections::BTreeMap;

use proto::RangeName;
use proto::admin::{AdminError, ServedRange};
use proto::server::{Caps, Connections, Listener, Server, Services};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::state::StateDir;

/// Most ranges of one agent: each holds a listener, and some memory for its connections.
const MAX_RANGES: usize = 1000;

/// A range's root opens its socket, and nobody else in the range.
const SOCKET_MODE: u32 = 0o600;

/// Serves ranges, each on a socket of its own.
#[derive(Debug)]
pub struct Ranges {
    state: StateDir,
    served: Mutex<BTreeMap<RangeName, Served>>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

/// One range's listener.
#[derive(Debug)]
struct Served {
    connections: Connections,
    removed: CancellationToken,
    task: JoinHandle<()>,
}

impl Ranges {
    /// Serves nobody yet; whoever is added is served until `draining` is cancelled.
    #[must_use]
    pub fn new(state: StateDir, draining: CancellationToken) -> Self {
        Self { state, served: Mutex::default(), tasks: TaskTracker::new(), draining }
    }

    /// The ranges that were served before: the folders are the record.
    ///
    /// # Errors
    /// The system's own.
    pub fn known(&self) -> std::io::Result<Vec<RangeName>> {
        self.state.ranges()
    }

    /// Serves a range; one that is served already is left as it is.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`].
    pub async fn add(
        &self,
        name: RangeName,
        services: Services,
    ) -> Result<ServedRange, AdminError> {
        let mut served = self.served.lock().await;
        if let Some(range) = served.get(&name) {
            return Ok(self.describe(&name, range));
        }
        if MAX_RANGES <= served.len() {
            return Err(AdminError::TooManyRanges { limit: MAX_RANGES });
        }
        let path = self.state.range_socket(&name);
        let made = self.state.make_range(&name).and_then(|()| Listener::unix(&path, SOCKET_MODE));
        let listener = made.map_err(|source| AdminError::Socket { path, source })?;
        let range = self.serve(&name, Server::new(listener, services, Caps::default()));
        let described = self.describe(&name, &range);
        served.insert(name, range);
        Ok(described)
    }

    /// Stops serving a range, ends its connections, and removes its folders with whatever the range
    /// left in them.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Socket`].
    pub async fn remove(&self, name: &RangeName) -> Result<(), AdminError> {
        let mut served = self.served.lock().await;
        let Some(range) = served.remove(name) else {
            return Err(AdminError::UnknownRange { name: name.clone() });
        };
        range.removed.cancel();
        // A task that panicked is as gone as one that ended.
        let _ended = range.task.await;
        let (state, removed) = (self.state.clone(), name.clone());
        let removal = tokio::task::spawn_blocking(move || state.remove_range(&removed)).await;
        removal
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|source| AdminError::Socket { path: self.state.range(name), source })
    }

    /// The ranges served, sorted by name.
    pub async fn list(&self) -> Vec<ServedRange> {
        let served = self.served.lock().await;
        served.iter().map(|(name, range)| self.describe(name, range)).collect()
    }

    /// Returns once every range's last stream has ended, after draining began.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn serve(&self, name: &RangeName, server: Server) -> Served {
        let connections = server.connections();
        let removed = CancellationToken::new();
        let serving = removed.clone().run_until_cancelled_owned(server.run(self.draining.clone()));
        let task = async move {
            if let Some(Err(error)) = serving.await {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(error, "not served any more");
            }
        };
        let task = self.tasks.spawn(task.instrument(tracing::info_span!("range", range = %name)));
        Served { connections, removed, task }
    }

    fn describe(&self, name: &RangeName, range: &Served) -> ServedRange {
        ServedRange {
            name: name.clone(),
            socket_path: self.state.range_socket(name),
            connections: range.connections.open(),
        }
    }
}
