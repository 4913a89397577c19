//! Many ranges in which nothing changed: how long a sync of all takes, as a JSON object a line; run by
//! `cargo xtask bench`.

use std::collections::BTreeMap;

use benches::figures::median;
use benches::fleet::{Fleet, Size};
use clap::Parser;
use serde_json::json;
use transfer::StoreKind;

/// As in the agents.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What all of it may take, in seconds: 20 images in 50 ranges.
const GOAL: f64 = 1.0;

/// Syncs a fleet of ranges on engine fixtures in which nothing changed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Ranges.
    #[arg(long, default_value_t = 50)]
    ranges: usize,
    /// Images in each.
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// How often it is measured; medians are told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { ranges, images, rounds } = Arguments::parse();
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let fleet = Fleet::start(Size { ranges, images }, store).await?;
        // The first connects, and lets every agent find out who its engine is.
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
        // The goal is about this size, and says nothing of another.
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

#[expect(clippy::print_stdout, reason = "the lines are what this program is for")]
fn emit(line: &serde_json::Value) {
    println!("{line}");
}
