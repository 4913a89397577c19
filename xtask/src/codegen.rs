//! Regenerates the protocol's bindings, by the test that compares them.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Regenerates the committed bindings from the .proto files.
///
/// # Errors
/// Cargo cannot be started, or the .proto files do not compile.
pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--quiet", "--package", "proto", "--test", "it", "codegen"])
        .env("LONGSHORE_BLESS", "1")
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "generating the bindings failed: see the test's output above");
    Ok(())
}
