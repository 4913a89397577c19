//! What the agent answers: syncs, the engine's images, and how all of it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control::Caller;
use control::range::{
    ControlError, ImagePlan, RangeControl, RangeImage, RangeStatus, Reach, SyncEvent, VerifyEvent,
};
use engine::HeldImage;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use process::memory;
use process::supervise::Note;
use proto::RemoteHost;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use transfer::{EngineInfo, Reference};

use crate::engine::RangeEngine;
use crate::plan::plan;
use crate::syncs::Syncs;
use crate::verify::Checks;
use crate::wanted::Keeper;

/// How long a status waits for the engine or the host agent before it calls them silent: a person
/// who asks how things are should not wait for what is broken.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A range's agent, as the protocol sees it.
#[derive(Debug)]
pub struct Control {
    /// The range's engine.
    pub engine: Arc<RangeEngine>,
    /// The host agent.
    pub host: Arc<RemoteHost>,
    /// Syncs under way.
    pub syncs: Arc<Syncs>,
    /// Checks under way.
    pub(crate) checks: Arc<Checks>,
    /// What keeps the engine in step.
    pub(crate) keeper: Arc<Keeper>,
    /// When the agent began.
    pub started: Instant,
    /// Where a supervisor says how the engine has fared; there need not be one.
    pub note: PathBuf,
}

impl Control {
    async fn engine_reach(&self) -> Reach<EngineInfo> {
        let why = match timeout(ANSWER_WITHIN, self.engine.who()).await {
            Ok(Ok(info)) => return Reach::Up(info),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
            Err(_) => format!("the engine at {} did not answer in time", self.engine.address()),
        };
        let note = Note::read(&self.note).and_then(|note| note.explain());
        Reach::Down(note.map_or(why.clone(), |note| format!("{why}; {note}")))
    }

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
impl RangeControl for Control {
    async fn sync(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        Ok(ReceiverStream::new(self.syncs.begin(references)?).boxed())
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
        Ok(plan(&*self.host, &*self.engine, references).await)
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
        let (engine, host) = tokio::join!(self.engine_reach(), self.host_reach());
        let standing = self.keeper.standing();
        RangeStatus {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed(),
            engine,
            host,
            syncs: u32::try_from(self.syncs.under_way()).unwrap_or(u32::MAX),
            peak_rss_bytes: memory::peak_rss().unwrap_or(0),
            wanted: u32::try_from(standing.wanted).unwrap_or(u32::MAX),
            in_step: standing.known && standing.complete && standing.engine_up,
            last_sync: self.syncs.last(),
            engine_restarts: Note::read(&self.note).map_or(0, |note| note.restarts),
        }
    }
}
