//! What the command line says about ranges, parsed into types.

use anyhow::Result;
use clap::{Args, ValueEnum};
use process::exit::Usage;
use range::{Label, Mode, RangeName, SeedUse, Selection, Settings, numbered};

/// What ranges are called when nobody says.
const DEFAULT_PREFIX: &str = "range";

/// The most that one command makes; more is a slip of the hand.
const MAX_COUNT: usize = 1000;

/// Privileges with which ranges run an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RangeMode {
    /// --privileged where this host can give it, else capabilities.
    Auto,
    /// --privileged.
    Privileged,
    /// Each capability that this host has, by name.
    Capabilities,
}

impl From<RangeMode> for Mode {
    fn from(mode: RangeMode) -> Self {
        match mode {
            RangeMode::Auto => Self::Auto,
            RangeMode::Privileged => Self::Privileged,
            RangeMode::Capabilities => Self::Capabilities,
        }
    }
}

/// Names of the ranges to bring up.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// How many ranges: NAME-1, NAME-2, …; without --name range-1, range-2, …
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<usize>,
    /// A range; may be given several times. With --count, what all names begin with.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<RangeName>,
}

impl Names {
    /// The names that are meant.
    ///
    /// # Errors
    /// [`Usage`] when count and names contradict each other.
    pub(super) fn list(&self) -> Result<Vec<RangeName>> {
        let prefix = match (self.names.as_slice(), self.count) {
            ([], _) => DEFAULT_PREFIX,
            (names, None) => return Ok(names.to_vec()),
            ([prefix], Some(_)) => prefix.as_str(),
            (names, Some(count)) => {
                let text = format!(
                    "--count {count} numbers one name, and {} were given: give one --name, or no --count",
                    names.len()
                );
                return Err(Usage(text).into());
            }
        };
        numbered(prefix, self.count.unwrap_or(1)).map_err(|error| Usage(error.to_string()).into())
    }
}

/// How new ranges come by their images, and how many of them are made at once.
#[derive(Debug, Args)]
pub(super) struct Making {
    /// Make a seed even for one new range: the sealed data of a range with the same images, of which
    /// new ranges begin with a copy. Without, one is made for two or more, and used where it is there.
    #[arg(long, conflicts_with = "no_seed")]
    seed: bool,
    /// Neither make nor use a seed: each new range brings its images in by itself.
    #[arg(long)]
    no_seed: bool,
    /// How much all seeds may take from this call on; those used longest ago go first. A call without
    /// it keeps them within the default again.
    #[arg(long, value_name = "GIB", default_value_t = range::SEED_LIMIT >> 30)]
    seed_limit: u64,
    /// Do not look first whether disk and memory have room for all new ranges.
    #[arg(long)]
    unchecked: bool,
}

impl Making {
    /// These settings on top of others; `at_once` is the number of ranges that a person asked for.
    pub(super) fn on(&self, settings: Settings, at_once: Option<usize>) -> Settings {
        let seeds = match (self.seed, self.no_seed) {
            (true, _) => SeedUse::Always,
            (_, true) => SeedUse::Never,
            _ => SeedUse::Auto,
        };
        let seed_limit = self.seed_limit.saturating_mul(1 << 30);
        Settings { seeds, seed_limit, unchecked: self.unchecked, starts: at_once, ..settings }
    }
}

/// Which of the ranges that are there a command is about.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// A range; may be given several times. Without any, all.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<RangeName>,
    /// The ranges with this label; may be given several times, for those that have all of them.
    #[arg(long = "label", value_name = "KEY=VALUE", conflicts_with = "names")]
    labels: Vec<Label>,
    /// All ranges, as without a name or label.
    #[arg(long, conflicts_with_all = ["names", "labels"])]
    all: bool,
}

impl Which {
    /// The ranges that are meant.
    pub(super) fn selection(&self) -> Selection {
        match (self.names.as_slice(), self.labels.as_slice()) {
            ([], []) => Selection::All,
            ([], labels) => Selection::Labelled(labels.iter().cloned().collect()),
            (names, _) => Selection::Names(names.to_vec()),
        }
    }

    /// How many were named; 0 when that is not known yet.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }
}

/// Parses a number of things worked on at once.
pub(super) fn concurrency(text: &str) -> Result<usize, String> {
    within(text, 256)
}

fn count(text: &str) -> Result<usize, String> {
    within(text, MAX_COUNT)
}

fn within(text: &str, most: usize) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if (1..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it is not within 1 and {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: Option<usize>, names: &[&str]) -> Result<Vec<String>> {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let names = Names { count, names }.list()?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_and_count_say_which_ranges_are_meant() {
        let check = |count: Option<usize>, names: &[&str], expected: &[&str]| {
            assert_eq!(list(count, names).unwrap(), expected, "{count:?} {names:?}");
        };
        check(None, &[], &["range-1"]);
        check(Some(2), &[], &["range-1", "range-2"]);
        check(None, &["a", "b"], &["a", "b"]);
        check(Some(2), &["a"], &["a-1", "a-2"]);
        let error = list(Some(2), &["a", "b"]).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        let long = "x".repeat(63);
        assert!(list(Some(2), &[&long]).unwrap_err().is::<Usage>(), "a number more is too long");
    }

    #[test]
    fn seeds_are_made_used_or_left_as_the_flags_say() {
        let check = |seed: bool, no_seed: bool, expected: SeedUse| {
            let making = Making { seed, no_seed, seed_limit: 3, unchecked: true };
            let settings = making.on(Settings::new("unix:///d", "unix:///h", "/a"), Some(7));
            assert_eq!((settings.seeds, settings.seed_limit), (expected, 3 << 30));
            assert_eq!((settings.unchecked, settings.starts), (true, Some(7)));
        };
        check(false, false, SeedUse::Auto);
        check(true, false, SeedUse::Always);
        check(false, true, SeedUse::Never);
    }

    #[test]
    fn ranges_are_meant_by_name_or_by_label_or_all() {
        let which = |names: &[&str], labels: &[&str]| Which {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
            all: false,
        };
        assert_eq!(which(&[], &[]).selection(), Selection::All);
        let names = Selection::Names(vec!["a".parse().unwrap()]);
        assert_eq!(which(&["a"], &[]).selection(), names);
        let Selection::Labelled(labels) = which(&[], &["a=1", "b=2"]).selection() else {
            panic!("labels were given");
        };
        assert_eq!(labels.as_map().len(), 2);
    }

    #[test]
    fn numbers_have_bounds() {
        for (text, good) in
            [("1", true), ("256", true), ("0", false), ("257", false), ("-1", false), ("x", false)]
        {
            assert_eq!(concurrency(text).is_ok(), good, "{text}");
        }
    }
}
