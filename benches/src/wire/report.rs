//! The report of a run: medians over the rounds, and ratios to the raw socket in the same round.

use std::fmt;

use serde::Serialize;

use super::machine::Machine;
use super::measure::{Bound, Measure, measures};
use super::route::{Protocol, Receiver, Route, Transport};
use super::sample::Sample;
use crate::figures::median;

/// The result of one route over all rounds, also in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The route's name in the table.
    pub route: String,
    /// The protocol on the socket.
    pub protocol: Protocol,
    /// The kind of socket.
    pub transport: Transport,
    /// The receiver's handling of the bytes.
    pub receiver: Receiver,
    /// Number of receivers, each with its own connection; figures are for all together.
    pub receivers: u32,
    /// Size of the blob in bytes.
    pub size_bytes: u64,
    /// Number of rounds; the figures are their medians.
    pub rounds: usize,
    /// Speed in 1e9 bytes per second.
    pub gigabytes_per_second: f64,
    /// Ratio of the speed to raw TCP with a discarding receiver, within rounds; `None` if that route
    /// was not run.
    pub of_raw_tcp: Option<f64>,
    /// Ratio of the speed to [`Route::same_work`], within rounds; `None` if that route was not run.
    pub of_same_work: Option<f64>,
    /// User and system seconds of the sender per 1e9 bytes.
    pub server_cpu_seconds_per_gigabyte: f64,
    /// User and system seconds of the receiver per 1e9 bytes.
    pub client_cpu_seconds_per_gigabyte: f64,
    /// Peak memory of the sender over all rounds. A raw sender has the blob in memory.
    pub server_peak_rss_bytes: u64,
    /// Peak memory of the receiver over all rounds.
    pub client_peak_rss_bytes: u64,
}

/// The results of a run on one machine.
#[derive(Clone, Debug)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The routes, in the order of [`Route::all`].
    pub rows: Vec<Row>,
    /// The goals with their results.
    pub measures: Vec<Measure>,
}

impl Report {
    /// Summarises samples, each with its round. Every round must have the same routes, once each.
    #[must_use]
    pub fn new(machine: Machine, size: u64, samples: Vec<(u32, Sample)>) -> Self {
        let taken = |route: &Route| samples.iter().any(|(_, sample)| sample.route == *route);
        let rows = Route::all().into_iter().filter(taken);
        let rows = rows.map(|route| row(route, size, &samples)).collect();
        Self { machine, rows, measures: measures(&samples) }
    }

    /// The report as one JSON object per line: the routes with the machine, then the goals.
    ///
    /// # Errors
    /// Never in practice, since rows are plain data.
    pub fn json_lines(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            row: &'a Row,
            machine: &'a Machine,
        }
        let line = |row| serde_json::to_string(&Line { row, machine: &self.machine });
        let rows = self.rows.iter().map(line);
        let measures = self.measures.iter().map(serde_json::to_string);
        let lines: Vec<_> = rows.chain(measures).collect::<Result<_, _>>()?;
        Ok(lines.join("\n"))
    }
}

fn row(route: Route, size: u64, samples: &[(u32, Sample)]) -> Row {
    let own = || samples.iter().filter(move |(_, sample)| sample.route == route);
    let median_of =
        |value: &dyn Fn(&Sample) -> f64| median(&own().map(|(_, s)| value(s)).collect::<Vec<_>>());
    let ratio_to = |baseline: Route| {
        let beside = |round| samples.iter().find(|(r, s)| *r == round && s.route == baseline);
        let ratios = own().filter_map(|(round, s)| Some(s.speed() / beside(*round)?.1.speed()));
        let ratios: Vec<_> = ratios.collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    };
    Row {
        route: route.to_string(),
        protocol: route.protocol,
        transport: route.transport,
        receiver: route.receiver,
        receivers: route.receivers,
        size_bytes: size,
        rounds: own().count(),
        gigabytes_per_second: median_of(&Sample::speed),
        of_raw_tcp: ratio_to(Route::RAW_TCP),
        of_same_work: ratio_to(route.same_work()),
        server_cpu_seconds_per_gigabyte: median_of(&|s| s.server.cpu_seconds / s.gigabytes()),
        client_cpu_seconds_per_gigabyte: median_of(&|s| {
            s.fetched.usage.cpu_seconds / s.gigabytes()
        }),
        server_peak_rss_bytes: own().map(|(_, s)| s.server.peak_rss_bytes).max().unwrap_or(0),
        client_peak_rss_bytes: own()
            .map(|(_, s)| s.fetched.usage.peak_rss_bytes)
            .max()
            .unwrap_or(0),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, rounds) = self.rows.first().map_or((0, 0), |row| (row.size_bytes, row.rounds));
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} MiB from the page cache, medians of {rounds} rounds\n", size >> 20)?;
        writeln!(
            f,
            "{:<20} {:>6} {:>8} {:>10} {:>16} {:>14}",
            "", "GB/s", "of raw", "of same", "CPU s/GB", "peak MiB"
        )?;
        writeln!(
            f,
            "{:<20} {:>6} {:>8} {:>10} {:>16} {:>14}",
            "route", "", "tcp", "work", "server / client", "server / client"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(f, "\nGoals, and the medians of the ratios within rounds")?;
        self.measures.iter().try_for_each(|measure| writeln!(f, "{measure}"))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, ratio, goal, against, .. } = self;
        let sign = match self.bound {
            Bound::Most => "at most",
            Bound::Least => "at least",
        };
        let verdict = if self.met { "met" } else { "missed" };
        write!(f, "{measure:<20} {ratio:>6.2} of {against}: {sign} {goal}, {verdict}")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = format!(
            "{:.2} / {:.2}",
            self.server_cpu_seconds_per_gigabyte, self.client_cpu_seconds_per_gigabyte
        );
        let peak =
            format!("{} / {}", self.server_peak_rss_bytes >> 20, self.client_peak_rss_bytes >> 20);
        let Self { route, gigabytes_per_second, .. } = self;
        let ratio = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.2}"));
        let (of_raw_tcp, of_same_work) = (ratio(self.of_raw_tcp), ratio(self.of_same_work));
        write!(
            f,
            "{route:<20} {gigabytes_per_second:>6.2} {of_raw_tcp:>8} {of_same_work:>10} {cpu:>16} {peak:>14}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(route: Route, seconds: f64) -> Sample {
        Sample::made(route, seconds, 2.0)
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let grpc = Route { protocol: Protocol::Grpc, ..Route::RAW_TCP };
        // In the second round the machine is ten times as slow, but the ratio is the same.
        let samples = [(1, 1.0), (2, 10.0)].into_iter().flat_map(|(round, seconds)| {
            [(round, sample(Route::RAW_TCP, seconds)), (round, sample(grpc, 2.0 * seconds))]
        });
        let row = row(grpc, 2_000_000_000, &samples.collect::<Vec<_>>());
        assert!((row.of_raw_tcp.unwrap() - 0.5).abs() < 1e-9, "{row:?}");
        assert!((row.of_same_work.unwrap() - 0.5).abs() < 1e-9, "{row:?}");
        assert!((row.server_cpu_seconds_per_gigabyte - 1.0).abs() < 1e-9, "{row:?}");
        assert_eq!((row.rounds, row.client_peak_rss_bytes), (2, 3 << 20));
    }
}
