//! A line of the result: one measure with its medians, beside what a user would pick instead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One measurement: what the clock said, and what was counted meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Take {
    /// What was measured, in the row's unit; mostly seconds on the wall.
    pub(super) value: f64,
    /// Counters by name, the unit at the end of each: `host_agent_cpu_seconds`.
    pub(super) counters: BTreeMap<String, f64>,
}

impl Take {
    /// A figure without counters.
    pub(super) fn of(value: f64) -> Self {
        Self { value, counters: BTreeMap::new() }
    }
}

/// Every measurement of a run so far, by who was measured.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<String, Vec<Take>>);

impl Book {
    pub(super) fn note(&mut self, who: &str, take: Take) {
        self.0.entry(who.to_owned()).or_default().push(take);
    }

    /// The measurements of `who`, in the order of the rounds; none when there was none.
    pub(super) fn takes(&self, who: &str) -> &[Take] {
        self.0.get(who).map_or(&[], Vec::as_slice)
    }
}

/// On which side of its goal a figure has to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bound {
    /// At or below it.
    #[default]
    Most,
    /// At or above it.
    Least,
}

/// One measure, as it is printed: a JSON object a line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) measure: String,
    /// The image store of the ranges; null where none takes part.
    #[serde(default)]
    pub(super) store: Option<String>,
    /// Over how many measurements `ours` is a median; 0 when it could not be measured.
    pub(super) rounds: usize,
    /// Our median; null when it could not be measured: `note` says why.
    pub(super) ours: Option<f64>,
    /// The median of the peer that the goal is about; null when the goal is about `ours` itself.
    #[serde(default)]
    pub(super) peer: Option<f64>,
    /// The medians of all that was measured beside, in the same unit.
    #[serde(default)]
    pub(super) peers: BTreeMap<String, f64>,
    /// The unit of `ours`, `peer` and `peers`.
    pub(super) unit: String,
    /// `ours` by `peer`.
    #[serde(default)]
    pub(super) ratio: Option<f64>,
    /// What `ratio` has to keep to, or `ours` where there is no peer; null for a mere observation.
    #[serde(default)]
    pub(super) goal: Option<f64>,
    /// Whether it does; null without a goal or without a figure.
    #[serde(default)]
    pub(super) met: Option<bool>,
    /// On which side of the goal.
    #[serde(default)]
    pub(super) bound: Bound,
    /// Which of `peers` the peer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<String>,
    /// Medians of what was counted on our side.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) counters: BTreeMap<String, f64>,
    /// The same on the peer's side.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) peer_counters: BTreeMap<String, f64>,
    /// Each figure behind the medians, in the order of the rounds, ours as `ours`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) raw: BTreeMap<String, Vec<f64>>,
    /// What a reader has to know beside; why it was not measured, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// What `ours` is called in a row's raw figures.
const OURS: &str = "ours";

impl Row {
    /// A row with our figures alone.
    pub(super) fn of(measure: &str, store: Option<&str>, unit: &str, ours: &[Take]) -> Self {
        let values: Vec<f64> = ours.iter().map(|take| take.value).collect();
        Self {
            measure: measure.to_owned(),
            store: store.map(str::to_owned),
            rounds: values.len(),
            ours: median(&values).map(tidy),
            unit: unit.to_owned(),
            counters: counters(ours),
            raw: BTreeMap::from([(OURS.to_owned(), values)]),
            ..Self::default()
        }
    }

    /// A row that could not be measured, and why.
    pub(super) fn absent(measure: &str, store: Option<&str>, why: impl Into<String>) -> Self {
        Self { note: Some(why.into()), ..Self::of(measure, store, "s", &[]) }
    }

    /// With somebody's figures beside; nothing when there are none.
    pub(super) fn beside(mut self, who: &str, takes: &[Take]) -> Self {
        let values: Vec<f64> = takes.iter().map(|take| take.value).collect();
        if let Some(median) = median(&values) {
            self.peers.insert(who.to_owned(), tidy(median));
            self.raw.insert(who.to_owned(), values);
        }
        self
    }

    /// With a goal for the ratio to `peer`, whose figures go beside.
    pub(super) fn goal_against(self, peer: &str, takes: &[Take], bound: Bound, goal: f64) -> Self {
        let mut row = self.beside(peer, takes);
        row.against = Some(peer.to_owned());
        row.peer = row.peers.get(peer).copied();
        row.peer_counters = counters(takes);
        row.ratio = row.ours.zip(row.peer).map(|(ours, peer)| tidy(ours / peer));
        let ratio = row.ratio;
        row.judge(ratio, bound, goal)
    }

    /// With a goal for our figure itself.
    pub(super) fn goal(self, bound: Bound, goal: f64) -> Self {
        let ours = self.ours;
        self.judge(ours, bound, goal)
    }

    /// With what a reader has to know beside.
    pub(super) fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Without a goal: a run that only shows that it works meets none and misses none.
    pub(super) fn unjudged(self) -> Self {
        Self { goal: None, met: None, ..self }
    }

    /// With the turns that came to nothing: a median of fewer has to say so.
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
fn counters(takes: &[Take]) -> BTreeMap<String, f64> {
    let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in takes.iter().flat_map(|take| &take.counters) {
        values.entry(name).or_default().push(*value);
    }
    let medians = values.into_iter().filter_map(|(name, values)| Some((name, median(&values)?)));
    medians.map(|(name, median)| (name.clone(), tidy(median))).collect()
}

/// One counter of each measurement, as figures of their own.
pub(super) fn counted(takes: &[Take], counter: &str) -> Vec<Take> {
    takes
        .iter()
        .filter_map(|take| take.counters.get(counter))
        .map(|value| Take::of(*value))
        .collect()
}

/// The middle of `values`, of two middles their mean; `None` of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// Four digits after the point: more would claim what no clock here can tell.
fn tidy(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(values: &[f64]) -> Vec<Take> {
        values.iter().map(|value| Take::of(*value)).collect()
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
    fn a_goal_is_met_on_its_own_side() {
        let row =
            |ours: f64| Row::of("m", None, "s", &takes(&[ours])).beside("pull", &takes(&[9.0]));
        for (ours, bound, goal, met) in [
            (1.0, Bound::Most, 0.5, true),
            (1.1, Bound::Most, 0.5, false),
            (1.0, Bound::Least, 0.5, true),
            (0.9, Bound::Least, 0.5, false),
        ] {
            let row = row(ours).goal_against("save", &takes(&[2.0]), bound, goal);
            assert_eq!(row.met, Some(met), "{row:?}");
            assert_eq!((row.peer, row.ratio), (Some(2.0), Some(ours / 2.0)), "{row:?}");
        }
        let row = row(1.0).goal_against("load", &[], Bound::Most, 0.5);
        assert_eq!((row.peer, row.ratio, row.met), (None, None, None), "nobody to compare with");
        assert_eq!(Row::absent("m", None, "no disk").goal(Bound::Most, 1.0).met, None);
    }

    #[test]
    fn counters_are_medians_of_what_was_counted() {
        let counted = |value: f64| Take {
            value,
            counters: BTreeMap::from([("cpu_seconds".to_owned(), 2.0 * value)]),
        };
        let row = Row::of("m", Some("overlay2"), "s", &[counted(1.0), counted(3.0), Take::of(2.0)])
            .goal_against("save", &[counted(8.0)], Bound::Most, 0.5);
        assert_eq!(row.ours, Some(2.0));
        assert_eq!(row.counters["cpu_seconds"], 4.0);
        assert_eq!(row.peer_counters["cpu_seconds"], 16.0);
    }

    #[test]
    fn a_line_has_the_fields_that_scripts_read() {
        let row = Row::of("cold-1", Some("overlay2"), "s", &takes(&[1.0])).goal_against(
            "save | load",
            &takes(&[4.0]),
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
