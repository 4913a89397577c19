//! A peer: skopeo, from engine to engine.

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::docker::{Docker, checked};
use crate::setup;

/// Copies `images` one after the other, as a script does.
///
/// # Errors
/// When the client is not on this machine, or is older than the oldest that an engine speaks to.
pub(super) async fn copy(from: &Docker, into: &Docker, images: &[String]) -> Result<()> {
    for image in images {
        let mut command = Command::from(setup::command("skopeo")?);
        command.args(["--insecure-policy", "copy", "--quiet"]);
        command.args(["--src-daemon-host", &from.host, "--dest-daemon-host", &into.host]);
        command.args([format!("docker-daemon:{image}"), format!("docker-daemon:{image}")]);
        let output = command.kill_on_drop(true).output().await.context("starting skopeo")?;
        checked("skopeo copy", &output)?;
    }
    Ok(())
}
