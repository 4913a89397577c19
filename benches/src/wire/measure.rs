//! The goals for the wire with their results, one line each.

use std::collections::BTreeMap;

use serde::Serialize;

use super::route::{Protocol, Receiver, Route, Transport};
use super::sample::Sample;
use crate::figures::median;

/// The compared figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// 1e9 bytes per second; more is better.
    Speed,
    /// CPU seconds of both ends per 1e9 bytes; less is better.
    Cpu,
}

/// A goal for the ratio of our route's figure to the peer's.
struct Goal {
    measure: &'static str,
    figure: Figure,
    ours: Route,
    peer: Route,
    ratio: f64,
}

/// The side of its goal on which a ratio must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// At most the goal.
    Most,
    /// At least the goal.
    Least,
}

/// A goal with its result, as `cargo xtask bench` reads it.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// The measure's name.
    pub measure: String,
    /// Always `None`, since no engine takes part.
    pub store: Option<String>,
    /// Number of rounds; the figures are their medians.
    pub rounds: usize,
    /// Our median.
    pub ours: f64,
    /// The peer's median.
    pub peer: f64,
    /// The medians of all other routes that do the same work.
    pub peers: BTreeMap<String, f64>,
    /// The unit of these figures.
    pub unit: &'static str,
    /// The median of the ratios within each round.
    pub ratio: f64,
    /// The limit for the ratio.
    pub goal: f64,
    /// The kind of the goal: an upper or a lower limit.
    pub bound: Bound,
    /// True if the goal is met.
    pub met: bool,
    /// The peer's key in `peers`.
    pub against: String,
    /// The figures of each round by route; ours are under `ours`.
    pub raw: BTreeMap<String, Vec<f64>>,
}

/// The goals, in the order of the report.
fn goals() -> Vec<Goal> {
    use Protocol::{Grpc, Raw, Tonic};
    use Transport::{Tcp, Unix};
    let route = |protocol, transport| Route { protocol, transport, ..Route::RAW_TCP };
    let verified = |route| Route { receiver: Receiver::Verifies, ..route };
    let stored = |route| Route { receiver: Receiver::Stores, ..route };
    let many = |route| Route { receivers: 16, ..route };
    let goal = |measure, figure, ours, peer, ratio| Goal { measure, figure, ours, peer, ratio };
    let (tcp, unix) = (route(Grpc, Tcp), route(Grpc, Unix));
    let (raw_tcp, raw_unix) = (route(Raw, Tcp), route(Raw, Unix));
    vec![
        goal("wire-tcp", Figure::Speed, tcp, raw_tcp, 0.85),
        goal("wire-unix", Figure::Speed, unix, raw_unix, 0.90),
        goal("wire-unix-by-tcp", Figure::Speed, unix, raw_tcp, 1.0),
        goal("wire-tcp-cpu", Figure::Cpu, tcp, raw_tcp, 1.3),
        goal("wire-unix-cpu", Figure::Cpu, unix, raw_unix, 1.3),
        goal("wire-16-receivers", Figure::Speed, many(tcp), many(raw_tcp), 0.88),
        goal("wire-verified-tcp", Figure::Speed, verified(tcp), verified(raw_tcp), 0.95),
        goal("wire-verified-unix", Figure::Speed, verified(unix), verified(raw_unix), 0.95),
        goal("wire-stored", Figure::Speed, stored(tcp), stored(route(Tonic, Tcp)), 1.4),
    ]
}

impl Figure {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Speed => sample.speed(),
            Self::Cpu => {
                let seconds = sample.server.cpu_seconds + sample.fetched.usage.cpu_seconds;
                seconds / sample.gigabytes()
            }
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Speed => "GB/s",
            Self::Cpu => "CPU s/GB",
        }
    }

    fn bound(self) -> Bound {
        match self {
            Self::Speed => Bound::Least,
            Self::Cpu => Bound::Most,
        }
    }
}

/// The result of each goal whose two routes were both run.
pub(super) fn measures(samples: &[(u32, Sample)]) -> Vec<Measure> {
    let taken = |route| samples.iter().any(|(_, sample)| sample.route == route);
    let goals = goals().into_iter().filter(|goal| taken(goal.ours) && taken(goal.peer));
    goals.map(|goal| measure(&goal, samples)).collect()
}

fn measure(goal: &Goal, samples: &[(u32, Sample)]) -> Measure {
    let Goal { measure, figure, ours, peer, ratio: bar } = *goal;
    let figures = |route: Route| -> Vec<f64> {
        let own = samples.iter().filter(|(_, sample)| sample.route == route);
        own.map(|(_, sample)| figure.of(sample)).collect()
    };
    // Each round has every route once, and rounds are in order.
    let (our_figures, peer_figures) = (figures(ours), figures(peer));
    let ratios = our_figures.iter().zip(&peer_figures).map(|(ours, peer)| ours / peer);
    let ratio = median(&ratios.collect::<Vec<_>>());
    let beside = Route::all().into_iter().filter(|route| {
        let same_work = (route.receiver, route.receivers) == (ours.receiver, ours.receivers);
        *route != ours && same_work && !figures(*route).is_empty()
    });
    let bound = figure.bound();
    Measure {
        measure: measure.to_owned(),
        store: None,
        rounds: our_figures.len(),
        ours: median(&our_figures),
        peer: median(&peer_figures),
        peers: beside.map(|route| (route.to_string(), median(&figures(route)))).collect(),
        unit: figure.unit(),
        ratio,
        goal: bar,
        bound,
        met: match bound {
            Bound::Most => ratio <= bar,
            Bound::Least => bar <= ratio,
        },
        against: peer.to_string(),
        raw: [("ours".to_owned(), our_figures), (peer.to_string(), peer_figures)].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_compares_existing_routes() {
        let all = Route::all();
        for goal in goals() {
            assert!(all.contains(&goal.ours), "{}: no route {}", goal.measure, goal.ours);
            assert!(all.contains(&goal.peer), "{}: no route {}", goal.measure, goal.peer);
        }
    }

    #[test]
    fn a_goal_is_met_by_the_median_of_ratios_within_rounds() {
        let samples: Vec<_> = Route::all()
            .into_iter()
            .flat_map(|route| [(1, 1.0), (2, 10.0), (3, 2.0)].map(|round| (route, round)))
            .map(|(route, (round, slow))| {
                let ours = if route.protocol == Protocol::Grpc { 1.1 } else { 1.0 };
                (round, Sample::made(route, slow * ours, ours))
            })
            .collect();
        for measure in measures(&samples) {
            let expected = if measure.bound == Bound::Most { 1.1 } else { 1.0 / 1.1 };
            assert!((measure.ratio - expected).abs() < 1e-9, "{measure:?}");
            let met =
                ["wire-tcp", "wire-unix", "wire-tcp-cpu", "wire-unix-cpu", "wire-16-receivers"];
            assert_eq!(measure.met, met.contains(&measure.measure.as_str()), "{measure:?}");
            assert_eq!((measure.rounds, measure.raw["ours"].len()), (3, 3));
            assert!(measure.peers.contains_key(&measure.against), "{measure:?}");
        }
    }
}
