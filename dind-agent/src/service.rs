//! `RangeService` inside the range: syncs, the engine's images, and how all of it is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control::Caller;
use control::range::{
    ControlError, ImagePlan, MAX_LACKING, RangeControl, RangeImage, RangeStatus, Reach, SyncEvent,
    VerifyEvent,
};
use engine::HeldImage;
use futures::stream::BoxStream;
use proto::RemoteHost;
use transfer::Reference;

use crate::about::About;
use crate::engine::RangeEngine;
use crate::keeper::Keeper;
use crate::plan::plan;
use crate::syncs::Syncs;
use crate::verify::Checks;

/// Maximum time that a status request waits for the host agent before it reports it as silent: a
/// status must not wait for a broken part.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A range's agent, as the protocol sees it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) engine: Arc<RangeEngine>,
    pub(crate) host: Arc<RemoteHost>,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) about: Arc<About>,
}

impl Service {
    async fn host_reach(&self) -> Reach<()> {
        match process::health::check(self.host.endpoint(), ANSWER_WITHIN).await {
            Ok(()) => Reach::Up(()),
            Err(error) => Reach::Down(format!("{error:#}")),
        }
    }
}

fn shown(image: HeldImage) -> RangeImage {
    RangeImage {
        references: image.references,
        config_digest: image.config_digest,
        engine_image_id: image.engine_image_id,
        proven: image.proven,
    }
}

#[async_trait]
impl RangeControl for Service {
    async fn sync(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        self.syncs.begin(references)
    }

    async fn images(&self, _caller: &Caller) -> Result<Vec<RangeImage>, ControlError> {
        let held = self.engine.images().await;
        let held = held.map_err(|error| ControlError::Unavailable(error.into()))?;
        Ok(held.into_iter().map(shown).collect())
    }

    async fn plan(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, ControlError> {
        Ok(plan(self.keeper.puller(), references).await)
    }

    async fn verify(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError> {
        self.checks.begin(references, deep).await
    }

    async fn status(&self, _caller: &Caller) -> RangeStatus {
        let host = self.host_reach().await;
        let table = self.keeper.read();
        let standing = table.standing();
        let agent = self.about.status(table.engine().clone());
        RangeStatus {
            agent_version: agent.version,
            uptime: agent.uptime,
            engine: agent.engine,
            host,
            syncs: u32::try_from(self.syncs.under_way()).unwrap_or(u32::MAX),
            peak_rss_bytes: agent.peak_rss_bytes,
            wanted: u32::try_from(standing.wanted).unwrap_or(u32::MAX),
            in_step: standing.known && standing.is_complete(),
            last_sync: table.last(),
            engine_restarts: agent.engine_restarts,
            lacking: table.lacking().take(MAX_LACKING).collect(),
        }
    }
}
