//! The two agents as ranges need them: the host agent that serves, and the one in each range.

use std::time::{Duration, Instant};

use control::Pattern;
use control::admin::NewRange;
use control::identity::RangeName;
use control::range::{ImagePlan, RangeImage, RangeStatus, Reach, SyncEvent, VerifyEvent};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use proto::channel::{Endpoint, InvalidEndpoint};
use proto::client::{AdminClient, Manners, RangeClient, RemoteError, RemoteHost};
use transfer::{EngineInfo, Event, Reference};

use crate::container::Folders;
use crate::error::RangeError;
use crate::status::{HeldImage, Step};

/// How long a host agent may be away: one that was killed is back by itself within.
const AWAY: Duration = Duration::from_secs(15);

/// How often one that is away is asked again.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// The reason by which the host agent says that it has no such range.
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

    /// Makes `range` known, and answers its folders. One that is known already keeps them.
    pub(crate) async fn add(&self, range: &RangeName) -> Result<Folders, RangeError> {
        let grants = vec![Pattern::all()];
        let new = NewRange { grants, ..NewRange::named(range.clone()) };
        let added = patiently(|| self.client.add_range(&new)).await;
        let served = added.map_err(|source| self.failed("adding a range", source))?;
        Folders::of(range, &served.socket_path)
    }

    /// Forgets `range`, and says whether it was known.
    pub(crate) async fn remove(&self, range: &RangeName) -> Result<bool, RangeError> {
        match patiently(|| self.client.remove_range(range)).await {
            Ok(()) => Ok(true),
            Err(RemoteError::Refused { reason, .. }) if reason == RANGE_NOT_FOUND => Ok(false),
            Err(error) => Err(self.failed("removing a range", error)),
        }
    }

    /// Replaces what `range` should have: its agent brings that in by itself from now on.
    pub(crate) async fn set_wanted(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<(), RangeError> {
        let set = patiently(|| self.client.set_wanted(range, images, None)).await;
        set.map(|_| ()).map_err(|source| self.failed("setting what a range should have", source))
    }

    /// What `range` should have; nothing where it is not known.
    pub(crate) async fn wanted(&self, range: &RangeName) -> Result<Vec<Reference>, RangeError> {
        match patiently(|| self.client.wanted(range)).await {
            Ok(wants) => Ok(wants.wanted.references),
            Err(RemoteError::Refused { reason, .. }) if reason == RANGE_NOT_FOUND => Ok(Vec::new()),
            Err(error) => Err(self.failed("asking what a range should have", error)),
        }
    }

    fn failed(&self, action: &'static str, source: RemoteError) -> RangeError {
        RangeError::HostAgent { endpoint: self.endpoint.clone(), action, source: Box::new(source) }
    }
}

/// Asks until there is an answer or a refusal, as long as an agent may be away.
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

/// How the agent in a range is.
#[derive(Debug)]
pub(crate) struct AgentStatus {
    /// The engine beside it; absent when it does not answer.
    pub(crate) engine: Option<EngineInfo>,
    /// Why the engine does not answer; empty when it does.
    pub(crate) reason: String,
    /// How far it is in step.
    pub(crate) step: Step,
}

impl From<RangeStatus> for AgentStatus {
    fn from(status: RangeStatus) -> Self {
        let step = Step {
            wanted: status.wanted,
            in_step: status.in_step,
            last_error: status.last_sync.and_then(|last| last.error),
            engine_restarts: status.engine_restarts,
        };
        let (engine, reason) = match status.engine {
            Reach::Up(engine) => (Some(engine), String::new()),
            Reach::Down(reason) => (None, reason),
            Reach::Unknown => (None, "its engine was not asked yet".to_owned()),
        };
        Self { engine, reason, step }
    }
}

/// The agent in one range.
#[derive(Debug)]
pub(crate) struct RangeAgent {
    range: RangeName,
    client: RangeClient,
}

impl RangeAgent {
    /// The agent of `range`, whose socket lies in a folder that the range can write: it is opened
    /// without following links. Must be called within a runtime.
    pub(crate) fn at(range: &RangeName, endpoint: &str) -> Result<Self, RangeError> {
        let endpoint: Endpoint = endpoint.parse().map_err(|source: InvalidEndpoint| {
            RangeError::agent(range, "reading its address", source)
        })?;
        Ok(Self { range: range.clone(), client: RangeClient::new(endpoint) })
    }

    pub(crate) async fn status(&self) -> Result<AgentStatus, RangeError> {
        let status = self.client.status().await;
        let status = status.map_err(|source| self.failed("asking how it is", source))?;
        Ok(status.into())
    }

    /// What the engine has, one entry for each name; an image without a name has one entry too.
    pub(crate) async fn images(&self) -> Result<Vec<HeldImage>, RangeError> {
        let images = self.client.images().await;
        let images = images.map_err(|source| self.failed("asking for its images", source))?;
        Ok(images.into_iter().flat_map(held).collect())
    }

    /// What bringing images in would move.
    pub(crate) async fn plan(&self, images: &[Reference]) -> Result<Vec<ImagePlan>, RangeError> {
        let plans = self.client.plan(images).await;
        plans.map_err(|source| self.failed("planning", source))
    }

    /// Has images checked, deep where asked; without any, all that the engine has.
    pub(crate) async fn verify(
        &self,
        images: &[Reference],
        deep: bool,
    ) -> Result<BoxStream<'static, Result<VerifyEvent, RangeError>>, RangeError> {
        const ACTION: &str = "verifying images";
        let events = self.client.verify(images, deep).await;
        let events = events.map_err(|source| self.failed(ACTION, source))?;
        let range = self.range.clone();
        Ok(events.map_err(move |source| RangeError::agent(&range, ACTION, source)).boxed())
    }

    /// Has images brought in. The stream ends after all of them are done; dropping it cancels
    /// nothing. One that ends otherwise has an error last, unless the agent ended in order.
    pub(crate) async fn sync(
        &self,
        images: &[Reference],
    ) -> Result<BoxStream<'static, Result<Event, RangeError>>, RangeError> {
        const ACTION: &str = "syncing images";
        let events = self.client.sync(images).await;
        let events = events.map_err(|source| self.failed(ACTION, source))?;
        let range = self.range.clone();
        let events = events.map_err(move |source| RangeError::agent(&range, ACTION, source));
        let images = events.try_filter_map(async |event| match event {
            SyncEvent::Image(event) => Ok(Some(event)),
            SyncEvent::Finished(_) => Ok(None),
        });
        Ok(images.boxed())
    }

    fn failed(&self, action: &'static str, source: RemoteError) -> RangeError {
        RangeError::agent(&self.range, action, source)
    }
}

fn held(image: RangeImage) -> Vec<HeldImage> {
    let under = |reference| HeldImage {
        reference,
        config_digest: image.config_digest,
        engine_image_id: image.engine_image_id,
        proven: image.proven,
    };
    if image.references.is_empty() {
        return vec![under(None)];
    }
    image.references.into_iter().map(|reference| under(Some(reference))).collect()
}
