//! A host agent, as its operator sees it.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};

use super::failure::{Failure, RemoteError};
use super::retry::{BRIEFLY, until_answered};
use crate::admin::{HostStats, ServedRange, StoreCheck};
use crate::channel::Endpoint;
use crate::convert::admin;
use crate::identity::RangeName;
use crate::wire::{AdminServiceClient, MAX_RESPONSE, UNARY_DEADLINE};

/// How long reading a whole store again may take.
const VERIFY_DEADLINE: Duration = Duration::from_secs(6 * 3600);

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
        const ACTION: &str = "adding a range to the host agent";
        let added = until_answered(BRIEFLY, || async {
            self.client().add_range(within(UNARY_DEADLINE, admin::add_wanted(name))).await
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
