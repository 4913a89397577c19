//! Cargo as a child process: prints its output and counts its test results.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// Numbers of passed and failed tests.
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

/// The cargo that runs this program.
fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A command for a program, in the workspace's root.
fn at_root(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::workspace::root()).stdin(Stdio::null());
    command
}

/// A command for cargo in the workspace's root, at the lowest priority.
pub(super) fn in_background() -> Command {
    program_in_background(program())
}

/// A command for any program in the workspace's root, at the lowest priority.
pub(super) fn program_in_background(program: impl AsRef<OsStr>) -> Command {
    let mut command = at_root("nice");
    command.args(["-n", "19"]).arg(program);
    command
}

/// Runs `cargo test` for the whole workspace with further arguments and environment variables, and
/// counts the results.
///
/// It never selects packages: a selection enables fewer features of shared dependencies, and cargo
/// would build many of them again.
///
/// # Errors
/// Cargo cannot be started. A failed test is counted.
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
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        if let Some(result) = parse_result(&line) {
            counts += result;
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && counts.failed == 0 {
        // A failed build or a killed test binary prints no result.
        counts.failed = 1;
    }
    Ok(counts)
}

/// The counts in a line such as `test result: ok. 12 passed; 0 failed; …`; `None` for other lines.
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
    fn results_are_parsed_from_cargos_output() {
        let check = |line, expected| assert_eq!(parse_result(line), expected, "{line}");
        let line = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.52s";
        check(line, Some(Counts { passed: 12, failed: 0 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        check(line, Some(Counts { passed: 1, failed: 2 }));
        check("test edges::our_crates_depend_on_each_other_as_drawn ... ok", None);
        check("test result: ok.", None);
    }
}
