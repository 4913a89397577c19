//! The ranges that are served: listeners of their own, whose callers can be nobody else, and what
//! each of them is to have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use proto::admin::{AdminError, ServedRange};
use proto::server::{Caps, Connections, Listener, Server, Services};
use proto::{RangeName, WantedSet};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::Reference;

use crate::record::Record;
use crate::state::{Leaving, StateDir};

/// Most ranges of one agent: each holds a listener, and some memory for its connections.
const MAX_RANGES: usize = 1000;

/// A range's root opens its socket, and nobody else in the range.
const SOCKET_MODE: u32 = 0o600;

/// Serves ranges, each on a socket of its own, and on an address of its own where it is remote.
#[derive(Debug)]
pub struct Ranges {
    state: StateDir,
    /// Whether addresses that other machines can reach may be served.
    remote_any: bool,
    served: Arc<Mutex<BTreeMap<RangeName, Served>>>,
    /// One for us and one for each range.
    counted: Arc<()>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

/// One range: its listeners, and what it is to have.
#[derive(Debug)]
struct Served {
    socket: Serving,
    /// Where it is remembered to be served besides.
    address: Option<SocketAddr>,
    /// That it is; absent too where the address could not be listened on after a restart.
    remote: Option<Serving>,
    wanted: watch::Sender<WantedSet>,
    _counted: Arc<()>,
}

/// One listener.
#[derive(Debug)]
struct Serving {
    connections: Connections,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Stops listening and ends the connections.
    async fn end(self) {
        self.ended.cancel();
        // A task that panicked is as gone as one that ended.
        let _ended = self.task.await;
    }
}

impl Ranges {
    /// Serves nobody yet; whoever is added is served until `draining` is cancelled. Addresses that
    /// other machines can reach are refused without `remote_any`.
    #[must_use]
    pub fn new(state: StateDir, draining: CancellationToken, remote_any: bool) -> Self {
        let (served, counted, tasks) = (Arc::default(), Arc::default(), TaskTracker::new());
        Self { state, remote_any, served, counted, tasks, draining }
    }

    /// Says how many ranges are served, at once and whatever is being done to them.
    pub fn count(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let counted = Arc::downgrade(&self.counted);
        move || counted.strong_count().saturating_sub(1)
    }

    /// The ranges that were served before: the folders are the record.
    ///
    /// # Errors
    /// The system's own.
    pub fn known(&self) -> std::io::Result<Vec<RangeName>> {
        self.state.ranges()
    }

    /// Serves a range again as it was before a restart. That its record cannot be read, or its
    /// address not be listened on, is logged, and it is served without.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn restore(&self, name: &RangeName, services: Services) -> Result<(), AdminError> {
        self.add(name.clone(), services.clone(), None).await?;
        let address = self.served.lock().await.get(name).and_then(|range| range.address);
        let Some(address) = address else { return Ok(()) };
        if let Err(error) = self.add(name.clone(), services, Some(address)).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(range = %name, error, "not served over TCP");
        }
        Ok(())
    }

    /// Serves a range, and on `tcp` besides where that is asked for. What is served already is left
    /// as it is; another address takes the place of the one before.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`], and of `tcp`
    /// [`AdminError::RemoteNotAllowed`], [`AdminError::Listen`], [`AdminError::Record`].
    pub async fn add(
        &self,
        name: RangeName,
        services: Services,
        tcp: Option<SocketAddr>,
    ) -> Result<ServedRange, AdminError> {
        let mut all = self.served.lock().await;
        let remote = self.listen(&name, all.get(&name), tcp).await?;
        if !all.contains_key(&name) {
            if MAX_RANGES <= all.len() {
                return Err(AdminError::TooManyRanges { limit: MAX_RANGES });
            }
            all.insert(name.clone(), self.begin(&name, services.clone())?);
        }
        let range = all.get_mut(&name).expect("invariant: it was put in just now");
        if let Some((address, listener)) = remote {
            if range.address != Some(address) {
                let record = Record::new(&range.wanted.borrow(), Some(address));
                self.remember(&name, &record)?;
            }
            let serving = self.serve(&name, Server::new(listener, services, Caps::default()));
            range.address = Some(address);
            if let Some(before) = range.remote.replace(serving) {
                before.end().await;
            }
        }
        Ok(self.describe(&name, range))
    }

    /// Stops serving a range, ends its connections, calls `ended`, and takes its folders away.
    /// Whatever the range left in them is deleted afterwards, which nobody waits for: a range may
    /// have left much.
    ///
    /// Cancel safe: once polled, all of it is done.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Socket`].
    pub async fn remove(
        &self,
        name: &RangeName,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<(), AdminError> {
        let (all, state) = (self.served.clone(), self.state.clone());
        let (tasks, removed) = (self.tasks.clone(), name.clone());
        let removal = async move {
            let leaving = take_away(&all, &state, &removed, ended).await?;
            tasks.spawn_blocking(move || delete(leaving, &removed));
            Ok(())
        };
        let removal = self.tasks.spawn(removal.in_current_span()).await;
        let failed = |source| AdminError::Socket { path: self.state.range(name), source };
        removal.unwrap_or_else(|panic| Err(failed(std::io::Error::other(panic))))
    }

    /// Replaces what a range is to have, on disk first, and tells it. The same set again changes
    /// nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    pub async fn set_wanted(
        &self,
        name: &RangeName,
        references: Vec<Reference>,
    ) -> Result<WantedSet, AdminError> {
        let served = self.served.lock().await;
        let range = known(&served, name)?;
        let before = range.wanted.borrow().clone();
        let set = before.replaced(references);
        if set.references == before.references && before.revision != 0 {
            return Ok(before);
        }
        // A small file, written here and not on a thread of its own: so there is no moment at which
        // a caller that goes away leaves it and what ranges are told apart.
        self.remember(name, &Record::new(&set, range.address))?;
        range.wanted.send_replace(set.clone());
        Ok(set)
    }

    /// What a range is to have.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    pub async fn wanted(&self, name: &RangeName) -> Result<WantedSet, AdminError> {
        Ok(known(&*self.served.lock().await, name)?.wanted.borrow().clone())
    }

    /// What a range is to have, at once and after each change, until it is removed or draining
    /// begins.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    pub async fn watch_wanted(
        &self,
        name: &RangeName,
    ) -> Result<BoxStream<'static, WantedSet>, AdminError> {
        let changes = known(&*self.served.lock().await, name)?.wanted.subscribe();
        let draining = self.draining.clone().cancelled_owned();
        Ok(WatchStream::new(changes).take_until(draining.boxed()).boxed())
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

    /// Listens for a range that is not served yet on its socket.
    fn begin(&self, name: &RangeName, services: Services) -> Result<Served, AdminError> {
        let path = self.state.range_socket(name);
        let made = self.state.make_range(name).and_then(|()| Listener::unix(&path, SOCKET_MODE));
        let listener = made.map_err(|source| AdminError::Socket { path, source })?;
        let record = Record::read(&self.state.range_record(name)).unwrap_or_else(|error| {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(range = %name, error, "nothing is known to be wanted");
            Record::default()
        });
        let socket = self.serve(name, Server::new(listener, services, Caps::default()));
        let (address, wanted) = (record.tcp_address(), watch::Sender::new(record.wanted()));
        Ok(Served { socket, address, remote: None, wanted, _counted: self.counted.clone() })
    }

    /// Listens on the address that is asked for; nothing where the range has it already.
    async fn listen(
        &self,
        name: &RangeName,
        range: Option<&Served>,
        tcp: Option<SocketAddr>,
    ) -> Result<Option<(SocketAddr, Listener)>, AdminError> {
        let Some(address) = tcp else { return Ok(None) };
        let has = range.filter(|range| range.remote.is_some()).and_then(|range| range.address);
        let any_port = |has: SocketAddr| address.port() == 0 && address.ip() == has.ip();
        if has.is_some_and(|has| has == address || any_port(has)) {
            return Ok(None);
        }
        if !self.remote_any && !address.ip().is_loopback() {
            return Err(AdminError::RemoteNotAllowed { name: name.clone(), address });
        }
        let failed = |source| AdminError::Listen { name: name.clone(), address, source };
        let listener = Listener::tcp(address).await.map_err(failed)?;
        let bound = listener.tcp_address().unwrap_or(address);
        Ok(Some((bound, listener)))
    }

    fn remember(&self, name: &RangeName, record: &Record) -> Result<(), AdminError> {
        let written = record.write(&self.state.range_record(name));
        written.map_err(|error| AdminError::Record { name: name.clone(), source: error.into() })
    }

    fn serve(&self, name: &RangeName, server: Server) -> Serving {
        let connections = server.connections();
        let ended = CancellationToken::new();
        let serving = ended.clone().run_until_cancelled_owned(server.run(self.draining.clone()));
        let task = async move {
            if let Some(Err(error)) = serving.await {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(error, "not served any more");
            }
        };
        let task = self.tasks.spawn(task.instrument(tracing::info_span!("range", range = %name)));
        Serving { connections, ended, task }
    }

    fn describe(&self, name: &RangeName, range: &Served) -> ServedRange {
        let over_tcp = range.remote.as_ref().map_or(0, |remote| remote.connections.open());
        let wanted = range.wanted.borrow().references.len();
        ServedRange {
            name: name.clone(),
            socket_path: self.state.range_socket(name),
            connections: range.socket.connections.open() + over_tcp,
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            tcp_endpoint: range.address.filter(|_| range.remote.is_some()),
        }
    }
}

/// Ends a range and takes its folders away; from then on another may have its name.
async fn take_away(
    all: &Mutex<BTreeMap<RangeName, Served>>,
    state: &StateDir,
    name: &RangeName,
    ended: impl FnOnce(),
) -> Result<Option<Leaving>, AdminError> {
    let mut all = all.lock().await;
    let Some(Served { socket, remote, .. }) = all.remove(name) else {
        return Err(AdminError::UnknownRange { name: name.clone() });
    };
    let listeners: Vec<Serving> = [Some(socket), remote].into_iter().flatten().collect();
    for listener in &listeners {
        listener.ended.cancel();
    }
    for listener in listeners {
        listener.end().await;
    }
    ended();
    // A rename takes no time whatever lies in the folder, so others may wait for it.
    let taken = state.take_range_away(name);
    taken.map_err(|source| AdminError::Socket { path: state.range(name), source })
}

/// Deletes what a range left.
fn delete(leaving: Option<Leaving>, name: &RangeName) {
    if let Some(Err(error)) = leaving.map(Leaving::delete) {
        tracing::warn!(range = %name, %error, "what the range left is deleted at the next start");
    }
}

fn known<'a>(
    served: &'a BTreeMap<RangeName, Served>,
    name: &RangeName,
) -> Result<&'a Served, AdminError> {
    served.get(name).ok_or_else(|| AdminError::UnknownRange { name: name.clone() })
}

#[cfg(test)]
#[path = "ranges/tests.rs"]
mod tests;
