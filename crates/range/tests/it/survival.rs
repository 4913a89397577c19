//! After any kill, at any byte, on any path, a range ends proven, and nobody lifts a finger.
//!
//! This leaves no core idle, and tests run in the order of their names: the others, which mostly wait
//! for engines to start, come first, beside the checks of `cargo xtask test`.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use crate::chaos::{Lane, Run};
use crate::moments::{Dice, Phase, Target};
use crate::path::Path;

/// Number of kills of each target on each path, unless the variable sets another: 30 times in all,
/// and on each path twice in each phase.
const KILLS: u64 = 6;

/// Paths at a time: most of a run is waiting for a restart.
const LANES: usize = 3;

/// Cost of a loss, in plans. Connections and the host agent are resumed at the byte; the others
/// cost that one image again, and never one that was finished.
const COST: u64 = 2;

/// Bytes that may move beside layers: headers and requests, and the documents of an image.
const BESIDE: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_whatever_is_killed_it_ends_proven() {
    let seed = number("LONGSHORE_TEST_SEED").unwrap_or_else(random);
    let kills = number("LONGSHORE_TEST_KILLS").unwrap_or(KILLS);
    println!("LONGSHORE_TEST_SEED={seed}: each is killed {kills} times on each path");
    let lanes = (seed..).zip(Path::ALL).map(|(seed, path)| {
        let lane = tokio::spawn(lane(path, kills, seed));
        async move { (path, lane.await.unwrap()) }
    });
    let mut by_target: BTreeMap<(Path, Target), Vec<Run>> = BTreeMap::new();
    let mut lanes = futures::stream::iter(lanes).buffer_unordered(LANES);
    while let Some((path, runs)) = lanes.next().await {
        for run in runs {
            by_target.entry((path, run.target)).or_default().push(run);
        }
    }
    let mut troubles = Vec::new();
    for ((path, target), runs) in by_target {
        troubles.extend(judge(path, target, &runs));
        assert_eq!(runs.len() as u64, kills, "{path}: {target}");
    }
    assert!(troubles.is_empty(), "seed {seed}:\n{}", troubles.join("\n"));
}

/// All rounds on one path: in each, everything is killed once.
async fn lane(path: Path, rounds: u64, seed: u64) -> Vec<Run> {
    // Each lane throws dice of its own.
    let seed = Dice::new(seed).below(u64::from(u32::MAX));
    let mut lane = Lane::start(path, seed).await;
    let mut runs = Vec::new();
    let mut phases = Phase::ALL.into_iter().cycle();
    for _ in 0..rounds {
        // One is left out, so that each target meets another phase in the next round.
        phases.next();
        for (target, phase) in Target::ALL.into_iter().zip(&mut phases) {
            let phase = match target {
                // Only there are bytes on the connections that are cut.
                Target::Connections => Phase::Wire,
                _ => phase,
            };
            runs.push(lane.run(runs.len() + 1, target, phase).await);
        }
    }
    lane.check_settled();
    runs
}

/// Sums up the runs of one target and returns their failures.
fn judge(path: Path, target: Target, runs: &[Run]) -> Vec<String> {
    let count = runs.len();
    let spread = Phase::ALL.map(|phase| runs.iter().filter(|run| run.phase == phase).count());
    let dearest = runs.iter().map(|run| run.moved * 100 / run.plan).max().unwrap_or(0);
    let longest = runs.iter().map(|run| run.healed).max().unwrap_or_default();
    println!(
        "{path}: {target:14} {count} times (export, wire, load: {spread:?}): whole again after {} ms at most, at most {dearest} % of the plan moved",
        longest.as_millis()
    );
    let mut troubles = Vec::new();
    for run in runs {
        if let Err(told) = &run.reported {
            troubles.push(format!("{path}: {target} at {:?}: up reported {told}", run.stage));
        }
        let resumed = matches!(target, Target::HostAgent | Target::Connections);
        let beside = if resumed { 0 } else { BESIDE };
        if COST * run.plan + beside <= run.moved {
            troubles.push(format!("{path}: {target}: {} bytes moved for {}", run.moved, run.plan));
        }
    }
    troubles
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Another number at each call of the program.
fn random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(now.unwrap().subsec_nanos())
}
