//! Runs all routes in every round, in shuffled order, with two processes per route.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use transfer::Descriptor;
use transfer::store::FsStore;

use super::job::{Fetched, Job, Role, Usage};
use super::machine::Machine;
use super::report::Report;
use super::route::Route;
use super::sample::Sample;
use crate::blob::{self, Noise};

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the `wire-peer` program.
    pub peer: PathBuf,
    /// A folder for the blob, left empty at the end.
    pub folder: PathBuf,
    /// Size of the blob in bytes. The raw servers keep it in memory.
    pub size: u64,
    /// Number of rounds.
    pub rounds: u32,
    /// Run only routes whose name contains this text, such as `unix`; empty runs all.
    pub only: String,
}

/// Progress of a run: the next measurement.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The round, counted from 1.
    pub round: u32,
    /// The route.
    pub route: Route,
}

/// Seed of the blob. Its value does not affect the figures.
const SEED: u64 = 0x0010_5105;

/// Runs every route `rounds` times.
///
/// # Errors
/// The blob could not be stored, or a peer failed. There is no partial report.
pub fn run(options: &Options, mut observe: impl FnMut(Progress)) -> anyhow::Result<Report> {
    ensure!(0 < options.rounds, "the number of rounds must be at least 1");
    let wanted = |route: &Route| route.to_string().contains(&options.only);
    ensure!(Route::all().iter().any(wanted), "no route's name contains {:?}", options.only);
    let folder = tempfile::tempdir_in(&options.folder)
        .with_context(|| format!("making a folder in {}", options.folder.display()))?;
    let store = folder.path().join("store");
    // Storing the blob would raise the load, so describe the machine first.
    let machine = Machine::here();
    let blob = prepare(&store, options.size).context("storing the blob")?;
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for route in shuffled(round).into_iter().filter(wanted) {
            observe(Progress { round, route });
            let socket = folder.path().join(format!("{}.sock", samples.len()));
            let sample = sample(
                options,
                route,
                &blob,
                Role::Serve { store: store.clone(), socket },
                folder.path(),
            )
            .with_context(|| format!("{route}, round {round}"))?;
            samples.push((round, sample));
        }
    }
    Ok(Report::new(machine, options.size, samples))
}

fn prepare(store: &Path, size: u64) -> anyhow::Result<Descriptor> {
    let runtime = tokio::runtime::Runtime::new()?;
    // The store must close before the peers start: only one process may have it open.
    runtime.block_on(async {
        let store = FsStore::open(store).await?;
        Ok(blob::ingest(&store, SEED, size).await?)
    })
}

/// The routes in a different order for each round, so that no route always follows the same one.
fn shuffled(round: u32) -> Vec<Route> {
    let mut noise = Noise(u64::from(round));
    let mut keyed: Vec<_> = Route::all().into_iter().map(|route| (noise.next(), route)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, route)| route).collect()
}

fn sample(
    options: &Options,
    route: Route,
    blob: &Descriptor,
    serve: Role,
    folder: &Path,
) -> anyhow::Result<Sample> {
    let job = |role| Job { route, digest: blob.digest, size: blob.size, role };
    let mut server = Peer::start(&options.peer, &job(serve))?;
    let from: String = server.answer().context("starting the server")?;
    let kept = tempfile::tempdir_in(folder).context("making a folder")?;
    let folder = kept.path().to_owned();
    let mut client = Peer::start(&options.peer, &job(Role::Fetch { from, folder }))?;
    let fetched: Fetched = client.answer().context("fetching")?;
    client.end()?;
    let usage: Usage = server.finish().context("ending the server")?;
    Ok(Sample { route, server: usage, fetched })
}

/// A peer process, killed on drop.
struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(program: &Path, job: &Job) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a piped stdout is there")?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    fn answer<A: DeserializeOwned>(&mut self) -> anyhow::Result<A> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the peer ended without an answer: see its stderr above");
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends a server, and returns its last answer.
    fn finish<A: DeserializeOwned>(mut self) -> anyhow::Result<A> {
        drop(self.stdin.take());
        let answer = self.answer()?;
        self.end()?;
        Ok(answer)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the peer ended with {status}");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail harmlessly if the process has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_route_in_its_own_order() {
        let all = Route::all();
        for round in 1..20 {
            let order = shuffled(round);
            assert_eq!(order.len(), all.len());
            assert!(all.iter().all(|route| order.contains(route)), "round {round}: {order:?}");
        }
        assert_ne!(shuffled(1), shuffled(2));
    }
}
