//! Four live ranges at once, and what they cost the host.
//!
//! The floor is what four engines need to load the same content that is already in memory: nobody
//! who goes through an engine's own `load` can be faster.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;

use super::alone::SAVE_LOAD;
use super::docker::{Docker, save_load};
use super::row::{Book, Bound, Row, counted};
use super::site::{Inside, Site, names};
use super::{Bench, Measure};
use crate::setup::Store;

/// How many.
const RANGES: usize = 4;

/// The engines' own floor.
const LOAD: &str = "load from memory";

/// The measurements with one range.
const ONE: &str = "1 range";

/// Measures ranges on the overlay2 store.
pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut book = Book::default();
    let archive = bench.folder.join("stack.tar");
    let four = bench.wants(Measure::Four);
    if four {
        Docker::at(bench.host()).save(&bench.images, &archive).await?;
    }
    let mut failures = Vec::new();
    for round in 0..bench.rounds {
        let mut whose = vec!["ours"];
        if four {
            whose.extend([SAVE_LOAD, LOAD]);
        }
        if bench.wants(Measure::HostCost) {
            whose.push(ONE);
        }
        let turn = round % whose.len();
        whose.rotate_left(turn);
        for who in whose {
            bench.say(&format!("round {} of {}, {RANGES} ranges: {who}", round + 1, bench.rounds));
            if let Err(error) = once(bench, who, &archive, &mut book).await {
                failures.push(bench.failed(who, &error));
            }
        }
    }
    if four {
        std::fs::remove_file(&archive).context("removing an archive")?;
    }
    Ok(rows(bench, &book).into_iter().map(|row| row.with_failures(&failures)).collect())
}

async fn once(bench: &Bench, who: &str, archive: &Path, book: &mut Book) -> Result<()> {
    let count = if who == ONE { 1 } else { RANGES };
    let site = Site::start(bench, count).await?;
    let image = bench.range_image(Store::Overlay2)?;
    let ranges = site.up(image, &names("four", count)?).await?;
    let images = &bench.images;
    let take = match who {
        SAVE_LOAD => {
            let each = ranges.iter().map(|range| save_load(&site.host, &range.engine, images));
            site.timed(&ranges, async { try_join_all(each).await.map(drop) }).await?
        }
        LOAD => {
            // Into memory first, where it may have been pushed out.
            std::io::copy(&mut std::fs::File::open(archive)?, &mut std::io::sink())?;
            let each = ranges.iter().map(|range| range.engine.load(archive));
            site.timed(&ranges, async { try_join_all(each).await.map(drop) }).await?
        }
        _ => site.timed(&ranges, site.sync(&ranges, images)).await?,
    };
    all_have(&ranges, images).await?;
    book.note(who, take);
    site.end().await
}

async fn all_have(ranges: &[Inside], images: &[String]) -> Result<()> {
    try_join_all(ranges.iter().map(|range| range.engine.must_have(images))).await.map(drop)
}

fn rows(bench: &Bench, book: &Book) -> Vec<Row> {
    let store = Store::Overlay2.to_string();
    let ours = book.takes("ours");
    let mut rows = Vec::new();
    if bench.wants(Measure::Four) {
        for (measure, peer, goal) in [("cold-4", SAVE_LOAD, 0.75), ("cold-4-floor", LOAD, 1.05)] {
            rows.push(
                Row::of(measure, Some(&store), "s", ours)
                    .beside(SAVE_LOAD, book.takes(SAVE_LOAD))
                    .beside(LOAD, book.takes(LOAD))
                    .goal_against(peer, book.takes(peer), Bound::Most, goal),
            );
        }
    }
    if bench.wants(Measure::HostCost) {
        let one = book.takes(ONE);
        for (measure, counter, unit) in [
            ("host-read", "engine_read_bytes", "bytes"),
            ("host-engine-cpu", "host_engine_cpu_seconds", "s"),
            ("host-agent-cpu", "host_agent_cpu_seconds", "s"),
        ] {
            let row = Row::of(measure, Some(&store), unit, &counted(ours, counter));
            let beside = counted(one, counter);
            rows.push(if measure == "host-read" {
                row.goal_against(ONE, &beside, Bound::Most, 1.0)
                    .noting("4 ranges at once read the host's engine as often as 1 does: once")
            } else {
                row.beside(ONE, &beside)
                    .noting("4 ranges at once, beside 1: what is left to grow is the sending")
            });
        }
    }
    rows
}
