//! A host agent, as its operator sees it.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};
use transfer::Reference;

use super::failure::{Failure, RemoteError};
use super::retry::{BRIEFLY, until_answered};
use crate::admin::{HostStats, Pruned, Pruning, ServedRange, StoreCheck};
use crate::channel::Endpoint;
use crate::convert::{admin, transfers, wanted};
use crate::identity::RangeName;
use crate::transfers::Transfer;
use crate::wanted::WantedSet;
use crate::wire::{AdminServiceClient, MAX_RESPONSE, UNARY_DEADLINE};

/// How long reading a whole store again may take.
const VERIFY_DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// How long removing blobs may take: some file systems are slow with large files.
const PRUNE_DEADLINE: Duration = Duration::from_secs(600);

/// The operator's side of a host agent. Connects when it is first asked, and again by itself.
#[derive(Clone, Debug)]
pub struct AdminClient {
    endpoint: Endpoint,
    channel: Channel,
}

impl AdminClient {
    /// The host agent whose administrator's listener is `endpoint`; nothing is connected yet. Must
    /// be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let channel = endpoint.channel();
        Self { endpoint, channel }
    }

    fn client(&self) -> AdminServiceClient {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    fn error(&self, action: &'static str) -> impl Fn(Status) -> RemoteError {
        move |status| RemoteError::new(action, Failure::new(&self.endpoint.to_string(), status))
    }

    /// What the agent did since it started.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn stats(&self) -> Result<HostStats, RemoteError> {
        const ACTION: &str = "asking the host agent for its counters";
        let stats = until_answered(BRIEFLY, || async {
            self.client().get_stats(within(UNARY_DEADLINE, admin::stats_request())).await
        });
        let stats = stats.await.map_err(self.error(ACTION))?;
        stats.try_into().map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// The ranges that the agent serves, sorted by name.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn ranges(&self) -> Result<Vec<ServedRange>, RemoteError> {
        const ACTION: &str = "asking the host agent for its ranges";
        let (mut ranges, mut token) = (Vec::new(), Some(String::new()));
        while let Some(page_token) = token {
            let page = until_answered(BRIEFLY, || async {
                let request = within(UNARY_DEADLINE, admin::next_ranges(page_token.clone()));
                self.client().list_ranges(request).await
            });
            let page = page.await.map_err(self.error(ACTION))?;
            let (piece, next) =
                admin::ranges_listed(page).map_err(|e| RemoteError::unavailable(ACTION, e))?;
            token = next.filter(|next| *next != page_token);
            ranges.extend(piece);
        }
        Ok(ranges)
    }

    /// Makes a range known; one that is there already is returned as it is.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn add_range(&self, name: &RangeName) -> Result<ServedRange, RemoteError> {
        self.add(name, None).await
    }

    /// Makes a range known that is served on a TCP address of its own besides; port 0 takes a free
    /// one.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `REMOTE_NOT_ALLOWED` for an address that other machines
    /// can reach, where the agent does not allow that.
    pub async fn add_remote_range(
        &self,
        name: &RangeName,
        tcp: SocketAddr,
    ) -> Result<ServedRange, RemoteError> {
        self.add(name, Some(tcp)).await
    }

    async fn add(
        &self,
        name: &RangeName,
        tcp: Option<SocketAddr>,
    ) -> Result<ServedRange, RemoteError> {
        const ACTION: &str = "adding a range to the host agent";
        let added = until_answered(BRIEFLY, || async {
            self.client().add_range(within(UNARY_DEADLINE, admin::add_wanted(name, tcp))).await
        });
        let added = added.await.map_err(self.error(ACTION))?;
        admin::added(added).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Makes a range unknown, and ends its connections.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for one that is not there.
    pub async fn remove_range(&self, name: &RangeName) -> Result<(), RemoteError> {
        let removed = until_answered(BRIEFLY, || async {
            self.client().remove_range(within(UNARY_DEADLINE, admin::remove_wanted(name))).await
        });
        removed.await.map_err(self.error("removing a range from the host agent"))?;
        Ok(())
    }

    /// Replaces what a range is to have; its agent is told.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn set_wanted(
        &self,
        name: &RangeName,
        references: &[Reference],
    ) -> Result<WantedSet, RemoteError> {
        const ACTION: &str = "setting what a range is to have";
        let set = until_answered(BRIEFLY, || async {
            let request = within(UNARY_DEADLINE, admin::set_wanted_wanted(name, references));
            self.client().set_wanted(request).await
        });
        let set = set.await.map_err(self.error(ACTION))?;
        wanted::was_set(set).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// What a range is to have.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn wanted(&self, name: &RangeName) -> Result<WantedSet, RemoteError> {
        const ACTION: &str = "asking what a range is to have";
        let set = until_answered(BRIEFLY, || async {
            self.client().get_wanted(within(UNARY_DEADLINE, admin::get_wanted_wanted(name))).await
        });
        let set = set.await.map_err(self.error(ACTION))?;
        wanted::got(set).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// What moves at the moment, sorted by id.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn transfers(&self) -> Result<Vec<Transfer>, RemoteError> {
        const ACTION: &str = "asking the host agent what moves";
        let (mut moving, mut token) = (Vec::new(), Some(String::new()));
        while let Some(page_token) = token {
            let page = until_answered(BRIEFLY, || async {
                let request = within(UNARY_DEADLINE, transfers::next(page_token.clone()));
                self.client().list_transfers(request).await
            });
            let page = page.await.map_err(self.error(ACTION))?;
            let (piece, next) =
                transfers::listed(page).map_err(|e| RemoteError::unavailable(ACTION, e))?;
            token = next.filter(|next| *next != page_token);
            moving.extend(piece);
        }
        Ok(moving)
    }

    /// Removes blobs that no lease keeps, the least recently read first.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn prune(&self, pruning: Pruning) -> Result<Pruned, RemoteError> {
        let pruned = until_answered(BRIEFLY, || async {
            self.client().prune(within(PRUNE_DEADLINE, admin::prune_wanted(pruning))).await
        });
        let pruned = pruned.await.map_err(self.error("pruning the host agent's store"))?;
        Ok(pruned.into())
    }

    /// Has every blob of the store read again; takes as long as that does.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn verify_store(&self) -> Result<StoreCheck, RemoteError> {
        const ACTION: &str = "verifying the host agent's store";
        let check = until_answered(BRIEFLY, || async {
            self.client().verify_store(within(VERIFY_DEADLINE, admin::verify_request())).await
        });
        let check = check.await.map_err(self.error(ACTION))?;
        check.try_into().map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
