//! Shared arithmetic of the benches: medians and the CPU clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The median: the middle value, or the mean of the two middle values; 0 for an empty slice.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// User and system time of this process. `getrusage` would count in ticks.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let cases: [(&[f64], f64); 4] =
            [(&[], 0.0), (&[2.0], 2.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)];
        for (values, expected) in cases {
            assert!((median(values) - expected).abs() < 1e-9, "{values:?}");
        }
    }
}
