//! The ways of an image into a range's engine, each forced in turn: shows that the default is the
//! measured best.

use anyhow::Result;
use range::LoadWay;

use super::Bench;
use super::row::{Book, Bound, Row};
use super::site::{Ground, Site, names};
use crate::setup::Store;

/// How much slower than the best way the default may be: a tenth is what a cold range's clock is
/// good for.
const AS_GOOD: f64 = 1.1;

/// Those that a store can be forced to; [`LoadWay::Auto`] is measured beside them.
fn ways(store: Store) -> &'static [LoadWay] {
    match store {
        Store::Overlay2 => &[LoadWay::Archive, LoadWay::Registry],
        Store::Containerd => &[LoadWay::Archive, LoadWay::Containerd, LoadWay::Registry],
    }
}

/// Measures every way on one store.
pub(super) async fn run(bench: &Bench, store: Store) -> Result<Vec<Row>> {
    let mut book = Book::default();
    let mut failures = Vec::new();
    let mut left: Vec<LoadWay> = [&[LoadWay::Auto], ways(store)].concat();
    for round in 0..bench.rounds {
        for way in left.clone() {
            bench.say(&format!("round {} of {}, {store}: load way {way}", round + 1, bench.rounds));
            if let Err(error) = once(bench, store, way, &mut book).await {
                failures.push(bench.failed(&format!("load way {way}"), &error));
                left.retain(|other| *other != way);
            }
        }
        let turn = usize::from(!left.is_empty());
        left.rotate_left(turn);
    }
    let auto = LoadWay::Auto.to_string();
    let mut row = Row::of("load-ways", Some(&store.to_string()), "s", book.takes(&auto));
    for way in ways(store) {
        let name = way.to_string();
        row = row.beside(&name, book.takes(&name));
    }
    let best = row.peers.iter().min_by(|left, right| left.1.total_cmp(right.1));
    let best = best.map(|(name, _)| name.clone());
    let row = match best {
        Some(best) => row.goal_against(&best, book.takes(&best), Bound::Most, AS_GOOD),
        None => row,
    };
    Ok(vec![row.with_failures(&failures)])
}

async fn once(bench: &Bench, store: Store, way: LoadWay, book: &mut Book) -> Result<()> {
    let ground = Ground { load_way: way, ..Ground::of(bench) };
    let site = Site::on(bench, 1, ground).await?;
    let ranges = site.up(bench.range_image(store)?, &names("way", 1)?).await?;
    let take = site.timed(&ranges, site.sync(&ranges, &bench.images)).await?;
    ranges[0].engine.must_have(&bench.images).await?;
    book.note(&way.to_string(), take);
    site.end().await
}
