//! The machine that was measured on: numbers without it mean nothing.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// What a reader needs to know of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name; `unknown` where the system does not tell.
    pub cpu: String,
    /// Cores that this process may run on.
    pub cores: usize,
    /// Whether the processor hashes SHA-256 by itself: four times as fast as code does.
    pub sha_instructions: bool,
    /// The kernel's release; `unknown` where the system does not tell.
    pub kernel: String,
    /// Processes that wanted a core in the last minute, on average: more than a few tenths before a
    /// run mean that speeds are others' as much as ours, and only CPU seconds say much. Absent where
    /// the system does not tell.
    pub load: Option<f64>,
}

impl Machine {
    /// Asks the system.
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
    fn a_processor_is_known_by_its_name_and_flags() {
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
    fn the_load_is_that_of_the_last_minute() {
        let cases = [("0.25 1.5 2.0 1/200 4711\n", Some(0.25)), ("", None), ("x 1", None)];
        for (text, load) in cases {
            assert_eq!(parse_load(text), load, "{text:?}");
        }
    }
}
