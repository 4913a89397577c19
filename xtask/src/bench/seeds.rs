//! Cold ranges from a seed: clone, engine start and proof in one call.
//!
//! A call for two ranges makes the seed before the clock starts. The peer fills a range whose engine is
//! running, so only our time includes the engine's start.

use anyhow::{Context as _, Result, ensure};
use range::RangeName;

use super::context::Bench;
use super::docker::{Docker, save_load};
use super::row::{Bound, Row, Samples};
use super::single::SAVE_LOAD;
use super::testbed::{Conditions, Testbed, names};
use super::xfs::XfsEngine;
use crate::setup::Store;

/// The provision that a range from a seed reports.
const CLONED: &str = "cloned";

/// The network of ranges on the XFS engine, which has none. Nothing is pulled.
const NO_NETWORK: &str = "none";

/// Highest ratio of a cold range to `save | load`.
const BY_REFLINK: f64 = 0.15;
const BY_COPY: f64 = 0.35;

/// Measures clones by reflink, on XFS on a loop device.
pub(super) async fn reflink(bench: &Bench) -> Result<Vec<Row>> {
    let store = Store::Overlay2;
    let image = bench.range_image(store)?;
    let host = Docker::at(bench.host());
    let engine = match XfsEngine::start(&bench.folder, &host, image).await {
        Ok(engine) => engine,
        Err(error) => {
            let why = format!("XFS on a loop device is unavailable: {error:#}");
            return Ok(vec![Row::failed("seed-reflink", Some(&store.to_string()), why)]);
        }
    };
    let conditions = Conditions {
        runner: engine.host().to_owned(),
        network: Some(NO_NETWORK.to_owned()),
        ..Conditions::of(bench)
    };
    let row = measured(bench, "seed-reflink", store, conditions, BY_REFLINK).await;
    drop(engine);
    Ok(vec![row?])
}

/// Measures clones by copy, on the engine's own file system.
pub(super) async fn copy(bench: &Bench, store: Store) -> Result<Vec<Row>> {
    Ok(vec![measured(bench, "seed-copy", store, Conditions::of(bench), BY_COPY).await?])
}

async fn measured(
    bench: &Bench,
    measure: &str,
    store: Store,
    conditions: Conditions,
    goal: f64,
) -> Result<Row> {
    let image = bench.range_image(store)?;
    let testbed = Testbed::on(bench, 2, conditions).await?;
    let mut samples = Samples::default();
    bench.say(&format!("{measure}, {store}: making the seed"));
    let makers = names("maker", 2)?;
    cloned(&testbed, image, &makers, &bench.images).await?;
    testbed.down(&makers).await?;
    let mut failures = Vec::new();
    for round in 0..bench.rounds {
        let mut contenders = ["ours", SAVE_LOAD];
        contenders.rotate_left(round % 2);
        for contender in contenders {
            bench.say(&format!(
                "round {} of {}, {measure}, {store}: {contender}",
                round + 1,
                bench.rounds
            ));
            if let Err(error) = once(bench, &testbed, image, contender, &mut samples).await {
                failures.push(bench.report_failure(contender, &error));
            }
        }
    }
    testbed.end().await?;
    let row = Row::of(measure, Some(&store.to_string()), "s", samples.of("ours")).goal_against(
        SAVE_LOAD,
        samples.of(SAVE_LOAD),
        Bound::Most,
        goal,
    );
    Ok(row.with_failures(&failures))
}

async fn once(
    bench: &Bench,
    testbed: &Testbed,
    image: &str,
    contender: &str,
    samples: &mut Samples,
) -> Result<()> {
    let range = names("seeded", 1)?;
    if contender == SAVE_LOAD {
        let ranges = testbed.up(image, &range).await?;
        let engine = &ranges[0].engine;
        let sample =
            testbed.timed(&ranges, save_load(&testbed.host, engine, &bench.images)).await?;
        engine.must_have(&bench.images).await?;
        samples.add(contender, sample);
    } else {
        let sample = testbed.timed(&[], cloned(testbed, image, &range, &bench.images)).await?;
        testbed.running(&range[0]).await?.engine.must_have(&bench.images).await?;
        samples.add(contender, sample);
    }
    testbed.down(&range).await
}

/// Starts ranges with their images, and fails unless they came from a seed.
async fn cloned(
    testbed: &Testbed,
    image: &str,
    names: &[RangeName],
    images: &[String],
) -> Result<()> {
    let report = testbed.up_with(image, names, images).await?;
    for range in &report.ranges {
        let provision = serde_json::to_value(range.provision).context("a range's provision")?;
        ensure!(
            provision == CLONED,
            "{} did not come from a seed: its provision is {provision}",
            range.range
        );
    }
    Ok(())
}
