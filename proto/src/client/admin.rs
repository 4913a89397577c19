//! A host agent, as its operator sees it.

use std::time::Duration;

use futures::stream::BoxStream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use transfer::Reference;

use super::failure::RemoteError;
use super::paging::Pages;
use super::range::VerifyEvents;
use super::retry::{BRIEFLY, until_answered};
use super::stream::events;
use crate::channel::Endpoint;
use crate::convert::{admin, ranges, transfers, wanted};
use crate::failure::Failure;
use crate::wire::{AdminServiceClient, MAX_RESPONSE, PLAN_DEADLINE, UNARY_DEADLINE};
use control::admin::{
    HostStats, NewRange, Pruned, Pruning, RangeChange, RangeWants, ServedRange, StoreCheck,
};
use control::range::ImagePlan;
use control::transfers::Transfer;
use control::{Pattern, RangeName, WantedSet};

/// The states of ranges, one after the other. Ends only with an error.
pub type RangeChanges = BoxStream<'static, Result<RangeChange, RemoteError>>;

/// Deadline of reading a whole store again.
const VERIFY_DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// Deadline of removing blobs: some file systems are slow with large files.
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

    fn error(&self, action: &'static str) -> impl Fn(Status) -> RemoteError + use<> {
        let endpoint = self.endpoint.to_string();
        move |status| RemoteError::new(action, Failure::new(&endpoint, status))
    }

    /// Returns the agent's counters since it started.
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
        let (mut ranges, mut pages) = (Vec::new(), Pages::new());
        while let Some(page_token) = pages.token() {
            let page = until_answered(BRIEFLY, || async {
                let request = within(UNARY_DEADLINE, ranges::next_ranges(page_token.clone()));
                self.client().list_ranges(request).await
            });
            let page = page.await.map_err(self.error(ACTION))?;
            let (piece, next) =
                ranges::ranges_listed(page).map_err(|e| RemoteError::unavailable(ACTION, e))?;
            pages.read(next).map_err(|endless| RemoteError::unavailable(ACTION, endless))?;
            ranges.extend(piece);
        }
        Ok(ranges)
    }

    /// The state of ranges: of each at once, then of each that changed. No names: all that there
    /// are, and all that are added later.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn watch_ranges(&self, names: &[RangeName]) -> Result<RangeChanges, RemoteError> {
        let error = self.error("watching the host agent's ranges");
        let wanted = || async { self.client().watch_ranges(ranges::watch_wanted(names)).await };
        let messages = until_answered(BRIEFLY, wanted).await.map_err(&error)?;
        Ok(events(messages, ranges::watched, error))
    }

    /// Makes a range known; one that is known already is returned as it is.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `REMOTE_NOT_ALLOWED` for an address that other machines
    /// can reach, where the agent does not allow that.
    pub async fn add_range(&self, range: &NewRange) -> Result<ServedRange, RemoteError> {
        const ACTION: &str = "adding a range to the host agent";
        let added = until_answered(BRIEFLY, || async {
            self.client().add_range(within(UNARY_DEADLINE, ranges::add_wanted(range))).await
        });
        let added = added.await.map_err(self.error(ACTION))?;
        ranges::added(added).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Makes a range unknown, and ends its connections.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for one that is not there.
    pub async fn remove_range(&self, name: &RangeName) -> Result<(), RemoteError> {
        let removed = until_answered(BRIEFLY, || async {
            self.client().remove_range(within(UNARY_DEADLINE, ranges::remove_wanted(name))).await
        });
        removed.await.map_err(self.error("removing a range from the host agent"))?;
        Ok(())
    }

    /// Replaces a range's wanted images if its set still has the expected revision. `None` accepts
    /// any revision.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there, and
    /// `REVISION` for a set that has another revision.
    pub async fn set_wanted(
        &self,
        name: &RangeName,
        references: &[Reference],
        expected_revision: Option<u64>,
    ) -> Result<WantedSet, RemoteError> {
        const ACTION: &str = "setting what a range is to have";
        let set = until_answered(BRIEFLY, || async {
            let message = ranges::set_wanted_wanted(name, references, expected_revision);
            self.client().set_wanted(within(UNARY_DEADLINE, message)).await
        });
        let set = set.await.map_err(self.error(ACTION))?;
        wanted::was_set(set).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Changes the images that a range is to have: `change` gets the references as they are, and is
    /// called again when somebody else changed them meanwhile.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn update_wanted(
        &self,
        name: &RangeName,
        change: impl Fn(&mut Vec<Reference>),
    ) -> Result<WantedSet, RemoteError> {
        loop {
            let WantedSet { mut references, revision, .. } = self.wanted(name).await?.wanted;
            change(&mut references);
            match self.set_wanted(name, &references, Some(revision)).await {
                Err(error) if error.reason() == "REVISION" => {}
                set => return set,
            }
        }
    }

    /// The images that a range is to have, and its grants.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn wanted(&self, name: &RangeName) -> Result<RangeWants, RemoteError> {
        const ACTION: &str = "asking what a range is to have";
        let set = until_answered(BRIEFLY, || async {
            self.client().get_wanted(within(UNARY_DEADLINE, ranges::get_wanted_wanted(name))).await
        });
        let set = set.await.map_err(self.error(ACTION))?;
        wanted::got(set).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Replaces the patterns of images that a range may read beside its wanted ones.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn set_grants(
        &self,
        name: &RangeName,
        grants: &[Pattern],
    ) -> Result<Vec<Pattern>, RemoteError> {
        const ACTION: &str = "setting what a range may read";
        let set = until_answered(BRIEFLY, || async {
            let message = ranges::set_grants_wanted(name, grants);
            self.client().set_grants(within(UNARY_DEADLINE, message)).await
        });
        let set = set.await.map_err(self.error(ACTION))?;
        ranges::grants_were_set(&set).map_err(|error| RemoteError::unavailable(ACTION, error))
    }

    /// Has a range look at all its wanted images again, in the round that is returned.
    ///
    /// # Errors
    /// Any [`RemoteError`]; the reason is `RANGE_NOT_FOUND` for a range that is not there.
    pub async fn sync_range(&self, name: &RangeName) -> Result<u64, RemoteError> {
        let begun = until_answered(BRIEFLY, || async {
            self.client().sync_range(within(UNARY_DEADLINE, ranges::sync_wanted(name))).await
        });
        let begun = begun.await.map_err(self.error("having a range look at its images"))?;
        Ok(begun.round)
    }

    /// Plans bringing images into a range; nothing changes in the range.
    ///
    /// # Errors
    /// Any [`RemoteError`]; unavailable while the range's agent is not attached.
    pub async fn plan_range(
        &self,
        name: &RangeName,
        references: &[Reference],
    ) -> Result<Vec<ImagePlan>, RemoteError> {
        const ACTION: &str = "planning what the range lacks";
        let plans = until_answered(BRIEFLY, || async {
            let message = ranges::plan_wanted(name, references);
            self.client().plan_range(within(PLAN_DEADLINE, message)).await
        });
        let plans = plans.await.map_err(self.error(ACTION))?;
        ranges::planned(plans).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Has a range's engine confirm its images again, and with `deep` reads every file of them;
    /// without references, every image that it has. Dropping the events ends the work.
    ///
    /// # Errors
    /// Any [`RemoteError`]; unavailable while the range's agent is not attached.
    pub async fn verify_range(
        &self,
        name: &RangeName,
        references: &[Reference],
        deep: bool,
    ) -> Result<VerifyEvents, RemoteError> {
        let error = self.error("verifying the range");
        let wanted = || async {
            self.client().verify_range(ranges::verify_range_wanted(name, references, deep)).await
        };
        let messages = until_answered(BRIEFLY, wanted).await.map_err(&error)?;
        Ok(events(messages, ranges::verified, error))
    }

    /// Lists the transfers under way, sorted by id.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn transfers(&self) -> Result<Vec<Transfer>, RemoteError> {
        const ACTION: &str = "asking the host agent what moves";
        let (mut moving, mut pages) = (Vec::new(), Pages::new());
        while let Some(page_token) = pages.token() {
            let page = until_answered(BRIEFLY, || async {
                let request = within(UNARY_DEADLINE, transfers::next(page_token.clone()));
                self.client().list_transfers(request).await
            });
            let page = page.await.map_err(self.error(ACTION))?;
            let (piece, next) =
                transfers::listed(page).map_err(|e| RemoteError::unavailable(ACTION, e))?;
            pages.read(next).map_err(|endless| RemoteError::unavailable(ACTION, endless))?;
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
