//! One live range: filled cold, asked again when nothing changed, and given one more layer.
//!
//! ```text
//! for each round, in turn:
//!   ours          fresh range ► sync cold ► sync again × 5 ► sync + 21 MB ► load + 21 MB (the engine's own)
//!   save | load   fresh range ► save | load ► the same again
//!   registry      fresh range ► pull of all images at once
//!   skopeo        fresh range ► copy of one image after the other
//! ```

use anyhow::Result;

use super::docker::save_load;
use super::layer::TopLayers;
use super::registry::Registry;
use super::row::{Book, Bound, Row};
use super::site::{Site, names};
use super::skopeo::Skopeo;
use super::{Bench, Measure};
use crate::setup::Store;

/// What the goals are about.
pub(super) const SAVE_LOAD: &str = "save | load";

/// The other peers.
const AGAIN: &str = "save | load again";
const PULL: &str = "registry pull";
const PUSH: &str = "registry push, once";
const SKOPEO: &str = "skopeo copy";

/// The engine's own load of an archive with the one layer.
const THIN_LOAD: &str = "load of that layer";

/// How often a range is asked again: each takes a tenth of a second.
const ASKED: usize = 5;

/// The most that a cold range may take of what `save | load` takes.
fn cold_goal(store: Store) -> f64 {
    match store {
        Store::Overlay2 => 0.50,
        Store::Containerd => 0.40,
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Ours,
    SaveLoad,
    Registry,
    Skopeo,
}

/// Measures all of it on one store.
pub(super) async fn run(bench: &Bench, store: Store) -> Result<Vec<Row>> {
    let mut book = Book::default();
    let cold = bench.wants(Measure::Cold);
    let registry = if cold { Some(bench.registry().await?) } else { None };
    if let Some(registry) = registry {
        book.note(PUSH, registry.push.clone());
    }
    let mut contenders = vec![Contender::Ours];
    if cold || bench.wants(Measure::Unchanged) {
        contenders.push(Contender::SaveLoad);
    }
    let (mut failures, mut refusals) = (Vec::new(), Vec::new());
    let mut skopeo = None;
    if cold {
        contenders.push(Contender::Registry);
        // Of one release for both stores: the older engine's.
        match Skopeo::ready(bench, bench.range_image(Store::Overlay2)?).await {
            Ok(ready) => {
                contenders.push(Contender::Skopeo);
                skopeo = Some(ready);
            }
            Err(error) => refusals.push(bench.failed(SKOPEO, &error)),
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
                Contender::Ours => ours(bench, store, round, layers.as_ref(), &mut book).await,
                Contender::SaveLoad => by_save_load(bench, store, &mut book).await,
                Contender::Registry => by_registry(bench, store, registry, &mut book).await,
                Contender::Skopeo => by_skopeo(bench, store, skopeo.as_ref(), &mut book).await,
            };
            let Err(error) = done else { continue };
            let words = bench.failed(&format!("{contender:?}"), &error);
            // An engine that a peer does not understand is not understood in any round.
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
    let rows = rows(bench, store, &book, &refusals).into_iter();
    Ok(rows.map(|row| row.with_failures(&failures)).collect())
}

async fn ours(
    bench: &Bench,
    store: Store,
    round: usize,
    layers: Option<&TopLayers>,
    book: &mut Book,
) -> Result<()> {
    let site = Site::start(bench, 1).await?;
    let ranges = site.up(bench.range_image(store)?, &names("alone", 1)?).await?;
    let images = &bench.images;
    book.note("cold", site.timed(&ranges, site.sync(&ranges, images)).await?);
    for _ in 0..ASKED {
        book.note("unchanged", site.timed(&ranges, site.sync(&ranges, images)).await?);
    }
    if let Some(layers) = layers {
        let engine = &ranges[0].engine;
        // Who goes first finds the same base: neither layer is on the other.
        let (by_sync, by_load) = layers.of(round);
        let wanted = [by_sync.to_owned()];
        if round.is_multiple_of(2) {
            book.note("top layer", site.timed(&ranges, site.sync(&ranges, &wanted)).await?);
        }
        book.note(THIN_LOAD, site.timed(&ranges, by_load.load(engine)).await?);
        if !round.is_multiple_of(2) {
            book.note("top layer", site.timed(&ranges, site.sync(&ranges, &wanted)).await?);
        }
        engine.must_have(&[by_sync.to_owned(), by_load.image.clone()]).await?;
    }
    site.end().await
}

async fn by_save_load(bench: &Bench, store: Store, book: &mut Book) -> Result<()> {
    let site = Site::start(bench, 1).await?;
    let ranges = site.up(bench.range_image(store)?, &names("alone", 1)?).await?;
    let engine = &ranges[0].engine;
    for who in [SAVE_LOAD, AGAIN] {
        let take = site.timed(&ranges, save_load(&site.host, engine, &bench.images)).await?;
        book.note(who, take);
        engine.must_have(&bench.images).await?;
        if !bench.wants(Measure::Unchanged) {
            break;
        }
    }
    site.end().await
}

async fn by_registry(
    bench: &Bench,
    store: Store,
    registry: Option<&Registry>,
    book: &mut Book,
) -> Result<()> {
    let Some(registry) = registry else { return Ok(()) };
    let site = Site::start(bench, 1).await?;
    let ranges = site.up(bench.range_image(store)?, &names("alone", 1)?).await?;
    let served = registry.beside(&ranges[0]).await?;
    book.note(PULL, site.timed(&ranges, served.pull(&ranges[0].engine)).await?);
    site.end().await
}

async fn by_skopeo(
    bench: &Bench,
    store: Store,
    skopeo: Option<&Skopeo>,
    book: &mut Book,
) -> Result<()> {
    let Some(skopeo) = skopeo else { return Ok(()) };
    let site = Site::start(bench, 1).await?;
    let ranges = site.up(bench.range_image(store)?, &names("alone", 1)?).await?;
    let engine = &ranges[0].engine;
    let copied = site.timed(&ranges, skopeo.copy(&site.host, engine, &bench.images)).await;
    if let Ok(take) = &copied {
        engine.must_have(&bench.images).await?;
        book.note(SKOPEO, take.clone());
    }
    site.end().await?;
    copied.map(drop)
}

fn rows(bench: &Bench, store: Store, book: &Book, refusals: &[String]) -> Vec<Row> {
    let name = store.to_string();
    let row = |measure: &str, who: &str| Row::of(measure, Some(&name), "s", book.takes(who));
    let mut rows = Vec::new();
    if bench.wants(Measure::Cold) {
        let mut cold = row("cold-1", "cold");
        for peer in [PULL, PUSH, SKOPEO] {
            cold = cold.beside(peer, book.takes(peer));
        }
        let goal = cold_goal(store);
        cold = cold.goal_against(SAVE_LOAD, book.takes(SAVE_LOAD), Bound::Most, goal);
        rows.push(cold.with_failures(refusals));
    }
    if bench.wants(Measure::Unchanged) {
        rows.push(row("unchanged-4", "unchanged").goal(Bound::Most, 0.15));
        rows.push(row("unchanged-4-again", "unchanged").goal_against(
            AGAIN,
            book.takes(AGAIN),
            Bound::Most,
            0.01,
        ));
    }
    if bench.wants(Measure::TopLayer) {
        rows.push(row("top-layer", "top layer").goal_against(
            THIN_LOAD,
            book.takes(THIN_LOAD),
            Bound::Most,
            1.5,
        ));
    }
    rows
}
