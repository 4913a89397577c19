//! A project: what all work on its ranges needs.

use engine::docker::Docker;

use crate::error::RangeError;
use crate::host::HostAgent;
use crate::lock::Locks;
use crate::ownership::Owned;
use crate::settings::Settings;

/// One project on one engine, with its host agent.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) settings: Settings,
    /// Its containers and volumes.
    pub(crate) owned: Owned,
    pub(crate) host: HostAgent,
    pub(crate) locks: Locks,
}

impl Project {
    /// Connects to the engine that runs the ranges; the host agent is connected when it is first
    /// needed.
    ///
    /// # Errors
    /// [`RangeError::Engine`], and [`RangeError::HostAgent`] when its address is invalid.
    pub(crate) async fn connect(settings: Settings) -> Result<Self, RangeError> {
        let engine = Docker::connect(&settings.runner_engine).await?;
        Ok(Self {
            owned: Owned::new(engine, &settings.project),
            host: HostAgent::at(&settings.host_agent)?,
            locks: Locks::in_folder(&settings.locks),
            settings,
        })
    }

    /// Number of ranges worked on at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.settings.concurrency.max(1)
    }
}
