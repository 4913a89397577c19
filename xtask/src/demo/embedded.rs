//! `cargo xtask demo --embedded`: the same pair of agents between folders, without Docker or root.
//!
//! ```text
//! <state>/embedded/source          images as an OCI layout, made here
//!                  host            the host agent's own state
//!                  <range>/images  the range's engine: an OCI layout
//!                  <range>/state   its dind agent's state, and its socket
//! ```
//! Every path is a Unix socket or a file; nothing listens on a network. What is shown: three ranges
//! filled, one layer changed and it alone moved, one byte of rot found by the proof and healed, and
//! nothing moved when nothing is missing. In the end `sha256sum` says whether it is all true.

mod check;
mod images;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use proto::control::{Reach, SyncEvent};
use proto::{AdminClient, Endpoint, RangeClient};
use range::{EventKind, ImageReport, Outcome, RangeName, RangeReport, Reference, Report};

use self::images::{Edition, Made};
use self::process::Agent;
use crate::build::{self, Agents};
use crate::exit::Exit;
use crate::range::{reports, until_interrupted};
use crate::setup::State;
use crate::text::{count, size};

/// The ranges.
const RANGES: [&str; 3] = ["embedded-1", "embedded-2", "embedded-3"];

/// How long an agent may take until its engine and the host agent answer.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at an agent that starts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does it all, and says how it went.
///
/// # Errors
/// When it could not be done at all.
pub(crate) fn run() -> Result<Exit> {
    let started = Instant::now();
    let state = State::open()?;
    let agents = build::agents()?;
    process::end_forgotten(&state)?;
    let root = state.embedded();
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("emptying {}", root.display()));
        }
        _ => {}
    }
    let shown = until_interrupted(show(&state, &root, &agents))?;
    let Some(whole) = shown else { return Ok(Exit::Interrupted) };
    println!("\n{:.1} s in all; the agents have ended", started.elapsed().as_secs_f64());
    if whole {
        println!("{}", what_next(&root));
    }
    Ok(Exit::whole(whole))
}

/// The way of everything; whether it all was as it should be.
async fn show(state: &State, root: &Path, agents: &Agents) -> Result<bool> {
    let source = root.join("source");
    let made = images::make(&source, Edition::First)?;
    println!(
        "images: {} of {} in {}, {} of layers",
        count(made.references.len(), "name"),
        count(made.layers.len(), "layer"),
        source.display(),
        size(made.layers.iter().map(|layer| layer.size).sum()),
    );
    let site = Site::start(state, root, agents).await?;
    let mut whole = true;

    whole &= site.step("All images into every range", &made, &Expected::All).await?;
    let changed = images::make(&source, Edition::Second)?;
    whole &= site
        .step(
            "One layer of longshore-demo/web:1 was changed: that layer alone moves",
            &changed,
            &Expected::Layer(changed.app.size),
        )
        .await?;
    site.damage(&changed)?;
    whole &= site
        .step(
            &format!("One byte was changed on the disk of {}: the proof finds it", RANGES[1]),
            &changed,
            &Expected::Heals(RANGES[1], changed.base.size),
        )
        .await?;
    whole &= site.step("Once more: nothing moves", &changed, &Expected::Nothing).await?;
    println!("\nThe same by sha256sum, over every file of every folder:");
    for range in &site.ranges {
        whole &= check::by_sha256sum(&range.name, &range.images, &source)?;
    }
    site.end();
    Ok(whole)
}

/// What a step should move.
enum Expected {
    /// Every layer of every image into each range, each once.
    All,
    /// So many bytes into each range.
    Layer(u64),
    /// So many bytes into one range, and none into the others.
    Heals(&'static str, u64),
    Nothing,
}

impl Expected {
    fn bytes(&self, range: &RangeName, made: &Made) -> u64 {
        match self {
            Self::All => made.layers.iter().map(|layer| layer.size).sum(),
            Self::Layer(bytes) => *bytes,
            Self::Heals(damaged, bytes) if range.as_str() == *damaged => *bytes,
            Self::Heals(..) | Self::Nothing => 0,
        }
    }
}

/// The agents that run.
struct Site {
    ranges: Vec<Range>,
    /// Ended after the ranges', in the order of the fields.
    host: Agent,
}

struct Range {
    name: RangeName,
    images: PathBuf,
    client: RangeClient,
    agent: Agent,
}

impl Site {
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
            "agents: one host agent and {} in {:.1} s, by Unix sockets alone",
            count(ranges.len(), "dind agent"),
            started.elapsed().as_secs_f64()
        );
        Ok(Self { ranges, host })
    }

    /// Brings everything into every range, and shows it; whether it was what it should be.
    async fn step(&self, title: &str, made: &Made, expected: &Expected) -> Result<bool> {
        println!("\n{title}:");
        let started = Instant::now();
        let synced = try_join_all(self.ranges.iter().map(|range| range.sync(&made.references)));
        let report = Report { ranges: synced.await? };
        reports(&report, started.elapsed());
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
    fn damage(&self, made: &Made) -> Result<()> {
        let range = &self.ranges[1];
        let path = range.images.join("blobs/sha256").join(made.base.digest.hex());
        let mut bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    fn end(self) {
        let Self { ranges, host } = self;
        // An agent waits for those who are connected: ours go first, then all end at once.
        let agents: Vec<Agent> = ranges.into_iter().map(|range| range.agent).collect();
        agents.iter().for_each(Agent::ask_to_end);
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
        let range: RangeName = name.parse().context("a range of the demo has a lawful name")?;
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
        let range = Self { name: range, images, client, agent };
        range.until_ready().await?;
        Ok(range)
    }

    async fn until_ready(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let status = self.client.status().await.context("asking an agent how it is")?;
            match (status.engine, status.host) {
                (Reach::Up(_), Reach::Up(())) => return Ok(()),
                (engine, host) if READY_LIMIT < started.elapsed() => {
                    bail!("{} is not ready: engine {engine:?}, host {host:?}", self.name)
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn sync(&self, references: &[Reference]) -> Result<RangeReport> {
        let status = self.client.status().await.context("asking an agent how it is")?;
        let engine = match status.engine {
            Reach::Up(engine) => Some(engine),
            Reach::Down(_) | Reach::Unknown => None,
        };
        let mut events = self.client.sync(references).await.context("beginning a sync")?;
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
            .then(|| "the sync ended before it was done".to_owned());
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

/// What to try after this.
fn what_next(root: &Path) -> String {
    let root = root.display();
    format!(
        "What is left to look at:\n  \
         ls {root}/{}/images/blobs/sha256\n  \
         skopeo inspect oci:{root}/{}/images:docker.io/longshore-demo/web:1\n  \
         cargo xtask teardown          # removes all that was made",
        RANGES[0], RANGES[0]
    )
}
