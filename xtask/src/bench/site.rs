//! A host agent with an empty store, and fresh ranges: what every measurement begins with.
//!
//! Peers are measured in the same ranges, so that both sides find the same cold engine; the agents
//! beside it idle meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::client::{AdminClient, RangeClient};
use range::{
    LoadWay, RangeEvent, RangeName, Ranges, Reference, Report, Selection, Settings, UpRequest,
};
use tokio::process::{Child, Command};

use super::docker::Docker;
use super::row::Take;
use super::{Bench, process};
use crate::range::told;

/// The label and prefix of all that a bench makes in an engine.
pub(super) const PROJECT: &str = "longshore-bench";

/// How long a host agent may take until it answers.
const AGENT_UP: Duration = Duration::from_secs(20);

/// The program whose processes in a range are the dind agent's.
const DIND_AGENT: &str = "longshore-dind-agent";

/// How often a range's removal is tried.
const CLEAR_TRIES: usize = 5;

/// Rest between the last write to disk and the clock's start: engines tidy up after themselves.
const REST: Duration = Duration::from_millis(500);

/// A host agent and the ranges of this bench.
#[derive(Debug)]
pub(super) struct Site {
    /// The engine that images come from.
    pub(super) host: Docker,
    ranges: Ranges,
    /// Ends with this value.
    agent: Child,
    folder: PathBuf,
    runner: Docker,
    host_engine: Option<i32>,
}

/// What ranges stand on.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// The engine that runs them.
    pub(super) runner: String,
    /// Their network; that engine's default when absent.
    pub(super) network: Option<String>,
    /// The way into their own engines.
    pub(super) load_way: LoadWay,
}

impl Ground {
    /// The engine that images come from, and everything as it is by itself.
    pub(super) fn of(bench: &Bench) -> Self {
        Self { runner: bench.host().to_owned(), network: None, load_way: LoadWay::Auto }
    }
}

/// A range that is up.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) name: RangeName,
    /// The first process in its container, as the host numbers it.
    pub(super) pid: i32,
    /// Its own engine, through its socket: nothing stands between, as nothing does for us.
    pub(super) engine: Docker,
    /// The volume that its engine keeps everything in.
    data: PathBuf,
}

impl Site {
    /// Starts a host agent whose store is empty, for as many ranges at once; what an earlier one left
    /// is removed first.
    pub(super) async fn start(bench: &Bench, at_once: usize) -> Result<Self> {
        Self::on(bench, at_once, Ground::of(bench)).await
    }

    /// As [`Site::start`], elsewhere or otherwise.
    pub(super) async fn on(bench: &Bench, at_once: usize, ground: Ground) -> Result<Self> {
        let folder = bench.folder.join("host");
        let endpoint = format!("unix://{}", folder.join("admin.sock").display());
        let settings = Settings {
            project: PROJECT.to_owned(),
            concurrency: at_once.max(1),
            load_way: ground.load_way,
            network: ground.network,
            locks: bench.folder.join("locks"),
            ..Settings::new(&ground.runner, &endpoint, &bench.agents.dind_agent)
        };
        let ranges = Ranges::connect(settings).await.map_err(|error| told(&error))?;
        remove(&folder)?;
        let agent = host_agent(bench, &folder)?;
        let site = Self {
            host: Docker::at(&bench.machine.docker_host),
            ranges,
            agent,
            runner: Docker::at(ground.runner),
            host_engine: process::listener(socket(&bench.machine.docker_host)),
            folder,
        };
        site.answers().await?;
        site.clear(&Selection::All).await?;
        Ok(site)
    }

    /// Brings empty ranges up.
    pub(super) async fn up(&self, range_image: &str, names: &[RangeName]) -> Result<Vec<Inside>> {
        self.up_with(range_image, names, &[]).await?;
        let mut inside = Vec::new();
        for name in names {
            inside.push(self.inside(name).await?);
        }
        Ok(inside)
    }

    /// Brings ranges up with these images.
    pub(super) async fn up_with(
        &self,
        range_image: &str,
        names: &[RangeName],
        images: &[String],
    ) -> Result<Report> {
        let request = UpRequest {
            names: names.to_vec(),
            range_image: range_image.to_owned(),
            images: references(images)?,
            labels: range::Labels::default(),
        };
        let report = Box::pin(self.ranges.up(&request, Arc::new(|_: RangeEvent| {}))).await;
        let report = report.map_err(|error| told(&error))?;
        whole(&report)?;
        Ok(report)
    }

    /// Removes these ranges, and leaves all else.
    pub(super) async fn down(&self, names: &[RangeName]) -> Result<()> {
        settle().await?;
        self.clear(&Selection::Names(names.to_vec())).await
    }

    /// Brings `images` into ranges that are up, all of them at once.
    pub(super) async fn sync(&self, ranges: &[Inside], images: &[String]) -> Result<()> {
        let selection = Selection::Names(ranges.iter().map(|range| range.name.clone()).collect());
        let observer = Arc::new(|_: RangeEvent| {});
        let report = self.ranges.sync(&selection, &references(images)?, observer).await;
        whole(&report.map_err(|error| told(&error))?)
    }

    /// Takes the time of `work`, with the disk at rest before, and counts what everybody used.
    pub(super) async fn timed(
        &self,
        ranges: &[Inside],
        work: impl Future<Output = Result<()>>,
    ) -> Result<Take> {
        settle().await?;
        let before = self.counted(ranges).await?;
        let started = Instant::now();
        work.await?;
        let value = started.elapsed().as_secs_f64();
        let mut counters = self.counted(ranges).await?;
        for (name, count) in &mut counters {
            *count -= before.get(name).copied().unwrap_or_default();
        }
        counters.extend(self.levels(ranges).await?);
        Ok(Take { value, counters })
    }

    /// Removes all ranges, and ends the host agent.
    pub(super) async fn end(mut self) -> Result<()> {
        // What is still on its way to the disk would only be waited for by whoever removes it.
        settle().await?;
        self.clear(&Selection::All).await?;
        self.agent.kill().await.context("ending the host agent")?;
        remove(&self.folder)
    }

    /// Removes ranges; an engine whose disk is busy for longer than it may is asked again.
    async fn clear(&self, selection: &Selection) -> Result<()> {
        let mut error = None;
        for _ in 0..CLEAR_TRIES {
            error = match self.ranges.down(selection).await {
                Ok(removals) => removals.into_iter().find_map(|removal| removal.error),
                Err(error) => Some(error.explain()),
            };
            if error.is_none() {
                break;
            }
        }
        error.map_or(Ok(()), |error| bail!("a range is not removed: {error}"))
    }

    /// What grows, by name.
    async fn counted(&self, ranges: &[Inside]) -> Result<BTreeMap<String, f64>> {
        let stats = self.admin()?.stats().await.context("asking the host agent")?;
        let mut counted = BTreeMap::new();
        let mut count = |name: &str, value: f64| counted.insert(name.to_owned(), value);
        count("wire_bytes", float(stats.bytes_served));
        count("engine_read_bytes", float(stats.engine_bytes_read));
        count("engine_saves", float(stats.saves));
        count("host_agent_cpu_seconds", process::cpu_seconds(self.agent_pid()?)?);
        if let Some(pid) = self.host_engine {
            count("host_engine_cpu_seconds", process::cpu_seconds_with_children(pid)?);
        }
        let mut agents = 0.0;
        let mut groups = Some(0.0);
        for range in ranges {
            for pid in process::family(range.pid, DIND_AGENT) {
                agents += process::cpu_seconds(pid)?;
            }
            groups = groups.zip(process::group_cpu_seconds(range.pid)).map(|(sum, one)| sum + one);
        }
        count("dind_agents_cpu_seconds", agents);
        if let Some(groups) = groups.filter(|_| !ranges.is_empty()) {
            count("range_engines_cpu_seconds", (groups - agents).max(0.0));
        }
        Ok(counted)
    }

    /// What has a level, by name.
    async fn levels(&self, ranges: &[Inside]) -> Result<BTreeMap<String, f64>> {
        let stats = self.admin()?.stats().await.context("asking the host agent")?;
        let mut peak: u64 = 0;
        let mut disk = process::disk_bytes(&self.folder);
        for range in ranges {
            let endpoint = self.agent_endpoint(&range.name).parse().context("a range's agent")?;
            let status = RangeClient::new(endpoint).status().await;
            peak = peak.max(status.context("asking a dind agent")?.peak_rss_bytes);
            disk += process::disk_bytes(&range.data);
        }
        let level = |name: &str, value: u64| (name.to_owned(), float(value));
        Ok(BTreeMap::from([
            level("host_agent_peak_rss_bytes", stats.peak_rss_bytes),
            level("dind_agent_peak_rss_bytes", peak),
            level("disk_bytes", disk),
        ]))
    }

    /// A range that is up.
    pub(super) async fn inside(&self, name: &RangeName) -> Result<Inside> {
        let container = format!("{PROJECT}-{name}");
        let template = "{{.State.Pid}} {{range .Mounts}}\
                        {{if eq .Destination \"/var/lib/docker\"}}{{.Source}}{{end}}{{end}}";
        let said = self.runner.run(&["inspect", "--format", template, &container]).await?;
        let (pid, data) = said.split_once(' ').context("docker inspect says no more")?;
        let pid = pid.parse().context("docker inspect tells no process")?;
        let engine = Docker::at(format!("unix:///proc/{pid}/root/run/docker.sock"));
        Ok(Inside { name: name.clone(), pid, engine, data: PathBuf::from(data) })
    }

    fn agent_pid(&self) -> Result<i32> {
        let id = self.agent.id().context("the host agent has ended")?;
        i32::try_from(id).context("a process's number")
    }

    fn agent_endpoint(&self, range: &RangeName) -> String {
        format!("unix://{}/ranges/{range}/agent/agent.sock", self.folder.display())
    }

    fn admin(&self) -> Result<AdminClient> {
        let endpoint = format!("unix://{}", self.folder.join("admin.sock").display());
        Ok(AdminClient::new(endpoint.parse().context("the host agent's address")?))
    }

    async fn answers(&self) -> Result<()> {
        let started = Instant::now();
        while let Err(error) = self.admin()?.stats().await {
            ensure!(
                started.elapsed() < AGENT_UP,
                "the host agent does not answer, its log is {}: {error}",
                self.folder.with_extension("log").display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// `name-turn-1` to `name-turn-count`, another turn at each call: on ext4 a volume's place comes from
/// its name, and where one was just removed, files are slow to make.
pub(super) fn names(prefix: &str, count: usize) -> Result<Vec<RangeName>> {
    static TURN: AtomicUsize = AtomicUsize::new(1);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    range::numbered(&format!("{prefix}-{turn}"), count).context("naming ranges")
}

/// Waits until all that was written is on disk.
pub(super) async fn settle() -> Result<()> {
    tokio::task::spawn_blocking(rustix::fs::sync).await.context("syncing the file systems")?;
    tokio::time::sleep(REST).await;
    Ok(())
}

/// The path in `unix:///path`.
fn socket(host: &str) -> &Path {
    Path::new(host.strip_prefix("unix://").unwrap_or(host))
}

fn host_agent(bench: &Bench, folder: &Path) -> Result<Child> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let log = folder.with_extension("log");
    let log = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    // Whoever is killed leaves no agent behind.
    let mut command = Command::from(crate::setup::command("setpriv")?);
    command
        .args(["--pdeathsig", "TERM"])
        .arg(&bench.agents.host_agent)
        .args(["serve", "--inspect", "off", "--engine", &bench.machine.docker_host, "--state-dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting the host agent")
}

fn references(images: &[String]) -> Result<Vec<Reference>> {
    let parsed = images.iter().map(|image| image.parse());
    parsed.collect::<Result<_, _>>().context("an image's name")
}

fn whole(report: &Report) -> Result<()> {
    for range in &report.ranges {
        let errors =
            range.error.iter().chain(range.images.iter().filter_map(|it| it.error.as_ref()));
        let errors: Vec<&str> = errors.map(String::as_str).collect();
        ensure!(range.is_whole(), "{}: {}", range.range, errors.join("; "));
    }
    Ok(())
}

/// Removes a folder; one that is not there is no error.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of bytes are far below 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
