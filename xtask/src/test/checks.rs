//! Checks besides the tests: format, lints, documentation, dependencies, schema.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{cargo, tools};

/// Runs every check at the lowest priority, and returns the names of failed ones. The output of each
/// check is printed in one piece.
///
/// # Errors
/// A tool that a check needs is unavailable.
pub(super) fn run(buf: PathBuf) -> Result<Vec<&'static str>> {
    let deny = tools::cargo_deny()?;
    let mut fmt = cargo::in_background();
    fmt.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo::in_background();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--quiet"]);
    clippy.args(["--", "-D", "warnings"]);
    let mut doc = cargo::in_background();
    doc.args(["doc", "--workspace", "--no-deps", "--all-features", "--quiet"]);
    doc.args(["--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    let mut licenses = cargo::program_in_background(deny);
    licenses.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    let mut schema = cargo::program_in_background(buf);
    schema.arg("lint").current_dir(crate::workspace::root().join("proto"));

    let checks = [
        ("cargo fmt", fmt),
        ("cargo deny", licenses),
        ("buf lint", schema),
        // These lock cargo's target folder while they run.
        ("cargo clippy", clippy),
        ("cargo doc", doc),
    ];
    let mut failed = Vec::new();
    for (name, mut command) in checks {
        let started = Instant::now();
        let ended = command.output().with_context(|| format!("starting {name}"))?;
        let outcome = if ended.status.success() { "ok" } else { "FAILED" };
        let seconds = started.elapsed().as_secs_f64();
        let line = format!("{seconds:6.1} s  check {name}: {outcome}\n");
        let output = [ended.stdout, ended.stderr, line.into_bytes()].concat();
        std::io::stderr().lock().write_all(&output).context("printing the output of a check")?;
        if !ended.status.success() {
            failed.push(name);
        }
    }
    Ok(failed)
}
