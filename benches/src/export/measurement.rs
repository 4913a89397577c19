//! One measure as a line of JSON: medians and the figures of every round.

use std::collections::BTreeMap;

use serde_json::json;

use super::options::{Cache, Timing};
use crate::figures::median;

/// The results of one measure in each round.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub(super) measure: &'static str,
    pub(super) store: &'static str,
    pub(super) image: String,
    pub(super) way: &'static str,
    pub(super) cache: Cache,
    pub(super) rounds: usize,
    pub(super) unit: &'static str,
    /// The least ratio, or the most seconds if the unit is `s`; `None` without a goal.
    pub(super) goal: Option<f64>,
    pub(super) ours: Vec<f64>,
    pub(super) peers: BTreeMap<&'static str, Vec<f64>>,
    /// Our CPU seconds per gigabyte, by round.
    pub(super) cpu: Vec<f64>,
}

impl Measurement {
    /// Adds our result of a round. Round 0 warms up and does not count.
    pub(super) fn add_ours(&mut self, round: usize, took: Timing) -> anyhow::Result<()> {
        if 0 < round {
            self.ours.push(self.value(took));
            self.cpu.push(took.cpu.as_secs_f64() / gigabytes(took.bytes).max(f64::EPSILON));
        }
        Ok(())
    }

    pub(super) fn add_peer(&mut self, round: usize, took: Timing) -> anyhow::Result<()> {
        let value = self.value(took);
        if 0 < round {
            self.peers.entry("save").or_default().push(value);
        }
        Ok(())
    }

    fn value(&self, took: Timing) -> f64 {
        match self.unit {
            "s" => took.time.as_secs_f64(),
            _ => gigabytes(took.bytes) * 1000.0 / took.time.as_secs_f64(),
        }
    }

    /// Reports whether the goal is met; `None` without a goal.
    fn met(&self, ours: f64, ratio: f64) -> Option<bool> {
        let goal = self.goal?;
        Some(if self.unit == "s" { ours <= goal } else { goal <= ratio })
    }

    /// The measurement as JSON. `ratio` is the median of the ratios within rounds, ours to the peer's:
    /// larger is better for speeds, smaller for seconds.
    #[must_use]
    pub fn to_json(&self) -> String {
        let peers: BTreeMap<_, _> =
            self.peers.iter().map(|(name, rounds)| (*name, median(rounds))).collect();
        let save = self.peers.get("save").map(Vec::as_slice).unwrap_or_default();
        let ratios: Vec<_> = self.ours.iter().zip(save).map(|(ours, peer)| ours / peer).collect();
        let (ours, ratio) = (median(&self.ours), median(&ratios));
        let cache = match self.cache {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        };
        json!({
            "measure": self.measure, "store": self.store, "rounds": self.rounds,
            "ours": ours, "peer": peers.get("save"), "peers": peers, "unit": self.unit,
            "ratio": ratio, "goal": self.goal, "met": self.met(ours, ratio),
            "image": self.image, "way": self.way, "cache": cache,
            "cpu_seconds_per_gb": median(&self.cpu),
            "raw": { "ours": self.ours, "save": save },
        })
        .to_string()
    }
}

fn gigabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = bytes as f64;
    bytes / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(unit: &'static str, goal: f64) -> Measurement {
        Measurement {
            measure: "export-layer",
            store: "overlay2",
            image: "app:1".to_owned(),
            way: "files",
            cache: Cache::Warm,
            rounds: 3,
            unit,
            goal: Some(goal),
            ours: Vec::new(),
            peers: BTreeMap::new(),
            cpu: Vec::new(),
        }
    }

    fn took(bytes: u64, millis: u64) -> Timing {
        Timing { bytes, time: Duration::from_millis(millis), cpu: Duration::ZERO }
    }

    #[test]
    fn the_json_has_medians_without_the_first_round_and_whether_the_goal_is_met() {
        for (unit, goal, ours, ratio, met) in [
            ("MB/s", 3.0, 1000.0, 4.0, true),
            ("MB/s", 5.0, 1000.0, 4.0, false),
            ("s", 0.2, 1.0, 0.25, false),
        ] {
            let mut line = line(unit, goal);
            for (round, millis) in [1, 1000, 500, 2000].into_iter().enumerate() {
                line.add_ours(round, took(1_000_000_000, millis)).unwrap();
                line.add_peer(round, took(1_000_000_000, millis * 4)).unwrap();
            }
            let json: serde_json::Value = serde_json::from_str(&line.to_json()).unwrap();
            assert_eq!(json["ours"], ours, "{unit}: {json}");
            assert_eq!(json["ratio"], ratio, "{unit}: {json}");
            assert_eq!(json["met"], met, "{unit} {goal}: {json}");
        }
    }
}
