//! One end of a socket as a process of its own, so that its CPU time and memory are its own.
//!
//! The rig starts `wire-peer JOB`, the job as JSON. Both ends answer on stdout, a JSON object a line:
//!
//! ```text
//! serve:  "http://127.0.0.1:40123"                         listening; serves until stdin ends
//!         {"cpu_seconds":0.31,"peak_rss_bytes":9437184}
//! fetch:  {"bytes":…,"seconds":0.35,"usage":{…}}
//! ```

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transfer::store::FsStore;
use transfer::{Descriptor, Digest, MediaType};

use super::route::{Protocol, Receiver, Route};
use super::{grpc, raw, tonic};
use crate::figures::cpu_time;

/// What a peer is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Over what, and what to do with the bytes.
    pub route: Route,
    /// Which blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Which end.
    pub role: Role,
}

impl Job {
    /// Where each receiver begins, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.route.offset(self.size)
    }

    /// What is moved.
    pub(super) fn blob(&self) -> Descriptor {
        let (media_type, digest, size) = (MediaType::new(MediaType::LAYER), self.digest, self.size);
        Descriptor { media_type, digest, size }
    }

    /// How many bytes each receiver is to get.
    pub(super) fn expected(&self) -> u64 {
        self.size - self.offset()
    }
}

/// The end of the socket that a peer is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Gives the blob.
    Serve {
        /// The folder of the blob store.
        store: PathBuf,
        /// Where a Unix socket is made.
        socket: PathBuf,
    },
    /// Takes the blob.
    Fetch {
        /// Where the server said that it listens: `http://host:port` or `unix:///path`.
        from: String,
        /// A folder for what is to be kept.
        folder: PathBuf,
    },
}

/// What a process used while it moved the blob.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its threads, in seconds, from the moment it was ready.
    pub cpu_seconds: f64,
    /// The most memory it ever held, in bytes (`VmHWM`).
    pub peak_rss_bytes: u64,
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Fetched {
    /// How many bytes came.
    pub bytes: u64,
    /// From before the connection was made to after the last byte was handled.
    pub seconds: f64,
    /// What the receiver used meanwhile.
    pub usage: Usage,
}

/// Does the job written as JSON, and answers on stdout.
///
/// # Errors
/// That the job is malformed, or that the transfer failed.
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

/// Says where, runs `serve` until stdin ends, and says what it took.
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
    ensure!(0 < bytes, "nothing came");
    say(&Fetched { bytes, seconds, usage })
}

fn say(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(answer)?)?;
    Ok(stdout.flush()?)
}

/// CPU time from a moment on.
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

/// `VmHWM`, since `getrusage`'s peak is inherited from the process that started this one.
fn peak_rss() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("asking for VmHWM")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
    Ok(kibibytes.context("/proc/self/status has no VmHWM in kB")?.parse::<u64>()? * 1024)
}
