//! The checks beside the tests: format, lints, documentation, dependencies, the schema.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{cargo, tools};

/// Runs every check, and answers the names of those that failed.
///
/// # Errors
/// When a tool that a check needs cannot be had.
pub(super) fn run() -> Result<Vec<&'static str>> {
    let deny = tools::cargo_deny()?;
    let buf = tools::buf()?;
    let mut fmt = cargo::command();
    fmt.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo::command();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--quiet"]);
    clippy.args(["--", "-D", "warnings"]);
    let mut doc = cargo::command();
    doc.args(["doc", "--workspace", "--no-deps", "--all-features", "--quiet"]);
    doc.args(["--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    let mut licenses = Command::new(deny);
    licenses.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    licenses.current_dir(crate::root());
    let mut schema = Command::new(buf);
    schema.arg("lint").current_dir(crate::root().join("proto"));

    let checks = [
        ("cargo fmt", fmt),
        ("cargo clippy", clippy),
        ("cargo doc", doc),
        ("cargo deny", licenses),
        ("buf lint", schema),
    ];
    let mut failed = Vec::new();
    for (name, mut command) in checks {
        let started = Instant::now();
        let status = command.status().with_context(|| format!("starting {name}"))?;
        let outcome = if status.success() { "ok" } else { "FAILED" };
        eprintln!("{:6.1} s  check {name}: {outcome}", started.elapsed().as_secs_f64());
        if !status.success() {
            failed.push(name);
        }
    }
    Ok(failed)
}
