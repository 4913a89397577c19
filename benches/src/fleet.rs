//! A fleet of ranges in which nothing changed: a host agent and every range's agent as they are, over
//! Unix sockets, with engines inside this process that do no work of their own.
//!
//! ```text
//!   FakeDocker ──► host agent ══ a Unix socket per range ══► dind agent ──► FakeDocker     × ranges
//! ```
//! What is measured is what Longshore spends to find out that there is nothing to do.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use engine::fixture::FakeDocker;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use process::shutdown::Shutdown;
use proto::control::SyncEvent;
use proto::{AdminClient, Endpoint, RangeClient};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use transfer::event::EventKind;
use transfer::{Event, Outcome, Reference, StoreKind, fixture};

/// Layers of each image: about what images in use have.
const LAYERS: usize = 10;

/// How long agents may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How large a fleet is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ranges, at least one.
    pub ranges: usize,
    /// Images in each, at least one.
    pub images: usize,
}

/// A fleet that is up, and in step.
pub struct Fleet {
    references: Vec<Reference>,
    clients: Vec<RangeClient>,
    /// Of the host first, then of each range.
    engines: Vec<FakeDocker>,
    agents: Vec<JoinHandle<Result<process::exit::Exit>>>,
    shutdown: Shutdown,
    _folder: TempDir,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("ranges", &self.clients.len()).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Starts everything; each range's engine, with this store, has every image already.
    ///
    /// # Errors
    /// An agent does not come up.
    pub async fn start(size: Size, store: StoreKind) -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for sockets")?;
        let engines: Vec<_> = std::iter::once(FakeDocker::start(StoreKind::Graphdriver))
            .chain((0..size.ranges.max(1)).map(|_| FakeDocker::start(store)))
            .collect();
        let references: Vec<Reference> = (0..size.images.max(1))
            .map(|number| format!("app-{number}:1").parse().context("naming an image"))
            .collect::<Result<_>>()?;
        for (seed, reference) in (1..).zip(&references) {
            let (image, blobs) = fixture::image(seed, &[100; LAYERS]);
            engines.iter().for_each(|engine| engine.add(&image, &blobs, reference));
        }
        let mut fleet = Self {
            references,
            clients: Vec::new(),
            engines,
            agents: Vec::new(),
            shutdown: Shutdown::default(),
            _folder: folder,
        };
        fleet.serve().await?;
        Ok(fleet)
    }

    async fn serve(&mut self) -> Result<()> {
        let state = self._folder.path().join("host");
        let host = host_agent::serve(host(&state, &self.engines[0])?, self.shutdown.clone());
        self.agents.push(tokio::spawn(host));
        let admin = AdminClient::new(Endpoint::unix(state.join("admin.sock")));
        for (number, engine) in self.engines[1..].iter().enumerate() {
            let name = format!("range-{number}").parse().context("naming a range")?;
            let range = admin.add_range(&name).await.context("adding a range")?;
            let folder = self._folder.path().join(number.to_string());
            let listen = folder.join("agent.sock");
            let config = dind(&folder, &listen, engine, &range.socket_path)?;
            self.agents.push(tokio::spawn(dind_agent::serve(config, self.shutdown.clone())));
            self.clients.push(RangeClient::new(Endpoint::unix(listen)));
        }
        let up = try_join_all(self.clients.iter().map(RangeClient::status));
        tokio::time::timeout(PATIENCE, up).await.context("waiting for the agents")??;
        Ok(())
    }

    /// Syncs every range at once, and checks that each image was proven and none moved: how long it
    /// took until the last had said so.
    ///
    /// # Errors
    /// A sync fails, or something was to do.
    pub async fn sync(&self) -> Result<Duration> {
        let begun = Instant::now();
        try_join_all(self.clients.iter().map(|client| self.sync_one(client))).await?;
        Ok(begun.elapsed())
    }

    async fn sync_one(&self, client: &RangeClient) -> Result<()> {
        let events = client.sync(&self.references).await?;
        let reports: Vec<_> = events
            .try_filter_map(|event| async move {
                Ok(match event {
                    SyncEvent::Image(Event { kind: EventKind::Done(report), .. }) => Some(report),
                    _ => None,
                })
            })
            .try_collect()
            .await?;
        let unchanged = reports.iter().filter(|report| {
            report.outcome == Outcome::Skipped && report.proven && report.bytes_moved == 0
        });
        let (unchanged, all) = (unchanged.count(), self.references.len());
        ensure!(unchanged == all, "only {unchanged} of {all} images were unchanged: {reports:?}");
        Ok(())
    }

    /// Requests that the engines answered so far: the host's, and those of all ranges together.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        let ranges = self.engines[1..].iter().map(FakeDocker::requests).sum();
        (self.engines[0].requests(), ranges)
    }

    /// Ends every agent.
    ///
    /// # Errors
    /// One does not end, or ended with an error.
    pub async fn end(self) -> Result<()> {
        self.shutdown.drain();
        let ended = futures::stream::iter(self.agents).then(|agent| agent).collect::<Vec<_>>();
        for agent in tokio::time::timeout(PATIENCE, ended).await.context("ending the agents")? {
            agent.context("an agent panicked")??;
        }
        Ok(())
    }
}

fn host(state: &Path, engine: &FakeDocker) -> Result<host_agent::config::Serve> {
    let line = ["host", "serve", "--inspect", "off", "--engine", &engine.address(), "--state-dir"];
    let line = line.map(Into::into).into_iter().chain([state.as_os_str().to_owned()]);
    match host_agent::config::Config::try_parse_from(line)?.command {
        host_agent::config::Command::Serve(serve) => Ok(serve),
        command => anyhow::bail!("the line says serve: {command:?}"),
    }
}

fn dind(
    folder: &Path,
    listen: &Path,
    engine: &FakeDocker,
    host: &Path,
) -> Result<dind_agent::config::Serve> {
    let (engine, host) = (engine.address(), format!("unix://{}", host.display()));
    let (listen, state) = (listen.display().to_string(), folder.display().to_string());
    let line = ["dind", "serve", "--engine", &engine, "--host", &host, "--listen", &listen];
    let line = line.into_iter().chain(["--state-dir", &state, "--name", "range"]);
    match dind_agent::config::Config::try_parse_from(line)?.command {
        dind_agent::config::Command::Serve(serve) => Ok(serve),
        command => anyhow::bail!("the line says serve: {command:?}"),
    }
}
