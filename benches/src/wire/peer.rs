//! One end of a socket in a separate process, which separates its CPU time and memory.
//!
//! The rig starts `wire-peer JOB`, with the job as JSON. Both ends answer on stdout, one JSON value per
//! line:
//!
//! ```text
//! serve:  "http://127.0.0.1:40123"                         listening; serves until stdin closes
//!         {"cpu_seconds":0.31,"peak_rss_bytes":9437184}
//! fetch:  {"bytes":…,"seconds":0.35,"usage":{…}}
//! ```

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transfer::store::FsStore;

use super::job::{Fetched, Job, Role, Usage};
use super::route::{Protocol, Receiver};
use super::{grpc, raw, tonic};
use crate::figures::cpu_time;

/// Runs a job given as JSON, and answers on stdout.
///
/// # Errors
/// The job is malformed, or the transfer fails.
pub async fn run(job: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(job).context("reading the job")?;
    match &job.role {
        Role::Serve { store, socket } => serve(&job, store, socket).await,
        Role::Fetch { from, folder } => fetch(&job, from, folder).await,
    }
}

async fn serve(job: &Job, store: &Path, socket: &Path) -> anyhow::Result<()> {
    match job.route.protocol {
        Protocol::Raw => {
            let (listener, endpoint) = raw::listen(job.route.transport, socket).await?;
            let blob = raw::load(store, job).await?;
            measured(&endpoint, |_| raw::serve(listener, blob, job.route.receivers)).await
        }
        Protocol::Grpc => {
            let (server, endpoint) = grpc::listen(job, store, socket).await?;
            measured(&endpoint, |end| grpc::serve(server, end)).await
        }
        Protocol::Tonic => {
            let (listener, endpoint) = raw::listen(job.route.transport, socket).await?;
            let store = grpc::open(job, store).await?;
            measured(&endpoint, |end| tonic::serve(listener, store, end)).await
        }
    }
}

/// Prints the endpoint, runs `serve` until stdin closes, and prints the usage.
async fn measured<F>(
    endpoint: &str,
    serve: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let meter = Meter::start()?;
    say(&endpoint)?;
    let end = CancellationToken::new();
    let served = serve(end.clone());
    let input = async {
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        end.cancel();
        anyhow::Ok(())
    };
    tokio::try_join!(served, input)?;
    say(&meter.usage()?)
}

async fn fetch(job: &Job, from: &str, folder: &Path) -> anyhow::Result<()> {
    let kept = match job.route.receiver {
        Receiver::Stores => Some(FsStore::open(folder).await.context("opening the store")?),
        Receiver::Discards | Receiver::Verifies => None,
    };
    let meter = Meter::start()?;
    let start = Instant::now();
    let mut receivers = JoinSet::new();
    for _ in 0..job.route.receivers {
        let (job, from, kept) = (job.clone(), from.to_owned(), kept.clone());
        receivers.spawn(async move {
            match job.route.protocol {
                Protocol::Raw => raw::fetch(&from, &job).await,
                Protocol::Grpc => grpc::fetch(&from, &job, kept).await,
                Protocol::Tonic => tonic::fetch(&from, &job, kept).await,
            }
        });
    }
    let mut bytes = 0;
    while let Some(fetched) = receivers.join_next().await {
        bytes += fetched??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let usage = meter.usage()?;
    ensure!(0 < bytes, "received no bytes");
    say(&Fetched { bytes, seconds, usage })
}

fn say(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(answer)?)?;
    Ok(stdout.flush()?)
}

/// Measures CPU time from its start.
struct Meter(Duration);

impl Meter {
    fn start() -> anyhow::Result<Self> {
        Ok(Self(cpu_time()?))
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        let cpu_seconds = (cpu_time()? - self.0).as_secs_f64();
        Ok(Usage { cpu_seconds, peak_rss_bytes: peak_rss()? })
    }
}

/// Peak memory from `VmHWM`. The peak of `getrusage` would include the parent process.
fn peak_rss() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
    Ok(kibibytes.context("/proc/self/status has no VmHWM in kB")?.parse::<u64>()? * 1024)
}
