//! Cold ranges from a seed: clone, start of the engine, and proof, by one call.
//!
//! The seed is made before the clock starts, by asking for two ranges at once. The peer fills a range
//! whose engine runs already: its start is on our side of the scales alone.

use anyhow::{Context as _, Result, ensure};
use range::RangeName;

use super::Bench;
use super::alone::SAVE_LOAD;
use super::docker::{Docker, save_load};
use super::row::{Book, Bound, Row};
use super::site::{Ground, Site, names};
use super::xfs::XfsEngine;
use crate::setup::Store;

/// What a range says of itself that came from a seed.
const CLONED: &str = "cloned";

/// A network for ranges whose runner has none: nothing is pulled.
const NO_NETWORK: &str = "none";

/// The most that a cold range may take of what `save | load` takes.
const BY_REFLINK: f64 = 0.15;
const BY_COPY: f64 = 0.35;

/// By reflink, on XFS on a loop device.
pub(super) async fn reflink(bench: &Bench) -> Result<Vec<Row>> {
    let store = Store::Overlay2;
    let image = bench.range_image(store)?;
    let host = Docker::at(bench.host());
    let engine = match XfsEngine::start(&bench.folder, &host, image).await {
        Ok(engine) => engine,
        Err(error) => {
            let why = format!("no XFS on a loop device here: {error:#}");
            return Ok(vec![Row::absent("seed-reflink", Some(&store.to_string()), why)]);
        }
    };
    let ground = Ground {
        runner: engine.host().to_owned(),
        network: Some(NO_NETWORK.to_owned()),
        ..Ground::of(bench)
    };
    let row = measured(bench, "seed-reflink", store, ground, BY_REFLINK).await;
    drop(engine);
    Ok(vec![row?])
}

/// By copy, where the engine keeps its volumes anyway.
pub(super) async fn copy(bench: &Bench, store: Store) -> Result<Vec<Row>> {
    Ok(vec![measured(bench, "seed-copy", store, Ground::of(bench), BY_COPY).await?])
}

async fn measured(
    bench: &Bench,
    measure: &str,
    store: Store,
    ground: Ground,
    goal: f64,
) -> Result<Row> {
    let image = bench.range_image(store)?;
    let site = Site::on(bench, 2, ground).await?;
    let mut book = Book::default();
    bench.say(&format!("{measure}, {store}: making the seed"));
    let makers = names("maker", 2)?;
    cloned(&site, image, &makers, &bench.images).await?;
    site.down(&makers).await?;
    let mut failures = Vec::new();
    for round in 0..bench.rounds {
        let mut whose = ["ours", SAVE_LOAD];
        whose.rotate_left(round % 2);
        for who in whose {
            bench.say(&format!(
                "round {} of {}, {measure}, {store}: {who}",
                round + 1,
                bench.rounds
            ));
            if let Err(error) = once(bench, &site, image, who, &mut book).await {
                failures.push(bench.failed(who, &error));
            }
        }
    }
    site.end().await?;
    let row = Row::of(measure, Some(&store.to_string()), "s", book.takes("ours")).goal_against(
        SAVE_LOAD,
        book.takes(SAVE_LOAD),
        Bound::Most,
        goal,
    );
    Ok(row.with_failures(&failures))
}

async fn once(bench: &Bench, site: &Site, image: &str, who: &str, book: &mut Book) -> Result<()> {
    let range = names("seeded", 1)?;
    if who == SAVE_LOAD {
        let ranges = site.up(image, &range).await?;
        let engine = &ranges[0].engine;
        let take = site.timed(&ranges, save_load(&site.host, engine, &bench.images)).await?;
        engine.must_have(&bench.images).await?;
        book.note(who, take);
    } else {
        let take = site.timed(&[], cloned(site, image, &range, &bench.images)).await?;
        site.inside(&range[0]).await?.engine.must_have(&bench.images).await?;
        book.note(who, take);
    }
    site.down(&range).await
}

/// Brings ranges up with their images, and sees to it that they came from a seed.
async fn cloned(site: &Site, image: &str, names: &[RangeName], images: &[String]) -> Result<()> {
    let report = site.up_with(image, names, images).await?;
    for range in &report.ranges {
        let provision = serde_json::to_value(range.provision).context("a range's provision")?;
        ensure!(provision == CLONED, "{} came from no seed: {provision}", range.range);
    }
    Ok(())
}
