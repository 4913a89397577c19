//! A fleet of unchanged ranges: real agents over Unix sockets, with simulated engines in this process.
//!
//! ```text
//!   FakeDocker ──► host agent ══ a Unix socket per range ══► dind agent ──► FakeDocker     × ranges
//! ```
//! It measures how long Longshore takes to find that nothing has to move.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use control::Pattern;
use control::admin::NewRange;
use control::range::SyncEvent;
use engine::fixture::FakeDocker;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use process::shutdown::Shutdown;
use proto::{AdminClient, Endpoint, RangeClient};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use transfer::event::EventKind;
use transfer::{Event, Outcome, Reference, StoreKind, fixture};

/// Layers per image, about as many as real images have.
const LAYERS: usize = 10;

/// Timeout for agents to start and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Size of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ranges, at least one.
    pub ranges: usize,
    /// Images in each, at least one.
    pub images: usize,
}

/// A running fleet whose ranges are in sync.
pub struct Fleet {
    references: Vec<Reference>,
    clients: Vec<RangeClient>,
    /// The host's engine, then the engine of each range.
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
    /// Starts all agents and engines. Range engines use this store and already have every image.
    ///
    /// # Errors
    /// An agent fails to start.
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
            let range = NewRange { grants: vec![Pattern::all()], ..NewRange::named(name) };
            let range = admin.add_range(&range).await.context("adding a range")?;
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

    /// Syncs all ranges at once and checks that every image was proven and none moved. Returns the
    /// time until the last range reported.
    ///
    /// # Errors
    /// A sync fails, or an image changed.
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

    /// Requests answered so far by the host's engine, and by all range engines together.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        let ranges = self.engines[1..].iter().map(FakeDocker::requests).sum();
        (self.engines[0].requests(), ranges)
    }

    /// Ends every agent.
    ///
    /// # Errors
    /// An agent does not end in time, or ended with an error.
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
        command => anyhow::bail!("expected the serve command, got {command:?}"),
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
        command => anyhow::bail!("expected the serve command, got {command:?}"),
    }
}
