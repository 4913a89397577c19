//! Cargo as a child: what it prints goes on to the person, and its results are counted.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// How many tests ran and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, or test binaries that ended without a result.
    pub(crate) failed: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The cargo that runs us.
fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A program at the workspace's root.
fn at_root(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::root()).stdin(Stdio::null());
    command
}

/// Cargo at the workspace's root, with what all others leave of the cores.
pub(super) fn behind() -> Command {
    program_behind(program())
}

/// As [`behind`], any program.
pub(super) fn program_behind(program: impl AsRef<OsStr>) -> Command {
    let mut command = at_root("nice");
    command.args(["-n", "19"]).arg(program);
    command
}

/// Runs `cargo test` for the whole workspace with these further arguments and this added
/// environment, and counts the results.
///
/// Always the whole: a choice of packages unites the features of fewer dependencies, and cargo then
/// builds many of them once more.
///
/// # Errors
/// When cargo cannot be started; a failing test is counted.
pub(super) fn test(arguments: &[&str], environment: &[(&str, String)]) -> Result<Counts> {
    let mut child = at_root(program())
        .args(["test", "--workspace", "--all-features", "--no-fail-fast"])
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading what cargo test prints")?;
        println!("{line}");
        if let Some(result) = parse_result(&line) {
            counts += result;
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && counts.failed == 0 {
        // A build that fails, or a test binary that is killed, prints no result of its own.
        counts.failed = 1;
    }
    Ok(counts)
}

/// The counts in a line such as `test result: ok. 12 passed; 0 failed; …`; `None` for all others.
fn parse_result(line: &str) -> Option<Counts> {
    let results = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = results.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_line_that_cargo_prints() {
        let check = |line, expected| assert_eq!(parse_result(line), expected, "{line}");
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.52s";
        check(line, Some(Counts { passed: 12, failed: 0 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        check(line, Some(Counts { passed: 1, failed: 2 }));
        check("test edges::our_crates_depend_on_each_other_as_drawn ... ok", None);
        check("test result: ok.", None);
    }
}
