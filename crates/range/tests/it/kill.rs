//! Whatever is killed, at whatever byte: it ends proven, and nobody lifts a finger.

use std::collections::BTreeMap;

use range::StoreKind;

use crate::chaos::{Lane, Run};
use crate::moments::{Dice, Phase, Target};
use crate::site::range_image;

/// How often each is killed, unless the variable says otherwise.
const KILLS: u64 = 25;

/// What a loss may cost, in plans. Connections and the host agent are resumed at the byte; the
/// others cost that one image again, and never one that was finished.
const COST: u64 = 2;

/// What may move beside layers, in bytes: headers and questions, and the documents of an image.
const BESIDE: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_whatever_is_killed_it_ends_proven() {
    let seed = number("LONGSHORE_TEST_SEED").unwrap_or_else(random);
    let kills = number("LONGSHORE_TEST_KILLS").unwrap_or(KILLS);
    println!("LONGSHORE_TEST_SEED={seed}: each is killed {kills} times");
    // Each store half of the rounds, at the same time: most of a run is waiting for a restart.
    let lanes = [(StoreKind::Graphdriver, kills.div_ceil(2)), (StoreKind::Containerd, kills / 2)];
    let lanes = lanes.map(|(store, rounds)| tokio::spawn(lane(store, rounds, seed)));
    let mut runs = Vec::new();
    for lane in lanes {
        runs.extend(lane.await.unwrap());
    }
    let mut by_target: BTreeMap<Target, Vec<&Run>> = BTreeMap::new();
    runs.iter().for_each(|run| by_target.entry(run.target).or_default().push(run));
    let mut troubles = Vec::new();
    for (target, runs) in by_target {
        troubles.extend(judge(target, &runs));
        assert_eq!(runs.len() as u64, kills, "{target}");
    }
    assert!(troubles.is_empty(), "seed {seed}:\n{}", troubles.join("\n"));
}

/// All rounds of one store: in each, everything is killed once.
async fn lane(store: StoreKind, rounds: u64, seed: u64) -> Vec<Run> {
    // Both lanes throw dice of their own.
    let seed = Dice::new(seed ^ store as u64).below(u64::from(u32::MAX));
    let mut lane = Lane::start(store, &range_image(StoreKind::Graphdriver), seed).await;
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

/// Sums up the runs of one target; what is wrong with them.
fn judge(target: Target, runs: &[&Run]) -> Vec<String> {
    let count = runs.len();
    let spread = Phase::ALL.map(|phase| runs.iter().filter(|run| run.phase == phase).count());
    let in_flight = runs.iter().filter(|run| run.in_flight).count();
    let dearest = runs.iter().map(|run| run.moved * 100 / run.plan).max().unwrap_or(0);
    let longest = runs.iter().map(|run| run.healed).max().unwrap_or_default();
    println!(
        "{target:14} {count} times (export, wire, load: {spread:?}), {in_flight} with an image under way: whole again after {} ms at most, at most {dearest} % of the plan moved",
        longest.as_millis()
    );
    let mut troubles = Vec::new();
    if in_flight * 5 < count * 4 {
        troubles.push(format!("{target}: only {in_flight} of {count} met an image under way"));
    }
    for run in runs {
        if let Err(told) = &run.reported {
            troubles.push(format!("{target} at {:?}: up reported {told}", run.stage));
        }
        let resumed = matches!(target, Target::HostAgent | Target::Connections);
        let beside = if resumed { 0 } else { BESIDE };
        if COST * run.plan + beside <= run.moved {
            troubles.push(format!("{target}: {} bytes moved for {}", run.moved, run.plan));
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
