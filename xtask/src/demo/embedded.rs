//! `cargo xtask demo --embedded`: both agents with folders in place of engines, without Docker or root.
//!
//! ```text
//! <state>/embedded/source          the demo's images, an OCI layout
//!                  host            the host agent's state
//!                  <range>/images  the range's engine: an OCI layout
//!                  <range>/state   its dind agent's state and socket
//! ```
//! The agents use Unix sockets and files; nothing listens on a network. The demo fills three ranges,
//! moves one changed layer, finds and repairs a damaged byte, and moves nothing when nothing is
//! missing. At the end `sha256sum` checks all files.

mod check;
mod images;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::process::exit::Exit;
use ::process::output::{count, size, time};
use anyhow::{Context as _, Result, bail};
use control::Pattern;
use control::admin::NewRange;
use control::range::{Reach, SyncEvent};
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use longshore::interrupt::until_interrupted;
use longshore::range::reports;
use proto::{AdminClient, Endpoint, RangeClient};
use range::{EventKind, ImageReport, Outcome, RangeName, RangeReport, Reference, Report};

use self::images::{Edition, Layout};
use self::process::Agent;
use crate::build::{self, Agents};
use crate::setup::State;

/// Names of the ranges.
const RANGES: [&str; 3] = ["embedded-1", "embedded-2", "embedded-3"];

/// Timeout for an agent to reach its engine and the host agent.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between checks of a starting agent.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the demo.
///
/// # Errors
/// The demo could not run.
pub(crate) fn run() -> Result<Exit> {
    let started = Instant::now();
    let state = State::open()?;
    let agents = build::agents()?;
    process::stop_leftovers(&state)?;
    let root = state.embedded();
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("emptying {}", root.display()));
        }
        _ => {}
    }
    let shown = until_interrupted(show(&state, &root, &agents))?;
    let Some(whole) = shown else { return Ok(Exit::Interrupted) };
    println!("\n{} in total; the agents have ended", time(started.elapsed()));
    if whole {
        println!("{}", next_steps(&root));
    }
    Ok(Exit::whole(whole))
}

/// Runs all steps; returns whether everything succeeded.
async fn show(state: &State, root: &Path, agents: &Agents) -> Result<bool> {
    let source = root.join("source");
    let made = images::make(&source, Edition::First)?;
    println!(
        "source: {} with {} ({}) in {}",
        count(made.references.len(), "image"),
        count(made.layers.len(), "layer"),
        size(made.layers.iter().map(|layer| layer.size).sum()),
        source.display(),
    );
    let fleet = Fleet::start(state, root, agents).await?;
    let mut whole = true;

    whole &= fleet.step("All images move into every range", &made, &Expected::All).await?;
    let changed = images::make(&source, Edition::Second)?;
    whole &= fleet
        .step(
            "One layer of longshore-demo/web:1 changed: only that layer moves",
            &changed,
            &Expected::Layer(changed.app.size),
        )
        .await?;
    fleet.damage(&changed)?;
    whole &= fleet
        .step(
            &format!(
                "One byte on the disk of {} is damaged: the proof finds and repairs it",
                RANGES[1]
            ),
            &changed,
            &Expected::Repair(RANGES[1], changed.base.size),
        )
        .await?;
    whole &= fleet.step("Nothing changed: nothing moves", &changed, &Expected::Nothing).await?;
    println!("\nCheck with sha256sum of every file in every folder:");
    for range in &fleet.ranges {
        whole &= check::with_sha256sum(&range.name, &range.images, &source)?;
    }
    fleet.end();
    Ok(whole)
}

/// The bytes that a step should move.
enum Expected {
    /// Every layer of every image into each range, once.
    All,
    /// This number of bytes into each range.
    Layer(u64),
    /// This number of bytes into one range, and none into the others.
    Repair(&'static str, u64),
    Nothing,
}

impl Expected {
    fn bytes(&self, range: &RangeName, made: &Layout) -> u64 {
        match self {
            Self::All => made.layers.iter().map(|layer| layer.size).sum(),
            Self::Layer(bytes) => *bytes,
            Self::Repair(damaged, bytes) if range.as_str() == *damaged => *bytes,
            Self::Repair(..) | Self::Nothing => 0,
        }
    }
}

/// The running agents.
struct Fleet {
    ranges: Vec<Range>,
    /// Dropped after the ranges' agents, in the order of the fields.
    host: Agent,
}

struct Range {
    name: RangeName,
    images: PathBuf,
    client: RangeClient,
    agent: Agent,
}

impl Fleet {
    async fn start(state: &State, root: &Path, agents: &Agents) -> Result<Self> {
        let started = Instant::now();
        let host_state = root.join("host");
        let admin = host_state.join("admin.sock");
        let host = Agent::start(
            state,
            "host",
            &agents.host_agent,
            &[
                "serve".as_ref(),
                "--inspect=off".as_ref(),
                "--engine".as_ref(),
                format!("oci:{}", root.join("source").display()).as_ref(),
                "--state-dir".as_ref(),
                host_state.as_os_str(),
            ],
        )?;
        host.wait_for(&admin)?;
        let client = AdminClient::new(Endpoint::unix(&admin));
        let ranges = RANGES.map(|name| Range::start(state, root, agents, &client, name));
        let ranges = try_join_all(ranges).await?;
        println!(
            "agents: one host agent and {}, started in {}, connected by Unix sockets only",
            count(ranges.len(), "dind agent"),
            time(started.elapsed())
        );
        Ok(Self { ranges, host })
    }

    /// Syncs every range and prints the report; returns whether it moved what was expected.
    async fn step(&self, title: &str, made: &Layout, expected: &Expected) -> Result<bool> {
        println!("\n{title}:");
        let started = Instant::now();
        let synced = try_join_all(self.ranges.iter().map(|range| range.sync(&made.references)));
        let report = Report { ranges: synced.await? };
        print!("{}", reports(&report, started.elapsed()));
        let mut whole = report.is_whole();
        for range in &report.ranges {
            let moved: u64 = range.images.iter().map(|image| image.bytes_moved).sum();
            let expected = expected.bytes(&range.range, made);
            if moved != expected {
                println!("{}: {} moved, {} expected", range.range, size(moved), size(expected));
                whole = false;
            }
        }
        Ok(whole)
    }

    /// Changes one byte of the base layer in one range, as a failing disk does.
    fn damage(&self, made: &Layout) -> Result<()> {
        let range = &self.ranges[1];
        let path = range.images.join("blobs/sha256").join(made.base.digest.hex());
        let mut bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    fn end(self) {
        let Self { ranges, host } = self;
        // An agent waits for its clients: drop the clients first, then end all agents at once.
        let agents: Vec<Agent> = ranges.into_iter().map(|range| range.agent).collect();
        agents.iter().for_each(Agent::terminate);
        drop(agents);
        drop(host);
    }
}

impl Range {
    async fn start(
        state: &State,
        root: &Path,
        agents: &Agents,
        host: &AdminClient,
        name: &str,
    ) -> Result<Self> {
        let range: RangeName = name.parse().context("parsing a range's name")?;
        let range = NewRange { grants: vec![Pattern::all()], ..NewRange::named(range) };
        let served = host.add_range(&range).await.context("adding a range to the host agent")?;
        let images = root.join(name).join("images");
        let own = root.join(name).join("state");
        let socket = own.join("agent.sock");
        let agent = Agent::start(
            state,
            name,
            &agents.dind_agent,
            &[
                "serve".as_ref(),
                "--engine".as_ref(),
                format!("oci:{}", images.display()).as_ref(),
                "--host".as_ref(),
                format!("unix://{}", served.socket_path.display()).as_ref(),
                "--listen".as_ref(),
                socket.as_os_str(),
                "--state-dir".as_ref(),
                own.as_os_str(),
                "--name".as_ref(),
                name.as_ref(),
            ],
        )?;
        agent.wait_for(&socket)?;
        let client = RangeClient::new(Endpoint::unix(&socket));
        let range = Self { name: range.name, images, client, agent };
        range.until_ready().await?;
        Ok(range)
    }

    async fn until_ready(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let status =
                self.client.status().await.context("asking a dind agent for its status")?;
            match (status.engine, status.host) {
                (Reach::Up(_), Reach::Up(())) => return Ok(()),
                (engine, host) if READY_TIMEOUT < started.elapsed() => {
                    bail!("{} is not ready: engine {engine:?}, host {host:?}", self.name)
                }
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    async fn sync(&self, references: &[Reference]) -> Result<RangeReport> {
        let status = self.client.status().await.context("asking a dind agent for its status")?;
        let engine = match status.engine {
            Reach::Up(engine) => Some(engine),
            Reach::Down(_) | Reach::Unknown => None,
        };
        let mut events = self.client.sync(references).await.context("starting a sync")?;
        let mut images: Vec<ImageReport> = Vec::new();
        while let Some(event) = events.try_next().await.context("following a sync")? {
            if let SyncEvent::Image(event) = event
                && let EventKind::Done(report) = event.kind
            {
                images.push(report);
            }
        }
        let place =
            |image: &ImageReport| references.iter().position(|name| *name == image.reference);
        images.sort_by_key(place);
        let failed = images.iter().any(|image| image.outcome == Outcome::Failed);
        let error = (images.len() != references.len() && !failed)
            .then(|| "the sync ended without a result for some images".to_owned());
        Ok(RangeReport {
            range: self.name.clone(),
            engine,
            provision: None,
            stages: Vec::new(),
            images,
            error,
        })
    }
}

/// Suggestions for what to try next.
fn next_steps(root: &Path) -> String {
    let root = root.display();
    format!(
        "The folders remain. Try next:\n  \
         ls {root}/{}/images/blobs/sha256\n  \
         skopeo inspect oci:{root}/{}/images:docker.io/longshore-demo/web:1\n  \
         cargo xtask teardown          # removes everything",
        RANGES[0], RANGES[0]
    )
}
