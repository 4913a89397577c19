//! A row of the result: one measure with the medians of ours and of the peers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One measurement: a value, and the counters during it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// The measured value in the row's unit, usually wall-clock seconds.
    pub(super) value: f64,
    /// Counters by name, which ends with the unit: `host_agent_cpu_seconds`.
    pub(super) counters: BTreeMap<String, f64>,
}

impl Sample {
    /// A sample without counters.
    pub(super) fn of(value: f64) -> Self {
        Self { value, counters: BTreeMap::new() }
    }
}

/// All samples of a group so far, by contender.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<String, Vec<Sample>>);

impl Samples {
    pub(super) fn add(&mut self, name: &str, sample: Sample) {
        self.0.entry(name.to_owned()).or_default().push(sample);
    }

    /// The samples of `name`, in the order of the rounds.
    pub(super) fn of(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The side of its goal on which a figure must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bound {
    /// At most the goal.
    #[default]
    Most,
    /// At least the goal.
    Least,
}

/// One measure, printed as one JSON object per line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The measure's name.
    pub(super) measure: String,
    /// The image store of the ranges; null if no engine takes part.
    #[serde(default)]
    pub(super) store: Option<String>,
    /// Number of samples behind `ours`; 0 if the measure failed.
    pub(super) rounds: usize,
    /// Our median; null if the measure failed, with the reason in `note`.
    pub(super) ours: Option<f64>,
    /// The median of the peer in the goal; null if the goal is for `ours` itself.
    #[serde(default)]
    pub(super) peer: Option<f64>,
    /// The medians of all peers, in the same unit.
    #[serde(default)]
    pub(super) peers: BTreeMap<String, f64>,
    /// The unit of `ours`, `peer` and `peers`.
    pub(super) unit: String,
    /// `ours` divided by `peer`.
    #[serde(default)]
    pub(super) ratio: Option<f64>,
    /// The limit for `ratio`, or for `ours` without a peer; null without a goal.
    #[serde(default)]
    pub(super) goal: Option<f64>,
    /// True if the goal is met; null without a goal or a figure.
    #[serde(default)]
    pub(super) met: Option<bool>,
    /// The kind of the goal: an upper or a lower limit.
    #[serde(default)]
    pub(super) bound: Bound,
    /// The peer's key in `peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
    /// Medians of our counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) counters: BTreeMap<String, f64>,
    /// Medians of the peer's counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) peer_counters: BTreeMap<String, f64>,
    /// The figures of each round by contender; ours are under `ours`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) raw: BTreeMap<String, Vec<f64>>,
    /// Remarks, such as the reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// Key of our figures in `raw`.
const OURS: &str = "ours";

impl Row {
    /// A row with our figures only.
    pub(super) fn of(measure: &str, store: Option<&str>, unit: &str, ours: &[Sample]) -> Self {
        let values: Vec<f64> = ours.iter().map(|sample| sample.value).collect();
        Self {
            measure: measure.to_owned(),
            store: store.map(str::to_owned),
            rounds: values.len(),
            ours: median(&values).map(rounded),
            unit: unit.to_owned(),
            counters: counters(ours),
            raw: BTreeMap::from([(OURS.to_owned(), values)]),
            ..Self::default()
        }
    }

    /// A row of a failed measure, with the reason.
    pub(super) fn failed(measure: &str, store: Option<&str>, why: impl Into<String>) -> Self {
        Self { note: Some(why.into()), ..Self::of(measure, store, "s", &[]) }
    }

    /// Adds a peer's figures, if there are any.
    pub(super) fn with_peer(mut self, name: &str, samples: &[Sample]) -> Self {
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        if let Some(median) = median(&values) {
            self.peers.insert(name.to_owned(), rounded(median));
            self.raw.insert(name.to_owned(), values);
        }
        self
    }

    /// Adds a peer's figures, and a goal for the ratio to them.
    pub(super) fn goal_against(
        self,
        peer: &str,
        samples: &[Sample],
        bound: Bound,
        goal: f64,
    ) -> Self {
        let mut row = self.with_peer(peer, samples);
        row.against = Some(peer.to_owned());
        row.peer = row.peers.get(peer).copied();
        row.peer_counters = counters(samples);
        row.ratio = row.ours.zip(row.peer).map(|(ours, peer)| rounded(ours / peer));
        let ratio = row.ratio;
        row.judge(ratio, bound, goal)
    }

    /// Adds a goal for our own figure.
    pub(super) fn goal(self, bound: Bound, goal: f64) -> Self {
        let ours = self.ours;
        self.judge(ours, bound, goal)
    }

    /// Adds a remark.
    pub(super) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Removes the goal, which does not apply to a quick run.
    pub(super) fn without_goal(self) -> Self {
        Self { goal: None, met: None, ..self }
    }

    /// Adds the failures of single rounds as remarks.
    pub(super) fn with_failures(mut self, failures: &[String]) -> Self {
        if !failures.is_empty() {
            let words = self.note.take().into_iter().chain(failures.iter().cloned());
            self.note = Some(words.collect::<Vec<_>>().join("; "));
        }
        self
    }

    fn judge(mut self, figure: Option<f64>, bound: Bound, goal: f64) -> Self {
        self.goal = Some(goal);
        self.bound = bound;
        self.met = figure.map(|figure| match bound {
            Bound::Most => figure <= goal,
            Bound::Least => goal <= figure,
        });
        self
    }
}

/// The median of each counter.
fn counters(samples: &[Sample]) -> BTreeMap<String, f64> {
    let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in samples.iter().flat_map(|sample| &sample.counters) {
        values.entry(name).or_default().push(*value);
    }
    let medians = values.into_iter().filter_map(|(name, values)| Some((name, median(&values)?)));
    medians.map(|(name, median)| (name.clone(), rounded(median))).collect()
}

/// One counter of each sample, as samples of their own.
pub(super) fn counted(samples: &[Sample], counter: &str) -> Vec<Sample> {
    samples
        .iter()
        .filter_map(|sample| sample.counters.get(counter))
        .map(|value| Sample::of(*value))
        .collect()
}

/// The median of `values`; `None` for an empty slice.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// Rounds to four decimals; more would exceed the clock's precision.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Formats a value with three significant digits, or with all digits before the point.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match () {
        () if size >= 100.0 => format!("{value:.0}"),
        () if size >= 10.0 => format!("{value:.1}"),
        () if size >= 1.0 => format!("{value:.2}"),
        () => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().map(|value| Sample::of(*value)).collect()
    }

    #[test]
    fn a_median_is_the_middle() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0], Some(5.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_goal_is_met_on_its_side() {
        let row = |ours: f64| {
            Row::of("m", None, "s", &samples(&[ours])).with_peer("pull", &samples(&[9.0]))
        };
        for (ours, bound, goal, met) in [
            (1.0, Bound::Most, 0.5, true),
            (1.1, Bound::Most, 0.5, false),
            (1.0, Bound::Least, 0.5, true),
            (0.9, Bound::Least, 0.5, false),
        ] {
            let row = row(ours).goal_against("save", &samples(&[2.0]), bound, goal);
            assert_eq!(row.met, Some(met), "{row:?}");
            assert_eq!((row.peer, row.ratio), (Some(2.0), Some(ours / 2.0)), "{row:?}");
        }
        let row = row(1.0).goal_against("load", &[], Bound::Most, 0.5);
        assert_eq!((row.peer, row.ratio, row.met), (None, None, None), "there is no peer");
        assert_eq!(Row::failed("m", None, "no disk").goal(Bound::Most, 1.0).met, None);
    }

    #[test]
    fn counters_are_medians_over_the_samples() {
        let counted = |value: f64| Sample {
            value,
            counters: BTreeMap::from([("cpu_seconds".to_owned(), 2.0 * value)]),
        };
        let row =
            Row::of("m", Some("overlay2"), "s", &[counted(1.0), counted(3.0), Sample::of(2.0)])
                .goal_against("save", &[counted(8.0)], Bound::Most, 0.5);
        assert_eq!(row.ours, Some(2.0));
        assert_eq!(row.counters["cpu_seconds"], 4.0);
        assert_eq!(row.peer_counters["cpu_seconds"], 16.0);
    }

    #[test]
    fn a_line_has_the_fields_that_scripts_read() {
        let row = Row::of("cold-1", Some("overlay2"), "s", &samples(&[1.0])).goal_against(
            "save | load",
            &samples(&[4.0]),
            Bound::Most,
            0.5,
        );
        let line = serde_json::to_value(&row).unwrap();
        for field in
            ["measure", "store", "rounds", "ours", "peer", "peers", "unit", "ratio", "goal", "met"]
        {
            assert!(!line[field].is_null(), "{field}: {line}");
        }
        assert_eq!(serde_json::from_value::<Row>(line).unwrap(), row);
    }
}
