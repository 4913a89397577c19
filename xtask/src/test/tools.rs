//! The tools that checks need, put under the state folder where the machine has none.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::cargo;
use crate::setup::{self, State};

/// cargo-deny: the machine's, else built from its published source once.
///
/// # Errors
/// When it cannot be built.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("bin/cargo-deny");
    if let Some(found) = setup::find("cargo-deny").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         cargo-deny is not on this machine: building it once (some minutes)");
    let mut install = cargo::command();
    install.args(["install", "cargo-deny", "--locked", "--quiet", "--root"]).arg(&folder);
    let status = install.status().context("starting cargo install cargo-deny")?;
    if !status.success() {
        bail!("cargo install cargo-deny failed ({status}): install it by hand and try again");
    }
    Ok(ours)
}

/// buf: the machine's, else from its npm package once.
///
/// # Errors
/// When npm cannot be had or does not install it.
pub(super) fn buf() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("node_modules/.bin/buf");
    if let Some(found) = setup::find("buf").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         buf is not on this machine: installing it once");
    setup::ensure_npm()?;
    let status = setup::command("npm")?
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&folder)
        .arg("@bufbuild/buf")
        .stdin(Stdio::null())
        .status()
        .context("starting npm")?;
    if !status.success() || !ours.exists() {
        bail!("npm install @bufbuild/buf failed ({status}): put buf on the PATH and try again");
    }
    Ok(ours)
}
