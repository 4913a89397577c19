//! A process from its first line to its exit code: runtime, logs, signals, work, last word.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

use crate::exit::Exit;
use crate::shutdown::{self, Shutdown};
use crate::telemetry::Telemetry;

/// Most threads that carry tasks.
///
/// Each keeps an allocator cache of its own, which on a machine with a hundred cores would be most
/// of an agent's memory; the work is bound by the engines and by hashing a few blobs at once.
const MAX_WORKERS: usize = 8;

/// Time for blocking file work to finish once the work has ended.
const LAST_FILE_WORK: Duration = Duration::from_secs(2);

/// Number of threads for a process's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One: for a process that only waits.
    One,
    /// As many as there are cores, within reason.
    Cores,
}

/// Runs a process: `work` gets the [`Shutdown`] that signals drive, and returns the result.
///
/// The first SIGTERM or SIGINT asks it to drain, the second drops it and ends the process. An error
/// is printed once, on stderr, on one line with its causes.
pub fn run<Work, Done>(
    name: &'static str,
    telemetry: &Telemetry,
    threads: Threads,
    work: Work,
) -> ExitCode
where
    Work: FnOnce(Shutdown) -> Done,
    Done: Future<Output = anyhow::Result<Exit>>,
{
    match try_run(name, telemetry, threads, work) {
        Ok(exit) => exit.into(),
        Err(error) => {
            say(name, &error);
            Exit::Failure.into()
        }
    }
}

/// The last word of a process that failed.
#[expect(clippy::print_stderr, reason = "it must be readable whatever the log's form and level")]
fn say(name: &str, error: &anyhow::Error) {
    eprintln!("{name}: error: {error:#}");
}

fn try_run<Work, Done>(
    name: &'static str,
    telemetry: &Telemetry,
    threads: Threads,
    work: Work,
) -> anyhow::Result<Exit>
where
    Work: FnOnce(Shutdown) -> Done,
    Done: Future<Output = anyhow::Result<Exit>>,
{
    let runtime = runtime(threads).context("starting threads")?;
    let exit = runtime.block_on(async {
        let spans = telemetry.start(name)?;
        let shutdown = Shutdown::default();
        let signals = shutdown::on_signals(shutdown.clone()).context("listening to signals")?;
        let exit = tokio::select! {
            done = Box::pin(work(shutdown)) => done,
            () = signals => Ok(Exit::Interrupted),
        };
        spans.flush();
        exit
    });
    runtime.shutdown_timeout(LAST_FILE_WORK);
    exit
}

fn runtime(threads: Threads) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        Threads::One => Builder::new_current_thread(),
        Threads::Cores => {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(cores.min(MAX_WORKERS));
            builder
        }
    };
    builder.enable_all().build()
}
