//! A description of the measured machine, without which figures mean nothing.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, or `unknown`.
    pub cpu: String,
    /// Cores that this process may run on.
    pub cores: usize,
    /// True if the processor has SHA instructions, which make SHA-256 four times as fast.
    pub sha_instructions: bool,
    /// The kernel's release, or `unknown`.
    pub kernel: String,
    /// Load average of the last minute, before the run; `None` if unavailable. Above a few tenths,
    /// other processes affect the speeds, and only CPU seconds are comparable.
    pub load: Option<f64>,
}

impl Machine {
    /// Describes this machine.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let (cpu, sha_instructions) = parse_cpuinfo(&cpuinfo);
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            sha_instructions,
            kernel: named(&kernel),
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| parse_load(&text)),
        }
    }
}

fn parse_cpuinfo(text: &str) -> (String, bool) {
    let field = |names: &[&str]| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, value)| names.contains(&name.trim()).then(|| value.trim().to_owned()))
    };
    let flags = field(&["flags", "Features"]).unwrap_or_default();
    let sha = flags.split_whitespace().any(|flag| flag == "sha_ni" || flag == "sha2");
    (named(&field(&["model name"]).unwrap_or_default()), sha)
}

fn parse_load(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn named(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sha = if self.sha_instructions { "with" } else { "without" };
        let Self { cpu, cores, kernel, .. } = self;
        write!(f, "{cpu}, {cores} cores, {sha} SHA instructions, Linux {kernel}")?;
        match self.load {
            Some(load) => write!(f, ", load {load:.1} before"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_gives_the_name_and_sha_support() {
        let cases = [
            ("model name\t: AMD EPYC\nflags\t\t: fpu sha_ni aes\n", ("AMD EPYC", true)),
            ("model name\t: Xeon: old\nflags\t\t: fpu aes\n", ("Xeon: old", false)),
            ("processor\t: 0\nFeatures\t: fp asimd sha1 sha2\n", ("unknown", true)),
            ("", ("unknown", false)),
        ];
        for (text, (cpu, sha)) in cases {
            assert_eq!(parse_cpuinfo(text), (cpu.to_owned(), sha), "{text:?}");
        }
    }

    #[test]
    fn the_load_is_the_average_of_the_last_minute() {
        let cases = [("0.25 1.5 2.0 1/200 4711\n", Some(0.25)), ("", None), ("x 1", None)];
        for (text, load) in cases {
            assert_eq!(parse_load(text), load, "{text:?}");
        }
    }
}
