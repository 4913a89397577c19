//! The context of one call: what all its ranges are made from, and who hears of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::RangeName;
use engine::docker::{ImageSettings, Powers};
use transfer::Digest;

use crate::error::RangeError;
use crate::event::{RangeEvent, RangeEventKind, RangeObserver};
use crate::feed::Feed;
use crate::isolation::Isolation;
use crate::project::Project;
use crate::settings::UpRequest;
use crate::slots::Slots;

/// Common parts of all ranges of one call.
#[derive(Clone)]
pub(crate) struct Recipe<'a> {
    pub(crate) request: &'a UpRequest,
    pub(crate) image: ImageSettings,
    pub(crate) isolation: Isolation,
    pub(crate) agent: Digest,
    /// Labels beside those of any range.
    pub(crate) more: BTreeMap<String, String>,
}

impl<'a> Recipe<'a> {
    /// The recipe for a request: looks at the range image, the agent's binary and this host.
    ///
    /// # Errors
    /// [`RangeError::NoRangeImage`], [`RangeError::AgentBinary`], [`RangeError::Isolation`],
    /// [`RangeError::Engine`].
    pub(crate) async fn of(project: &Project, request: &'a UpRequest) -> Result<Self, RangeError> {
        let image = project.owned.engine.image_settings(&request.range_image).await?;
        let image =
            image.ok_or_else(|| RangeError::NoRangeImage { image: request.range_image.clone() })?;
        let path = &project.settings.agent_binary;
        let unread = |source| RangeError::AgentBinary { path: path.clone(), source };
        let agent = Digest::of(&tokio::fs::read(path).await.map_err(unread)?);
        let isolation = Isolation::choose(project.settings.mode)?;
        Ok(Self { request, image, isolation, agent, more: BTreeMap::new() })
    }

    pub(crate) fn powers(&self) -> Powers {
        self.isolation.powers()
    }
}

/// Shared state of the ranges of one call.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) project: &'a Project,
    pub(crate) observer: &'a Arc<dyn RangeObserver>,
    pub(crate) slots: &'a Slots,
    pub(crate) feed: &'a Feed<'a>,
}

impl Context<'_> {
    /// Reports a detour of `range` to the observer.
    pub(crate) fn note(&self, range: &RangeName, text: String) {
        tracing::warn!(%range, "{text}");
        let kind = RangeEventKind::Noted(text);
        self.observer.observe(RangeEvent { range: range.clone(), kind });
    }
}
