//! The start of every measurement: a host agent with an empty store, and fresh ranges.
//!
//! Peers use the same ranges, so that both sides have the same cold engine. The agents are idle
//! meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::client::AdminClient;
use range::{
    LoadWay, RangeEvent, RangeName, Ranges, Reference, Report, Selection, Settings, UpRequest,
};
use tokio::process::{Child, Command};

use super::context::Bench;
use super::docker::Docker;
use super::process;
use super::row::Sample;
use crate::range::told;

/// Project label and name prefix of everything that a bench makes in an engine.
pub(super) const PROJECT: &str = "longshore-bench";

/// Timeout for a host agent to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The dind agent's program name.
const DIND_AGENT: &str = "longshore-dind-agent";

/// Number of attempts to remove a range.
const CLEAR_TRIES: usize = 5;

/// Pause between the last write to disk and the start of the clock, while engines clean up.
const REST: Duration = Duration::from_millis(500);

/// A host agent and the ranges of this bench.
#[derive(Debug)]
pub(super) struct Testbed {
    /// The engine that has the images.
    pub(super) host: Docker,
    ranges: Ranges,
    /// The host agent, killed on drop.
    agent: Child,
    folder: PathBuf,
    runner: Docker,
    host_engine: Option<i32>,
}

/// Settings that differ between measurements.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    /// The engine that runs them.
    pub(super) runner: String,
    /// Their network; `None` for that engine's default.
    pub(super) network: Option<String>,
    /// The load method of their own engines.
    pub(super) load_way: LoadWay,
}

impl Conditions {
    /// The engine that has the images, with default settings.
    pub(super) fn of(bench: &Bench) -> Self {
        Self { runner: bench.host().to_owned(), network: None, load_way: LoadWay::Auto }
    }
}

/// A running range.
#[derive(Clone, Debug)]
pub(super) struct RunningRange {
    pub(super) name: RangeName,
    /// The host's process ID of the first process in its container.
    pub(super) pid: i32,
    /// Its engine, reached directly through its socket.
    pub(super) engine: Docker,
    /// The volume with all of its engine's data.
    data: PathBuf,
}

impl Testbed {
    /// Starts a host agent with an empty store, for up to `at_once` concurrent ranges. Removes the
    /// remains of earlier ones first.
    pub(super) async fn start(bench: &Bench, at_once: usize) -> Result<Self> {
        Self::on(bench, at_once, Conditions::of(bench)).await
    }

    /// Starts a host agent as [`Testbed::start`] does, under these conditions.
    pub(super) async fn on(bench: &Bench, at_once: usize, conditions: Conditions) -> Result<Self> {
        let folder = bench.folder.join("host");
        let endpoint = format!("unix://{}", folder.join("admin.sock").display());
        let settings = Settings {
            project: PROJECT.to_owned(),
            concurrency: at_once.max(1),
            load_way: conditions.load_way,
            network: conditions.network,
            locks: bench.folder.join("locks"),
            ..Settings::new(&conditions.runner, &endpoint, &bench.agents.dind_agent)
        };
        let ranges = Ranges::connect(settings).await.map_err(|error| told(&error))?;
        remove(&folder)?;
        let agent = host_agent(bench, &folder)?;
        let testbed = Self {
            host: Docker::at(&bench.machine.docker_host),
            ranges,
            agent,
            runner: Docker::at(conditions.runner),
            host_engine: process::listener(socket(&bench.machine.docker_host)),
            folder,
        };
        testbed.answers().await?;
        testbed.clear(&Selection::All).await?;
        Ok(testbed)
    }

    /// Starts empty ranges.
    pub(super) async fn up(
        &self,
        range_image: &str,
        names: &[RangeName],
    ) -> Result<Vec<RunningRange>> {
        self.up_with(range_image, names, &[]).await?;
        let mut inside = Vec::new();
        for name in names {
            inside.push(self.running(name).await?);
        }
        Ok(inside)
    }

    /// Starts ranges with these images.
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
            grants: Vec::new(),
            labels: range::Labels::default(),
        };
        let report = Box::pin(self.ranges.up(&request, Arc::new(|_: RangeEvent| {}))).await;
        let report = report.map_err(|error| told(&error))?;
        whole(&report)?;
        Ok(report)
    }

    /// Removes these ranges only.
    pub(super) async fn down(&self, names: &[RangeName]) -> Result<()> {
        settle().await?;
        self.clear(&Selection::Names(names.to_vec())).await
    }

    /// Syncs `images` into all these ranges at once.
    pub(super) async fn sync(&self, ranges: &[RunningRange], images: &[String]) -> Result<()> {
        let selection = Selection::Names(ranges.iter().map(|range| range.name.clone()).collect());
        let observer = Arc::new(|_: RangeEvent| {});
        let report = self.ranges.sync(&selection, &references(images)?, observer).await;
        whole(&report.map_err(|error| told(&error))?)
    }

    /// Measures the time of `work`, which starts with an idle disk, and the resources of all
    /// processes.
    pub(super) async fn timed(
        &self,
        ranges: &[RunningRange],
        work: impl Future<Output = Result<()>>,
    ) -> Result<Sample> {
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
        Ok(Sample { value, counters })
    }

    /// Removes all ranges, and ends the host agent.
    pub(super) async fn end(mut self) -> Result<()> {
        // Removal would wait for pending writes anyway.
        settle().await?;
        self.clear(&Selection::All).await?;
        self.agent.kill().await.context("ending the host agent")?;
        remove(&self.folder)
    }

    /// Removes ranges, with several attempts, since an engine times out while its disk is busy.
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
        error.map_or(Ok(()), |error| bail!("a range could not be removed: {error}"))
    }

    /// Counters, by name.
    async fn counted(&self, ranges: &[RunningRange]) -> Result<BTreeMap<String, f64>> {
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

    /// Gauges (peaks and disk usage), by name.
    async fn levels(&self, ranges: &[RunningRange]) -> Result<BTreeMap<String, f64>> {
        let admin = self.admin()?;
        let stats = admin.stats().await.context("asking the host agent")?;
        let served = admin.ranges().await.context("asking the host agent for its ranges")?;
        let mut peak: u64 = 0;
        let mut disk = process::disk_bytes(&self.folder);
        for range in ranges {
            let found = served.iter().find(|found| found.name == range.name);
            let state = found.and_then(|found| found.state.as_ref());
            let state = state.with_context(|| format!("range {} reported nothing", range.name))?;
            peak = peak.max(state.agent.peak_rss_bytes);
            disk += process::disk_bytes(&range.data);
        }
        let level = |name: &str, value: u64| (name.to_owned(), float(value));
        Ok(BTreeMap::from([
            level("host_agent_peak_rss_bytes", stats.peak_rss_bytes),
            level("dind_agent_peak_rss_bytes", peak),
            level("disk_bytes", disk),
        ]))
    }

    /// Looks up a running range.
    pub(super) async fn running(&self, name: &RangeName) -> Result<RunningRange> {
        let container = format!("{PROJECT}-{name}");
        let template = "{{.State.Pid}} {{range .Mounts}}\
                        {{if eq .Destination \"/var/lib/docker\"}}{{.Source}}{{end}}{{end}}";
        let output = self.runner.run(&["inspect", "--format", template, &container]).await?;
        let (pid, data) = output.split_once(' ').context("docker inspect printed no mount")?;
        let pid = pid.parse().context("docker inspect printed no process ID")?;
        let engine = Docker::at(format!("unix:///proc/{pid}/root/run/docker.sock"));
        Ok(RunningRange { name: name.clone(), pid, engine, data: PathBuf::from(data) })
    }

    fn agent_pid(&self) -> Result<i32> {
        let id = self.agent.id().context("the host agent has ended")?;
        i32::try_from(id).context("converting the host agent's process ID")
    }

    fn admin(&self) -> Result<AdminClient> {
        let endpoint = format!("unix://{}", self.folder.join("admin.sock").display());
        Ok(AdminClient::new(endpoint.parse().context("the host agent's address")?))
    }

    async fn answers(&self) -> Result<()> {
        let started = Instant::now();
        while let Err(error) = self.admin()?.stats().await {
            ensure!(
                started.elapsed() < START_TIMEOUT,
                "the host agent does not answer (see its log, {}): {error}",
                self.folder.with_extension("log").display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Names `prefix-turn-1` to `prefix-turn-count`, with a new turn for each call. On ext4 a volume's
/// position on the disk depends on its name, and files are slow to create where a volume was just
/// removed.
pub(super) fn names(prefix: &str, count: usize) -> Result<Vec<RangeName>> {
    static TURN: AtomicUsize = AtomicUsize::new(1);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    range::numbered(&format!("{prefix}-{turn}"), count).context("naming ranges")
}

/// Waits until all writes are on disk.
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
    // With `--pdeathsig` the agent ends even if this process is killed.
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

/// Removes a folder, if it exists.
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
