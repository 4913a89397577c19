//! The ranges that are served: listeners of their own, whose callers can be nobody else, their
//! wanted sets and grants, and their links.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use control::admin::{AdminError, NewRange, RangeWants, ServedRange};
use control::link::{FromRangeStream, LinkEnd, ToRangeStream};
use control::{Pattern, RangeName, WantedSet};
use proto::server::{Caps, Listener, Server, Services};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::Reference;

use crate::grants::Grants;
use crate::link::{Changes, RangeLink};
use crate::listeners::{self, Serving};
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
    /// True if addresses that other machines can reach may be served.
    remote_any: bool,
    served: Arc<Mutex<BTreeMap<RangeName, Served>>>,
    grants: Grants,
    /// Every change of any range, for watchers.
    changes: Changes,
    /// One for us and one for each range.
    counted: Arc<()>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

/// One range: its listeners, its wanted set and grants, and its link.
#[derive(Debug)]
struct Served {
    socket: Serving,
    /// The recorded TCP address; `None` without one.
    address: Option<SocketAddr>,
    /// The listener on that address; `None` too if listening failed after a restart.
    remote: Option<Serving>,
    wanted: watch::Sender<WantedSet>,
    /// Patterns of the images that it may read beside the wanted ones.
    grants: Vec<Pattern>,
    /// True if they were ever set; false in a record from before grants.
    has_grants: bool,
    link: RangeLink,
    _counted: Arc<()>,
}

impl Ranges {
    /// Creates an empty table. Each range added later is served until `draining` is cancelled.
    /// Addresses that other machines can reach are refused without `remote_any`.
    #[must_use]
    pub fn new(
        state: StateDir,
        grants: Grants,
        draining: CancellationToken,
        remote_any: bool,
    ) -> Self {
        Self {
            state,
            remote_any,
            served: Arc::default(),
            grants,
            changes: Changes::default(),
            counted: Arc::default(),
            tasks: TaskTracker::new(),
            draining,
        }
    }

    /// Returns a counter of served ranges. It answers at once, also while ranges are added or
    /// removed.
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
        self.add(NewRange::named(name.clone()), services.clone()).await?;
        let address = self.served.lock().await.get(name).and_then(|range| range.address);
        if address.is_none() {
            return Ok(());
        }
        let again = NewRange { tcp: address, ..NewRange::named(name.clone()) };
        if let Err(error) = self.add(again, services).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(range = %name, error, "not served over TCP");
        }
        Ok(())
    }

    /// Serves a range, and on an address besides where that is asked for. One that is served already
    /// keeps its wanted set and grants; another address takes the place of the one before.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`], and of `tcp`
    /// [`AdminError::RemoteNotAllowed`], [`AdminError::Listen`], [`AdminError::Record`].
    pub async fn add(
        &self,
        range: NewRange,
        services: Services,
    ) -> Result<ServedRange, AdminError> {
        let NewRange { name, tcp, wanted, grants } = range;
        let mut all = self.served.lock().await;
        let remote = self.listen(&name, all.get(&name), tcp).await?;
        if !all.contains_key(&name) {
            if MAX_RANGES <= all.len() {
                return Err(AdminError::TooManyRanges { limit: MAX_RANGES });
            }
            let begun = self.begin(&name, services.clone(), wanted, grants)?;
            all.insert(name.clone(), begun);
        }
        let range = all.get_mut(&name).expect("invariant: it was put in just now");
        if let Some((address, listener)) = remote {
            if range.address != Some(address) {
                self.remember(
                    &name,
                    &Record::new(
                        range.wanted.borrow().clone(),
                        range.grants.clone(),
                        Some(address),
                    ),
                )?;
            }
            let serving = self.serve(&name, Server::new(listener, services, Caps::default()));
            range.address = Some(address);
            if let Some(before) = range.remote.replace(serving) {
                before.end().await;
            }
            range.link.touch();
        }
        Ok(self.describe(&name, range))
    }

    /// Stops serving a range, ends its connections, calls `ended`, and takes its folders away. The
    /// range may have left many files in them; they are deleted afterwards, without making anybody
    /// wait.
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
        let (tasks, changes, removed) = (self.tasks.clone(), self.changes.clone(), name.clone());
        let grants = self.grants.clone();
        let removal = async move {
            let leaving = take_away(&all, &state, &removed, ended).await?;
            grants.remove(&removed);
            changes.happened();
            tasks.spawn_blocking(move || delete(leaving, &removed));
            Ok(())
        };
        let removal = self.tasks.spawn(removal.in_current_span()).await;
        let failed = |source| AdminError::Socket { path: self.state.range(name), source };
        removal.unwrap_or_else(|panic| Err(failed(std::io::Error::other(panic))))
    }

    /// Replaces the images that a range is to have, on disk first, and sends them to it. The same
    /// references again change nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Revision`], [`AdminError::Record`].
    pub async fn set_wanted(
        &self,
        name: &RangeName,
        references: Vec<Reference>,
        expected_revision: Option<u64>,
    ) -> Result<WantedSet, AdminError> {
        let served = self.served.lock().await;
        let range = known(&served, name)?;
        let before = range.wanted.borrow().clone();
        if expected_revision.is_some_and(|expected| expected != before.revision) {
            return Err(AdminError::Revision { name: name.clone(), revision: before.revision });
        }
        let set = before.replaced(references, now());
        if set.references == before.references && before.revision != 0 {
            return Ok(before);
        }
        self.want(name, range, set)
    }

    /// Lets a range look at all its wanted images again, and returns the round of that look.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    pub async fn next_round(&self, name: &RangeName) -> Result<u64, AdminError> {
        let served = self.served.lock().await;
        let range = known(&served, name)?;
        let set = range.wanted.borrow().next_round(now());
        Ok(self.want(name, range, set)?.round)
    }

    /// Writes a set down and sends it to its range.
    ///
    /// A small file, written here and not on a thread of its own: so there is no moment at which a
    /// caller that goes away leaves it and what ranges have apart.
    fn want(
        &self,
        name: &RangeName,
        range: &Served,
        set: WantedSet,
    ) -> Result<WantedSet, AdminError> {
        let record = Record::new(set.clone(), range.grants.clone(), range.address);
        self.remember(name, &record)?;
        self.grants.set(name, &set.references, &range.grants);
        range.wanted.send_replace(set.clone());
        range.link.touch();
        Ok(set)
    }

    /// The images that a range is to have, and its grants.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    pub async fn wants(&self, name: &RangeName) -> Result<RangeWants, AdminError> {
        let served = self.served.lock().await;
        let range = known(&served, name)?;
        let wanted = range.wanted.borrow().clone();
        Ok(RangeWants { wanted, grants: range.grants.clone() })
    }

    /// Replaces a range's grants, on disk first; each pattern counts once.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    pub async fn set_grants(
        &self,
        name: &RangeName,
        grants: Vec<Pattern>,
    ) -> Result<Vec<Pattern>, AdminError> {
        let mut served = self.served.lock().await;
        let range = served.get_mut(name).ok_or_else(|| unknown(name))?;
        let grants = each_once(grants);
        let record = Record::new(range.wanted.borrow().clone(), grants.clone(), range.address);
        self.remember(name, &record)?;
        self.grants.set(name, &range.wanted.borrow().references, &grants);
        range.grants.clone_from(&grants);
        range.has_grants = true;
        range.link.touch();
        Ok(grants)
    }

    /// Sets the grants of a range whose record is from before grants.
    ///
    /// # Errors
    /// As [`set_grants`](Self::set_grants).
    pub async fn set_first_grants(
        &self,
        name: &RangeName,
        grants: Vec<Pattern>,
    ) -> Result<(), AdminError> {
        let had = known(&*self.served.lock().await, name)?.has_grants;
        if !had {
            self.set_grants(name, grants).await?;
        }
        Ok(())
    }

    /// A range's link.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    pub async fn link(&self, name: &RangeName) -> Result<RangeLink, AdminError> {
        Ok(known(&*self.served.lock().await, name)?.link.clone())
    }

    /// Takes a link of a range, in place of an older one, until draining begins.
    ///
    /// # Errors
    /// [`LinkEnd::UnknownRange`], [`LinkEnd::HostEnding`].
    pub async fn attach(
        &self,
        name: &RangeName,
        messages: FromRangeStream,
    ) -> Result<ToRangeStream, LinkEnd> {
        if self.draining.is_cancelled() {
            return Err(LinkEnd::HostEnding);
        }
        let served = self.served.lock().await;
        let range = served.get(name);
        let range = range.ok_or_else(|| LinkEnd::UnknownRange { name: name.clone() })?;
        let (told, reading) = range.link.attach(messages, range.wanted.subscribe());
        tracing::info!(range = %name, "attached");
        let (link, draining) = (range.link.clone(), self.draining.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = reading => {}
                () = draining.cancelled_owned() => link.end(LinkEnd::HostEnding),
            }
        });
        Ok(told)
    }

    /// Is cancelled when draining begins.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Wakes at each change of any range.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.watch()
    }

    /// The number of each range's last change.
    pub(crate) async fn changed(&self) -> BTreeMap<RangeName, u64> {
        let served = self.served.lock().await;
        served.iter().map(|(name, range)| (name.clone(), range.link.changed())).collect()
    }

    /// A range as it is now; `None` for an unknown range.
    pub(crate) async fn get(&self, name: &RangeName) -> Option<ServedRange> {
        self.served.lock().await.get(name).map(|range| self.describe(name, range))
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

    /// Listens on the socket of a new range. If the range has a record, its wanted images and
    /// grants come from there; otherwise they are those given here.
    fn begin(
        &self,
        name: &RangeName,
        services: Services,
        wanted: Vec<Reference>,
        grants: Vec<Pattern>,
    ) -> Result<Served, AdminError> {
        let path = self.state.range_socket(name);
        let made = self.state.make_range(name).and_then(|()| Listener::unix(&path, SOCKET_MODE));
        let listener = made.map_err(|source| AdminError::Socket { path, source })?;
        let mut record = Record::read(&self.state.range_record(name)).unwrap_or_else(|error| {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(range = %name, error, "its wanted images are unknown");
            Record::default()
        });
        if record == Record::default() {
            let none = WantedSet::default();
            let wanted = if wanted.is_empty() { none } else { none.replaced(wanted, now()) };
            record = Record::new(wanted, each_once(grants), None);
            self.remember(name, &record)?;
        }
        let mut wanted = record.wanted();
        if wanted.round == 0 {
            wanted = wanted.next_round(now());
        }
        let grants = record.grants().unwrap_or_default().to_vec();
        self.grants.set(name, &wanted.references, &grants);
        Ok(Served {
            socket: self.serve(name, Server::new(listener, services, Caps::default())),
            address: record.tcp_address(),
            remote: None,
            wanted: watch::Sender::new(wanted),
            grants,
            has_grants: record.grants().is_some(),
            link: RangeLink::new(name.clone(), self.changes.clone()),
            _counted: self.counted.clone(),
        })
    }

    /// Listens on the requested address; `None` without one, or if the range has it already.
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
        listeners::listen(name, address, self.remote_any).await.map(Some)
    }

    fn remember(&self, name: &RangeName, record: &Record) -> Result<(), AdminError> {
        let written = record.write(&self.state.range_record(name));
        written.map_err(|error| AdminError::Record { name: name.clone(), source: error.into() })
    }

    fn serve(&self, name: &RangeName, server: Server) -> Serving {
        Serving::begin(name, server, &self.tasks, &self.draining)
    }

    fn describe(&self, name: &RangeName, range: &Served) -> ServedRange {
        let over_tcp = range.remote.as_ref().map_or(0, Serving::open);
        let (attachment, state) = range.link.latest();
        ServedRange {
            name: name.clone(),
            socket_path: self.state.range_socket(name),
            connections: range.socket.open() + over_tcp,
            tcp_endpoint: range.address.filter(|_| range.remote.is_some()),
            wanted: range.wanted.borrow().clone(),
            grants: range.grants.clone(),
            attachment,
            state,
        }
    }
}

/// Milliseconds since 1970, for rounds; 0 where the clock is set before.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn each_once(mut grants: Vec<Pattern>) -> Vec<Pattern> {
    let mut seen = HashSet::new();
    grants.retain(|grant| seen.insert(grant.clone()));
    grants
}

/// Ends a range and takes its folders away; from then on another may have its name.
async fn take_away(
    all: &Mutex<BTreeMap<RangeName, Served>>,
    state: &StateDir,
    name: &RangeName,
    ended: impl FnOnce(),
) -> Result<Option<Leaving>, AdminError> {
    let mut all = all.lock().await;
    let Some(Served { socket, remote, link, .. }) = all.remove(name) else {
        return Err(unknown(name));
    };
    link.end(LinkEnd::UnknownRange { name: name.clone() });
    let listeners: Vec<Serving> = [Some(socket), remote].into_iter().flatten().collect();
    listeners.iter().for_each(Serving::stop);
    for listener in listeners {
        listener.end().await;
    }
    ended();
    // A rename is quick however much is in the folder, so others may wait for it.
    let taken = state.take_range_away(name);
    taken.map_err(|source| AdminError::Socket { path: state.range(name), source })
}

/// Deletes what a range left.
fn delete(leaving: Option<Leaving>, name: &RangeName) {
    if let Some(Err(error)) = leaving.map(Leaving::delete) {
        tracing::warn!(range = %name, %error, "the range's files are deleted at the next start");
    }
}

fn known<'a>(
    served: &'a BTreeMap<RangeName, Served>,
    name: &RangeName,
) -> Result<&'a Served, AdminError> {
    served.get(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &RangeName) -> AdminError {
    AdminError::UnknownRange { name: name.clone() }
}

#[cfg(test)]
#[path = "ranges/tests.rs"]
mod tests;
