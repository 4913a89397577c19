//! All ranges of one project: listed, waited for, worked in, removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use engine::docker::{ContainerState, Docker, ExecOutput, VolumeSummary};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::identity::RangeName;
use transfer::EngineInfo;

use crate::agents::{AgentStatus, HostAgent, RangeAgent};
use crate::container::{AGENT, IMAGE, Names, PROJECT, RANGE};
use crate::error::RangeError;
use crate::isolation::Isolation;
use crate::labels::Labels;
use crate::seed::SEED;
use crate::settings::{Selection, Settings};
use crate::status::{RangeState, RangeStatus, Removal};

/// How often a range that comes up is asked whether it is there yet.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// How many lines of the log of a range that ended go into the error.
const LOG_LINES: usize = 12;

/// The ranges of one project.
#[derive(Debug)]
pub struct Ranges {
    pub(crate) settings: Settings,
    pub(crate) engine: Docker,
    pub(crate) host_agent: HostAgent,
}

impl Ranges {
    /// Connects to the engine that runs the ranges. The host agent is asked when it is first
    /// needed: listing, working in and removing ranges goes without it.
    ///
    /// # Errors
    /// [`RangeError::Engine`] when the engine does not answer, [`RangeError::HostAgent`] when its
    /// address is none.
    pub async fn connect(settings: Settings) -> Result<Self, RangeError> {
        Ok(Self {
            engine: Docker::connect(&settings.runner_engine).await?,
            host_agent: HostAgent::at(&settings.host_agent)?,
            settings,
        })
    }

    /// How ranges that are made now are allowed to run an engine.
    ///
    /// # Errors
    /// [`RangeError::Isolation`].
    pub fn isolation(&self) -> Result<Isolation, RangeError> {
        Ok(Isolation::choose(self.settings.mode)?)
    }

    /// How each range of the project is, sorted by name, those that are half made included.
    ///
    /// # Errors
    /// [`RangeError::Engine`]. A range that does not answer is listed as such.
    pub async fn list(&self) -> Result<Vec<RangeStatus>, RangeError> {
        self.list_of(&Selection::All).await
    }

    /// The same for some of them.
    ///
    /// # Errors
    /// [`RangeError::Engine`]. A range that does not answer, or is not there, is listed as such.
    pub async fn list_of(&self, selection: &Selection) -> Result<Vec<RangeStatus>, RangeError> {
        let names = self.names(selection).await?;
        let statuses = names.into_iter().map(|range| self.status(range));
        let concurrency = self.settings.concurrency.max(1);
        futures::stream::iter(statuses).buffered(concurrency).try_collect().await
    }

    /// Waits until the agent and the engine of `range` answer, and says which engine it is.
    ///
    /// # Errors
    /// [`RangeError::Unknown`], [`RangeError::Ended`] with the end of its log,
    /// [`RangeError::NotReady`] after [`Settings::ready_timeout`].
    pub async fn wait_ready(&self, range: &RangeName) -> Result<EngineInfo, RangeError> {
        self.ready(range, self.settings.ready_timeout).await
    }

    /// Runs a command in the range's container, at most `limit`: `docker …` there speaks to the
    /// engine inside.
    ///
    /// # Errors
    /// [`RangeError::Unknown`], [`RangeError::Stopped`], [`RangeError::Engine`]. A command that
    /// fails is not an error: see its exit code.
    pub async fn exec(
        &self,
        range: &RangeName,
        command: &[&str],
        limit: Duration,
    ) -> Result<ExecOutput, RangeError> {
        self.running(range).await?;
        let container = Names::of(&self.settings.project, range).container;
        Ok(self.engine.exec(&container, command, limit).await?)
    }

    /// Removes ranges with all that belongs to them, several at once: container, volumes, the host
    /// agent's listener and what it wanted; with all ranges their seeds go too. Nothing without the
    /// project's label is touched.
    ///
    /// Naming a range of which nothing is there is not an error; see [`Removal::found`].
    ///
    /// # Errors
    /// When the ranges cannot be listed. What goes wrong with one is in its [`Removal`].
    pub async fn down(&self, selection: &Selection) -> Result<Vec<Removal>, RangeError> {
        let names = self.names(selection).await?;
        let removals = names.into_iter().map(|range| async move {
            match self.remove(&range).await {
                Ok(found) => Removal { range, found, error: None },
                Err(error) => Removal { range, found: true, error: Some(error.explain()) },
            }
        });
        let concurrency = self.settings.concurrency.max(1);
        let mut removals: Vec<_> =
            futures::stream::iter(removals).buffered(concurrency).collect().await;
        if *selection == Selection::All {
            removals.extend(self.prune_seeds(0).await?);
        }
        Ok(removals)
    }

    /// The names that a selection means: for all, of every range of which anything is there.
    pub(crate) async fn names(&self, selection: &Selection) -> Result<Vec<RangeName>, RangeError> {
        let wanted = match selection {
            Selection::Names(names) => return Ok(names.clone()),
            Selection::All => &Labels::default(),
            Selection::Labelled(labels) => labels,
        };
        let label = format!("{PROJECT}={}", self.settings.project);
        let containers = self.engine.containers(&label).await?;
        let volumes = self.engine.volumes(&label).await?;
        let labels = containers.into_iter().map(|container| container.labels);
        let labels = labels.chain(volumes.into_iter().map(|volume| volume.labels));
        // What a seed is made of and from is no range of anybody's.
        let meant = labels
            .filter(|labels| !labels.contains_key(SEED) && Labels::given(labels).include(wanted));
        let names: BTreeSet<RangeName> =
            meant.filter_map(|labels| labels.get(RANGE)?.parse().ok()).collect();
        Ok(names.into_iter().collect())
    }

    /// The agent of `range`, when its container runs.
    pub(crate) async fn running(&self, range: &RangeName) -> Result<RangeAgent, RangeError> {
        match self.container(range).await? {
            Some(container) if is_up(&container) => self.agent_in(range, &container),
            Some(_) => Err(RangeError::Stopped { range: range.clone() }),
            None => Err(RangeError::Unknown { range: range.clone() }),
        }
    }

    /// Waits at most `limit` until agent and engine of `range` answer.
    pub(crate) async fn ready(
        &self,
        range: &RangeName,
        limit: Duration,
    ) -> Result<EngineInfo, RangeError> {
        let started = Instant::now();
        loop {
            let Some(container) = self.container(range).await? else {
                return Err(RangeError::Unknown { range: range.clone() });
            };
            if !is_up(&container) {
                return Err(self.ended(range, &container).await);
            }
            let reason = match self.agent_in(range, &container)?.status().await {
                Ok(AgentStatus { engine: Some(engine), .. }) => return Ok(engine),
                Ok(status) => status.reason,
                Err(error) => transfer::explain(&error),
            };
            if limit <= started.elapsed() {
                let seconds = limit.as_secs();
                return Err(RangeError::NotReady { range: range.clone(), seconds, reason });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The error about a range that does not run any more, with the end of its log.
    async fn ended(&self, range: &RangeName, container: &ContainerState) -> RangeError {
        let log = self.engine.container_log(&container.id, LOG_LINES).await.unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end().to_owned();
        RangeError::Ended { range: range.clone(), exit_code: container.exit_code, log }
    }

    /// How one range is. What does not answer is a state, not an error.
    async fn status(&self, range: RangeName) -> Result<RangeStatus, RangeError> {
        let container = self.container(&range).await?;
        let mut status = RangeStatus {
            state: RangeState::Unmade,
            reason: Some("it has no container; bring it up, or take it down".to_owned()),
            range_image: None,
            labels: Labels::default(),
            engine: None,
            step: None,
            images: Vec::new(),
            range,
        };
        let Some(container) = container else { return Ok(status) };
        status.range_image = container.labels.get(IMAGE).cloned();
        status.labels = Labels::given(&container.labels);
        if !container.is_running() {
            status.state = RangeState::Stopped;
            status.reason = Some(format!("its container is {}; bring it up", container.state));
            return Ok(status);
        }
        let agent = self.agent_in(&status.range, &container)?;
        (status.state, status.reason) = match agent.status().await {
            Ok(AgentStatus { engine: Some(engine), step, .. }) => {
                status.engine = Some(engine);
                status.step = Some(step);
                match agent.images().await {
                    Ok(images) => {
                        status.images = images;
                        (RangeState::Ready, None)
                    }
                    Err(error) => (RangeState::Unreachable, Some(error.explain())),
                }
            }
            Ok(AgentStatus { reason, step, .. }) => {
                status.step = Some(step);
                (RangeState::Starting, Some(reason))
            }
            Err(error) => (RangeState::Unreachable, Some(error.explain())),
        };
        Ok(status)
    }

    /// Removes what there is of a range, and says whether there was anything.
    async fn remove(&self, range: &RangeName) -> Result<bool, RangeError> {
        let names = Names::of(&self.settings.project, range);
        let container = self.container(range).await?;
        let volumes = self.engine.volumes(&format!("{RANGE}={range}")).await?;
        let mut found = container.is_some();
        self.remove_own_container(range, &names.cloning()).await?;
        if let Some(container) = container {
            self.engine.remove_container(&container.id).await?;
        }
        // The sign that the others are half made goes last.
        let half = names.half();
        for name in names.volumes().into_iter().chain([half.as_str()]) {
            let ours =
                |volume: &&VolumeSummary| volume.name == name && self.owns(range, &volume.labels);
            if let Some(volume) = volumes.iter().find(ours) {
                self.engine.remove_volume(&volume.name).await?;
                found = true;
            }
        }
        found |= self.host_agent.remove(range).await?;
        Ok(found)
    }

    /// The container of `range`; `None` when there is none.
    pub(crate) async fn container(
        &self,
        range: &RangeName,
    ) -> Result<Option<ContainerState>, RangeError> {
        let name = Names::of(&self.settings.project, range).container;
        self.own_container(range, &name).await
    }

    /// The agent in a container of ours.
    fn agent_in(
        &self,
        range: &RangeName,
        container: &ContainerState,
    ) -> Result<RangeAgent, RangeError> {
        let endpoint = container.labels.get(AGENT).map_or("", String::as_str);
        RangeAgent::at(range, endpoint)
    }
}

/// What a process ends with when it was killed.
const KILLED: i64 = 128 + 9;

/// Whether a range's program runs, or was killed and is about to be started again by its engine. One
/// that ended by itself will do so again.
pub(crate) fn is_up(container: &ContainerState) -> bool {
    container.is_running() || (container.state == "restarting" && container.exit_code == KILLED)
}
