//! Four live ranges at once, and their cost on the host.
//!
//! The floor is the time that four engines need to load the same content from memory. Nothing that
//! uses an engine's own `load` can be faster.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;

use super::context::{Bench, Measure};
use super::docker::{Docker, save_load};
use super::row::{Bound, Row, Samples, counted};
use super::single::SAVE_LOAD;
use super::testbed::{RunningRange, Testbed, names};
use crate::setup::Store;

/// Number of ranges.
const RANGES: usize = 4;

/// The engines' own floor.
const LOAD: &str = "load from memory";

/// The samples with one range.
const ONE: &str = "1 range";

/// Measures the ranges on the overlay2 store.
pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    let archive = bench.folder.join("stack.tar");
    let four = bench.wants(Measure::Four);
    if four {
        Docker::at(bench.host()).save(&bench.images, &archive).await?;
    }
    let mut failures = Vec::new();
    for round in 0..bench.rounds {
        let mut contenders = vec!["ours"];
        if four {
            contenders.extend([SAVE_LOAD, LOAD]);
        }
        if bench.wants(Measure::HostCost) {
            contenders.push(ONE);
        }
        let turn = round % contenders.len();
        contenders.rotate_left(turn);
        for contender in contenders {
            bench.say(&format!(
                "round {} of {}, {RANGES} ranges: {contender}",
                round + 1,
                bench.rounds
            ));
            if let Err(error) = once(bench, contender, &archive, &mut samples).await {
                failures.push(bench.report_failure(contender, &error));
            }
        }
    }
    if four {
        std::fs::remove_file(&archive).context("removing an archive")?;
    }
    Ok(rows(bench, &samples).into_iter().map(|row| row.with_failures(&failures)).collect())
}

async fn once(bench: &Bench, contender: &str, archive: &Path, samples: &mut Samples) -> Result<()> {
    let count = if contender == ONE { 1 } else { RANGES };
    let testbed = Testbed::start(bench, count).await?;
    let image = bench.range_image(Store::Overlay2)?;
    let ranges = testbed.up(image, &names("four", count)?).await?;
    let images = &bench.images;
    let sample = match contender {
        SAVE_LOAD => {
            let each = ranges.iter().map(|range| save_load(&testbed.host, &range.engine, images));
            testbed.timed(&ranges, async { try_join_all(each).await.map(drop) }).await?
        }
        LOAD => {
            // Read it into the page cache again, in case it was evicted.
            std::io::copy(&mut std::fs::File::open(archive)?, &mut std::io::sink())?;
            let each = ranges.iter().map(|range| range.engine.load(archive));
            testbed.timed(&ranges, async { try_join_all(each).await.map(drop) }).await?
        }
        _ => testbed.timed(&ranges, testbed.sync(&ranges, images)).await?,
    };
    all_have(&ranges, images).await?;
    samples.add(contender, sample);
    testbed.end().await
}

async fn all_have(ranges: &[RunningRange], images: &[String]) -> Result<()> {
    try_join_all(ranges.iter().map(|range| range.engine.must_have(images))).await.map(drop)
}

fn rows(bench: &Bench, samples: &Samples) -> Vec<Row> {
    let store = Store::Overlay2.to_string();
    let ours = samples.of("ours");
    let mut rows = Vec::new();
    if bench.wants(Measure::Four) {
        for (measure, peer, goal) in [("cold-4", SAVE_LOAD, 0.75), ("cold-4-floor", LOAD, 1.05)] {
            rows.push(
                Row::of(measure, Some(&store), "s", ours)
                    .with_peer(SAVE_LOAD, samples.of(SAVE_LOAD))
                    .with_peer(LOAD, samples.of(LOAD))
                    .goal_against(peer, samples.of(peer), Bound::Most, goal),
            );
        }
    }
    if bench.wants(Measure::HostCost) {
        let one = samples.of(ONE);
        for (measure, counter, unit) in [
            ("host-read", "engine_read_bytes", "bytes"),
            ("host-engine-cpu", "host_engine_cpu_seconds", "s"),
            ("host-agent-cpu", "host_agent_cpu_seconds", "s"),
        ] {
            let row = Row::of(measure, Some(&store), unit, &counted(ours, counter));
            let beside = counted(one, counter);
            rows.push(if measure == "host-read" {
                row.goal_against(ONE, &beside, Bound::Most, 1.0)
                    .with_note("4 ranges at once read the host's engine once, like 1 range")
            } else {
                row.with_peer(ONE, &beside).with_note(
                    "4 ranges at once, compared with 1: only the cost of sending may grow",
                )
            });
        }
    }
    rows
}
