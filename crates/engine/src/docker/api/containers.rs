//! Containers and volumes: what providing ranges needs of an engine, free of bollard's types.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary as Listed, ExecConfig, Volume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures::StreamExt as _;

use crate::docker::api::error::EngineError;
use crate::docker::api::spec::ContainerSpec;
use crate::docker::api::{Docker, UNARY_DEADLINE};

/// The most that is kept of a command's output or of a container's log, in bytes: they are for
/// people to read.
const MAX_OUTPUT: usize = 4 << 20;

/// A container as a list tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    /// The engine's ID of it.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// `created`, `running`, `exited`, …
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// The engine's ID of it.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// `created`, `running`, `exited`, …
    pub state: String,
    /// What its last program ended with; 0 while it runs and before it ran.
    pub exit_code: i64,
    /// The process on the engine's host; absent unless it runs.
    pub pid: Option<u32>,
    /// The result of its health check; absent where it has none.
    pub health: Option<String>,
    /// The image that it was made from, by ID.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Addresses on the networks that it is in, by network. Empty addresses are left out.
    pub addresses: BTreeMap<String, String>,
}

impl ContainerState {
    /// Whether its program runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// Its folder on the engine's host.
    pub mountpoint: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What an image says about containers made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// The engine's ID of it.
    pub id: String,
    /// Its entry point; empty when it has none.
    pub entrypoint: Vec<String>,
    /// Its command, or the entry point's arguments; empty when it has none.
    pub cmd: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a command in a container printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 126 and 127 are the engine's own for what could not be started.
    pub exit_code: i64,
    /// Standard output; cut off after some mebibytes.
    pub stdout: Vec<u8>,
    /// Standard error; cut off after some mebibytes.
    pub stderr: Vec<u8>,
}

impl Docker {
    /// Creates a container and returns its ID. It does not run yet.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] without the image, a conflict where the name is taken.
    pub async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let mut options = CreateContainerOptionsBuilder::new();
        if !spec.name.is_empty() {
            options = options.name(&spec.name);
        }
        let call = self.client.create_container(Some(options.build()), spec.body());
        Ok(self.call("creating a container", call).await?.id)
    }

    /// Starts a container. One that runs already is left as it is.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let call = self.client.start_container(id, None::<StartContainerOptions>);
        self.call("starting a container", call).await
    }

    /// Asks a container to stop, and kills it after `grace`. One that is gone or does not run is
    /// left as it is.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        const ACTION: &str = "stopping a container";
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        // The engine answers when the container has stopped: the grace is no part of the deadline.
        let limit = grace.saturating_add(UNARY_DEADLINE);
        let client = self.client.clone().with_timeout(limit);
        let stopped = client.stop_container(id, Some(options)).await;
        gone_is_fine(
            stopped.map_err(|e| EngineError::from_bollard(self.address(), ACTION, limit, e)),
        )
    }

    /// Removes a container, killing it if it runs, with its anonymous volumes. One that is gone is
    /// not an error.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let call = self.client.remove_container(id, Some(options));
        gone_is_fine(self.call("removing a container", call).await)
    }

    /// The containers with `label`, given as `key` or `key=value`, running or not. Sorted by name.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn containers(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        self.containers_by("label", label).await
    }

    /// The containers that a volume is mounted in, running or not. Sorted by name.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn users_of_volume(&self, name: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        self.containers_by("volume", name).await
    }

    async fn containers_by(
        &self,
        filter: &str,
        value: &str,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([(filter, vec![value])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let call = self.client.list_containers(Some(options));
        let listed = self.call("listing containers", call).await?;
        let mut containers: Vec<_> = listed.into_iter().map(summary).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// A container by ID or name; `None` when there is none.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn container(&self, id: &str) -> Result<Option<ContainerState>, EngineError> {
        let call = self.client.inspect_container(id, None::<InspectContainerOptions>);
        gone_is_none(self.call("inspecting a container", call).await.map(state))
    }

    /// The last `lines` lines that a container printed, both streams as they came.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn container_log(&self, id: &str, lines: usize) -> Result<Vec<u8>, EngineError> {
        const ACTION: &str = "reading a container's log";
        let lines = lines.to_string();
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines).build();
        let mut stream = self.client.logs(id, Some(options));
        let mut log = Vec::new();
        while let Some(piece) = self.call(ACTION, async { stream.next().await.transpose() }).await?
        {
            keep(&mut log, &piece.into_bytes());
        }
        Ok(log)
    }

    /// Runs a command in a running container and waits for its end, at most `limit`.
    ///
    /// # Errors
    /// [`EngineError::TimedOut`] when it takes longer; the command is then left to itself.
    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        limit: Duration,
    ) -> Result<ExecOutput, EngineError> {
        const ACTION: &str = "running a command in a container";
        let config = ExecConfig {
            cmd: Some(command.iter().map(ToString::to_string).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.call(ACTION, self.client.create_exec(id, config)).await?.id;
        let mut output = ExecOutput { exit_code: 0, stdout: Vec::new(), stderr: Vec::new() };
        let failed = |e| EngineError::from_bollard(self.address(), ACTION, limit, e);
        let run = async {
            let started = self.client.start_exec(&exec, None).await.map_err(failed)?;
            if let StartExecResults::Attached { output: mut stream, .. } = started {
                while let Some(piece) = stream.next().await {
                    match piece.map_err(failed)? {
                        LogOutput::StdErr { message } => keep(&mut output.stderr, &message),
                        piece => keep(&mut output.stdout, &piece.into_bytes()),
                    }
                }
            }
            Ok(())
        };
        tokio::time::timeout(limit, run)
            .await
            .unwrap_or_else(|_| Err(EngineError::timed_out(self.address(), ACTION, limit)))?;
        let ended = self.call(ACTION, self.client.inspect_exec(&exec)).await?;
        output.exit_code = ended.exit_code.unwrap_or(-1);
        Ok(output)
    }

    /// Creates a named volume; one that is there already keeps its labels.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn create_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let request = VolumeCreateRequest {
            name: Some(name.into()),
            labels: Some(labels.clone().into_iter().collect()),
            ..Default::default()
        };
        self.call("creating a volume", self.client.create_volume(request)).await.map(|_| ())
    }

    /// The volumes with `label`, given as `key` or `key=value`. Sorted by name.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn volumes(&self, label: &str) -> Result<Vec<VolumeSummary>, EngineError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = self.call("listing volumes", self.client.list_volumes(Some(options))).await?;
        let mut volumes: Vec<_> =
            listed.volumes.unwrap_or_default().into_iter().map(volume).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// A volume by name; `None` when there is none.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn volume(&self, name: &str) -> Result<Option<VolumeSummary>, EngineError> {
        let found = self.call("inspecting a volume", self.client.inspect_volume(name)).await;
        gone_is_none(found.map(volume))
    }

    /// Removes a volume. One that is gone is not an error.
    ///
    /// # Errors
    /// A conflict while a container uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let call = self.client.remove_volume(name, None::<RemoveVolumeOptions>);
        gone_is_fine(self.call("removing a volume", call).await)
    }

    /// What an image says of itself, by reference or ID; `None` when the engine does not have it.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn image_settings(&self, image: &str) -> Result<Option<ImageSettings>, EngineError> {
        let inspected = self.call("inspecting an image", self.client.inspect_image(image)).await;
        gone_is_none(inspected.map(|image| {
            let config = image.config.unwrap_or_default();
            ImageSettings {
                id: image.id.unwrap_or_default(),
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
                labels: config.labels.unwrap_or_default().into_iter().collect(),
            }
        }))
    }
}

fn summary(listed: Listed) -> ContainerSummary {
    let name = listed.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    ContainerSummary {
        id: listed.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        state: listed.state.map(|state| state.to_string()).unwrap_or_default(),
        labels: listed.labels.unwrap_or_default().into_iter().collect(),
    }
}

fn volume(found: Volume) -> VolumeSummary {
    VolumeSummary {
        name: found.name,
        mountpoint: found.mountpoint,
        labels: found.labels.into_iter().collect(),
    }
}

fn state(inspected: ContainerInspectResponse) -> ContainerState {
    let state = inspected.state.unwrap_or_default();
    let networks = inspected.network_settings.and_then(|n| n.networks).unwrap_or_default();
    let addresses = networks
        .into_iter()
        .filter_map(|(name, network)| Some((name, network.ip_address?)))
        .filter(|(_, address)| !address.is_empty())
        .collect();
    ContainerState {
        id: inspected.id.unwrap_or_default(),
        name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        state: state.status.map(|status| status.to_string()).unwrap_or_default(),
        exit_code: state.exit_code.unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        health: state.health.and_then(|h| h.status).map(|status| status.to_string()),
        image: inspected.image.unwrap_or_default(),
        labels: inspected.config.and_then(|c| c.labels).unwrap_or_default().into_iter().collect(),
        addresses,
    }
}

fn keep(kept: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_OUTPUT.saturating_sub(kept.len());
    kept.extend_from_slice(&piece[..piece.len().min(room)]);
}

fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

fn gone_is_none<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
