//! Load methods of a range's engine, each forced in turn, to show that the default is the fastest.

use anyhow::Result;
use range::LoadWay;

use super::context::Bench;
use super::row::{Bound, Row, Samples};
use super::testbed::{Conditions, Testbed, names};
use crate::setup::Store;

/// Highest ratio of the default to the fastest method. Times of a cold range are accurate to a tenth.
const AS_GOOD: f64 = 1.1;

/// The methods that can be forced on a store; [`LoadWay::Auto`] is compared with them.
fn ways(store: Store) -> &'static [LoadWay] {
    match store {
        Store::Overlay2 => &[LoadWay::Archive, LoadWay::Registry],
        Store::Containerd => &[LoadWay::Archive, LoadWay::Containerd, LoadWay::Registry],
    }
}

/// Measures every load method on one store.
pub(super) async fn run(bench: &Bench, store: Store) -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    let mut failures = Vec::new();
    let mut left: Vec<LoadWay> = [&[LoadWay::Auto], ways(store)].concat();
    for round in 0..bench.rounds {
        for way in left.clone() {
            bench.say(&format!(
                "round {} of {}, {store}: load method {way}",
                round + 1,
                bench.rounds
            ));
            if let Err(error) = once(bench, store, way, &mut samples).await {
                failures.push(bench.report_failure(&format!("load method {way}"), &error));
                left.retain(|other| *other != way);
            }
        }
        let turn = usize::from(!left.is_empty());
        left.rotate_left(turn);
    }
    let auto = LoadWay::Auto.to_string();
    let mut row = Row::of("load-ways", Some(&store.to_string()), "s", samples.of(&auto));
    for way in ways(store) {
        let name = way.to_string();
        row = row.with_peer(&name, samples.of(&name));
    }
    let best = row.peers.iter().min_by(|left, right| left.1.total_cmp(right.1));
    let best = best.map(|(name, _)| name.clone());
    let row = match best {
        Some(best) => row.goal_against(&best, samples.of(&best), Bound::Most, AS_GOOD),
        None => row,
    };
    Ok(vec![row.with_failures(&failures)])
}

async fn once(bench: &Bench, store: Store, way: LoadWay, samples: &mut Samples) -> Result<()> {
    let conditions = Conditions { load_way: way, ..Conditions::of(bench) };
    let testbed = Testbed::on(bench, 1, conditions).await?;
    let ranges = testbed.up(bench.range_image(store)?, &names("way", 1)?).await?;
    let sample = testbed.timed(&ranges, testbed.sync(&ranges, &bench.images)).await?;
    ranges[0].engine.must_have(&bench.images).await?;
    samples.add(&way.to_string(), sample);
    testbed.end().await
}
