//! Syncs of a fleet of unchanged ranges, timed as one JSON object per line for `cargo xtask bench`.

use std::collections::BTreeMap;

use benches::figures::median;
use benches::fleet::{Fleet, Size};
use clap::Parser;
use serde_json::json;
use transfer::StoreKind;

/// The agents' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Goal in seconds for 20 images in 50 ranges.
const GOAL: f64 = 1.0;

/// Sync a fleet of unchanged ranges on simulated engines, and print the times as JSON lines.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of ranges.
    #[arg(long, default_value_t = 50)]
    ranges: usize,
    /// Number of images in each range.
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// Number of measured syncs; `ours` is their median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { ranges, images, rounds } = Arguments::parse();
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let fleet = Fleet::start(Size { ranges, images }, store).await?;
        // The first sync opens the connections and caches every engine's info.
        fleet.sync().await?;
        let before = fleet.requests();
        let mut seconds = Vec::with_capacity(rounds);
        for _ in 0..rounds.max(1) {
            seconds.push(fleet.sync().await?.as_secs_f64());
        }
        let after = fleet.requests();
        let per_round = |requests: u64| requests / seconds.len() as u64;
        let counters = BTreeMap::from([
            ("host_engine_requests", per_round(after.0 - before.0)),
            ("range_engine_requests", per_round(after.1 - before.1)),
        ]);
        fleet.end().await?;
        let ours = median(&seconds);
        // The goal applies to this size only.
        let goal = ((ranges, images) == (50, 20)).then_some(GOAL);
        emit(&json!({
            "measure": format!("unchanged-{images}x{ranges}"), "store": store.to_string(),
            "rounds": seconds.len(), "ours": ours, "peer": null, "peers": {}, "unit": "s",
            "ratio": null, "goal": goal, "met": goal.map(|goal| ours <= goal),
            "counters": counters, "raw": { "ours": seconds },
        }));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the JSON lines are this program's output")]
fn emit(line: &serde_json::Value) {
    println!("{line}");
}
