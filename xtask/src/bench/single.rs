//! One live range: a cold sync, syncs without changes, and a sync of one more layer.
//!
//! ```text
//! for each round, in turn:
//!   ours          fresh range ► sync cold ► sync again × 5 ► sync + 21 MB ► load + 21 MB (the engine's own)
//!   save | load   fresh range ► save | load ► the same again
//!   registry      fresh range ► pull of all images at once
//!   skopeo        fresh range ► copy, one image after another
//! ```

use anyhow::Result;

use super::context::{Bench, Measure};
use super::docker::save_load;
use super::registry::{Registry, Shared};
use super::row::{Bound, Row, Samples};
use super::skopeo::Skopeo;
use super::testbed::{Testbed, names};
use super::top_layer::TopLayers;
use crate::setup::Store;

/// The peer of most goals.
pub(super) const SAVE_LOAD: &str = "save | load";

/// The other peers.
const AGAIN: &str = "save | load again";
const PULL: &str = "registry pull";
const PUSH: &str = "registry push, once";
const SKOPEO: &str = "skopeo copy";

/// The engine's own load of an archive with only that layer.
const THIN_LOAD: &str = "load of that layer";

/// Number of syncs without changes per round. Each takes a tenth of a second.
const UNCHANGED_SYNCS: usize = 5;

/// Highest ratio of a cold range to `save | load`.
fn cold_goal(store: Store) -> f64 {
    match store {
        Store::Overlay2 => 0.50,
        Store::Containerd => 0.40,
    }
}

/// A way to fill a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Ours,
    SaveLoad,
    Registry,
    Skopeo,
}

/// Measures everything on one store.
pub(super) async fn run(bench: &Bench, registry: &Shared, store: Store) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    let cold = bench.wants(Measure::Cold);
    let registry = if cold { Some(registry.get(bench).await?) } else { None };
    if let Some(registry) = registry {
        samples.add(PUSH, registry.push.clone());
    }
    let mut contenders = vec![Contender::Ours];
    if cold || bench.wants(Measure::Unchanged) {
        contenders.push(Contender::SaveLoad);
    }
    let (mut failures, mut refusals) = (Vec::new(), Vec::new());
    let mut skopeo = None;
    if cold {
        contenders.push(Contender::Registry);
        // Both stores use the same skopeo, from the older engine's release.
        match Skopeo::ready(bench, bench.range_image(Store::Overlay2)?).await {
            Ok(ready) => {
                contenders.push(Contender::Skopeo);
                skopeo = Some(ready);
            }
            Err(error) => refusals.push(bench.report_failure(SKOPEO, &error)),
        }
    }
    let layers = if bench.wants(Measure::TopLayer) {
        Some(TopLayers::built(bench, store).await?)
    } else {
        None
    };
    for round in 0..bench.rounds {
        contenders.rotate_left(usize::from(0 < round));
        for contender in contenders.clone() {
            bench.say(&format!("round {} of {}, {store}: {contender:?}", round + 1, bench.rounds));
            let done = match contender {
                Contender::Ours => ours(bench, store, round, layers.as_ref(), &mut samples).await,
                Contender::SaveLoad => by_save_load(bench, store, &mut samples).await,
                Contender::Registry => by_registry(bench, store, registry, &mut samples).await,
                Contender::Skopeo => by_skopeo(bench, store, skopeo.as_ref(), &mut samples).await,
            };
            let Err(error) = done else { continue };
            let words = bench.report_failure(&format!("{contender:?}"), &error);
            // A skopeo that cannot talk to an engine fails in every round.
            if contender == Contender::Skopeo {
                contenders.retain(|contender| *contender != Contender::Skopeo);
                refusals.push(words);
            } else {
                failures.push(words);
            }
        }
    }
    if let Some(layers) = layers {
        layers.end(bench).await?;
    }
    let rows = rows(bench, store, &samples, &refusals).into_iter();
    Ok(rows.map(|row| row.with_failures(&failures)).collect())
}

async fn ours(
    bench: &Bench,
    store: Store,
    round: usize,
    layers: Option<&TopLayers>,
    samples: &mut Samples,
) -> Result<()> {
    let testbed = Testbed::start(bench, 1).await?;
    let ranges = testbed.up(bench.range_image(store)?, &names("single", 1)?).await?;
    let images = &bench.images;
    samples.add("cold", testbed.timed(&ranges, testbed.sync(&ranges, images)).await?);
    for _ in 0..UNCHANGED_SYNCS {
        samples.add("unchanged", testbed.timed(&ranges, testbed.sync(&ranges, images)).await?);
    }
    if let Some(layers) = layers {
        let engine = &ranges[0].engine;
        // The order does not matter: neither layer builds on the other.
        let (by_sync, by_load) = layers.of(round);
        let wanted = [by_sync.to_owned()];
        if round.is_multiple_of(2) {
            samples.add("top layer", testbed.timed(&ranges, testbed.sync(&ranges, &wanted)).await?);
        }
        samples.add(THIN_LOAD, testbed.timed(&ranges, by_load.load(engine)).await?);
        if !round.is_multiple_of(2) {
            samples.add("top layer", testbed.timed(&ranges, testbed.sync(&ranges, &wanted)).await?);
        }
        engine.must_have(&[by_sync.to_owned(), by_load.image.clone()]).await?;
    }
    testbed.end().await
}

async fn by_save_load(bench: &Bench, store: Store, samples: &mut Samples) -> Result<()> {
    let testbed = Testbed::start(bench, 1).await?;
    let ranges = testbed.up(bench.range_image(store)?, &names("single", 1)?).await?;
    let engine = &ranges[0].engine;
    for peer in [SAVE_LOAD, AGAIN] {
        let sample =
            testbed.timed(&ranges, save_load(&testbed.host, engine, &bench.images)).await?;
        samples.add(peer, sample);
        engine.must_have(&bench.images).await?;
        if !bench.wants(Measure::Unchanged) {
            break;
        }
    }
    testbed.end().await
}

async fn by_registry(
    bench: &Bench,
    store: Store,
    registry: Option<&Registry>,
    samples: &mut Samples,
) -> Result<()> {
    let Some(registry) = registry else { return Ok(()) };
    let testbed = Testbed::start(bench, 1).await?;
    let ranges = testbed.up(bench.range_image(store)?, &names("single", 1)?).await?;
    let served = registry.serve_in(&ranges[0]).await?;
    samples.add(PULL, testbed.timed(&ranges, served.pull(&ranges[0].engine)).await?);
    testbed.end().await
}

async fn by_skopeo(
    bench: &Bench,
    store: Store,
    skopeo: Option<&Skopeo>,
    samples: &mut Samples,
) -> Result<()> {
    let Some(skopeo) = skopeo else { return Ok(()) };
    let testbed = Testbed::start(bench, 1).await?;
    let ranges = testbed.up(bench.range_image(store)?, &names("single", 1)?).await?;
    let engine = &ranges[0].engine;
    let copied = testbed.timed(&ranges, skopeo.copy(&testbed.host, engine, &bench.images)).await;
    if let Ok(sample) = &copied {
        engine.must_have(&bench.images).await?;
        samples.add(SKOPEO, sample.clone());
    }
    testbed.end().await?;
    copied.map(drop)
}

fn rows(bench: &Bench, store: Store, samples: &Samples, refusals: &[String]) -> Vec<Row> {
    let name = store.to_string();
    let row = |measure: &str, peer: &str| Row::of(measure, Some(&name), "s", samples.of(peer));
    let mut rows = Vec::new();
    if bench.wants(Measure::Cold) {
        let mut cold = row("cold-1", "cold");
        for peer in [PULL, PUSH, SKOPEO] {
            cold = cold.with_peer(peer, samples.of(peer));
        }
        let goal = cold_goal(store);
        cold = cold.goal_against(SAVE_LOAD, samples.of(SAVE_LOAD), Bound::Most, goal);
        rows.push(cold.with_failures(refusals));
    }
    if bench.wants(Measure::Unchanged) {
        rows.push(row("unchanged-4", "unchanged").goal(Bound::Most, 0.15));
        rows.push(row("unchanged-4-again", "unchanged").goal_against(
            AGAIN,
            samples.of(AGAIN),
            Bound::Most,
            0.01,
        ));
    }
    if bench.wants(Measure::TopLayer) {
        rows.push(row("top-layer", "top layer").goal_against(
            THIN_LOAD,
            samples.of(THIN_LOAD),
            Bound::Most,
            1.5,
        ));
    }
    rows
}
