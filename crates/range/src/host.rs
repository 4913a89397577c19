//! The host agent, as ranges need it: it registers them, keeps what they should have, and reports them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use control::admin::{NewRange, RangeWants, ServedRange};
use control::range::ImagePlan;
use control::{Pattern, RangeName, WantedSet};
use proto::channel::{Endpoint, InvalidEndpoint};
use proto::client::{AdminClient, Manners, RangeChanges, RemoteError, RemoteHost, VerifyEvents};
use transfer::Reference;
use transfer::blob::Cause;

use crate::error::RangeError;
use crate::feed::Reports;

/// Longest absence of a host agent: one that was killed is back by itself within.
const AWAY: Duration = Duration::from_secs(15);

/// The pause between two attempts while it is away.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The reason of a refusal because there is no such range.
const RANGE_NOT_FOUND: &str = "RANGE_NOT_FOUND";

/// The host agent's administrator's side; connected when it is first needed.
#[derive(Debug)]
pub(crate) struct HostAgent {
    endpoint: String,
    parsed: Endpoint,
    client: AdminClient,
}

impl HostAgent {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// [`RangeError::HostAgent`] when that is not an address.
    pub(crate) fn at(endpoint: &str) -> Result<Self, RangeError> {
        let parsed: Endpoint =
            endpoint.parse().map_err(|source: InvalidEndpoint| RangeError::HostAgent {
                endpoint: endpoint.to_owned(),
                action: "reading its address",
                source: Box::new(source),
            })?;
        let client = AdminClient::new(parsed.clone());
        Ok(Self { endpoint: endpoint.to_owned(), parsed, client })
    }

    /// The images that the host has.
    pub(crate) fn images(&self) -> RemoteHost {
        RemoteHost::new(self.parsed.clone(), Manners::default())
    }

    /// Registers a range. One that is known already keeps its wanted images and its grants.
    pub(crate) async fn add(&self, range: &NewRange) -> Result<ServedRange, RangeError> {
        let added = patiently(|| self.client.add_range(range)).await;
        added.map_err(|source| self.failed("adding a range", source))
    }

    /// Forgets `range`, and says whether it was known.
    pub(crate) async fn remove(&self, range: &RangeName) -> Result<bool, RangeError> {
        match patiently(|| self.client.remove_range(range)).await {
            Ok(()) => Ok(true),
            Err(error) if error.reason() == RANGE_NOT_FOUND => Ok(false),
            Err(error) => Err(self.failed("removing a range", error)),
        }
    }

    /// The images that `range` should have; none where it is unknown.
    pub(crate) async fn wanted(&self, range: &RangeName) -> Result<WantedSet, RangeError> {
        match patiently(|| self.client.wanted(range)).await {
            Ok(RangeWants { wanted, .. }) => Ok(wanted),
            Err(error) if error.reason() == RANGE_NOT_FOUND => Ok(WantedSet::default()),
            Err(error) => Err(self.failed("asking for wanted images", error)),
        }
    }

    /// Replaces the images that `range` should have.
    pub(crate) async fn replace_wanted(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<WantedSet, RangeError> {
        self.update_wanted(range, |wanted| *wanted = images.to_vec()).await
    }

    /// Adds to the images that `range` should have; those that others add meanwhile stay.
    pub(crate) async fn extend_wanted(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<WantedSet, RangeError> {
        self.update_wanted(range, |wanted| {
            for image in images {
                if !wanted.contains(image) {
                    wanted.push(image.clone());
                }
            }
        })
        .await
    }

    async fn update_wanted(
        &self,
        range: &RangeName,
        change: impl Fn(&mut Vec<Reference>),
    ) -> Result<WantedSet, RangeError> {
        let set = patiently(|| self.client.update_wanted(range, &change)).await;
        set.map_err(|source| self.failed("setting wanted images", source))
    }

    /// Replaces the patterns of images that `range` may read besides.
    pub(crate) async fn set_grants(
        &self,
        range: &RangeName,
        grants: &[Pattern],
    ) -> Result<(), RangeError> {
        let set = patiently(|| self.client.set_grants(range, grants)).await;
        set.map(|_| ()).map_err(|source| self.failed("setting grants", source))
    }

    /// Has `range` look at all its wanted images again; answers the round in which it does.
    pub(crate) async fn sync(&self, range: &RangeName) -> Result<u64, RangeError> {
        let round = patiently(|| self.client.sync_range(range)).await;
        round.map_err(|source| self.failed("asking a range to look at its images", source))
    }

    /// All ranges that it serves.
    pub(crate) async fn ranges(&self) -> Result<BTreeMap<RangeName, ServedRange>, RangeError> {
        let ranges = self.client.ranges().await;
        let ranges = ranges.map_err(|source| self.failed("listing ranges", source))?;
        Ok(ranges.into_iter().map(|range| (range.name.clone(), range)).collect())
    }

    /// Plans what bringing images into `range` would move.
    pub(crate) async fn plan(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<Vec<ImagePlan>, RangeError> {
        let plans = self.client.plan_range(range, images).await;
        plans.map_err(|source| RangeError::task(range, "planning a sync", source))
    }

    /// Has images of `range` checked, deep where asked; without any, all that its engine has.
    pub(crate) async fn verify(
        &self,
        range: &RangeName,
        images: &[Reference],
        deep: bool,
    ) -> Result<VerifyEvents, RangeError> {
        let events = self.client.verify_range(range, images, deep).await;
        events.map_err(|source| RangeError::task(range, "verifying images", source))
    }

    /// The error about a request that failed.
    fn failed(&self, action: &'static str, source: impl Into<Cause>) -> RangeError {
        RangeError::HostAgent { endpoint: self.endpoint.clone(), action, source: source.into() }
    }
}

#[async_trait]
impl Reports for HostAgent {
    async fn watch(&self) -> Result<RangeChanges, RemoteError> {
        self.client.watch_ranges(&[]).await
    }

    fn failed(&self, reason: String) -> RangeError {
        self.failed("reporting its ranges", reason)
    }
}

/// Asks until there is an answer or a refusal, as long as the host agent may be away.
async fn patiently<T, F, R>(mut ask: F) -> Result<T, RemoteError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, RemoteError>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(RemoteError::Unavailable { .. }) if begun.elapsed() < AWAY => {}
            answer => return answer,
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
