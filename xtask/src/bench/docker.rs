//! The docker client, run on the host's engine and on engines in ranges.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::setup;

/// An engine with its address.
#[derive(Clone, Debug)]
pub(super) struct Docker {
    /// The address, such as `unix:///…`.
    pub(super) host: String,
}

impl Docker {
    pub(super) fn at(host: impl Into<String>) -> Self {
        Self { host: host.into() }
    }

    /// A client command with `args` that is killed on drop.
    pub(super) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::from(setup::command("docker")?);
        command.args(["--host", &self.host]).args(args).kill_on_drop(true);
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CLI_HINTS", "false");
        Ok(command)
    }

    /// Runs the client, and returns its stdout without the last line end.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args)?.output().await.context("starting the docker client")?;
        checked(&format!("docker {}", args.join(" ")), &output)
    }

    /// Loads the archive `file`.
    pub(super) async fn load(&self, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        check_load(&self.run(&["load", "--input", &file]).await?)
    }

    /// Saves `images` into the archive `file`.
    pub(super) async fn save(&self, images: &[String], file: &Path) -> Result<()> {
        let file = file.display().to_string();
        let names = images.iter().map(String::as_str);
        let args: Vec<&str> = ["save", "--output", &file].into_iter().chain(names).collect();
        self.run(&args).await.map(drop)
    }

    /// Fails unless the engine has all of `images`. A load without an error is no proof.
    pub(super) async fn must_have(&self, images: &[String]) -> Result<()> {
        for image in images {
            self.run(&["image", "inspect", "--format", "{{.Id}}", image]).await?;
        }
        Ok(())
    }

    /// Removes images; missing ones are ignored.
    pub(super) async fn remove_images(&self, images: &[String]) {
        for image in images {
            drop(self.run(&["image", "rm", "--force", image]).await);
        }
    }
}

/// Copies `images` between engines with `docker save IMAGE… | docker load`.
pub(super) async fn save_load(from: &Docker, into: &Docker, images: &[String]) -> Result<()> {
    let names: Vec<&str> = ["save"].into_iter().chain(images.iter().map(String::as_str)).collect();
    let mut save = from.command(&names)?;
    let mut save = save.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipe: Stdio = save.stdout.take().context("save has no stdout")?.try_into()?;
    let mut load = into.command(&["load"])?;
    let load = load.stdin(pipe).output();
    let (saved, loaded) = tokio::try_join!(save.wait_with_output(), load)?;
    checked("docker save", &saved)?;
    check_load(&checked("docker load", &loaded)?)
}

/// The stdout of a successful command, or its failure as an error.
pub(super) fn checked(what: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

/// Checks the output of a load, since on the containerd store the exit code is 0 even after a failure.
fn check_load(output: &str) -> Result<()> {
    ensure!(!output.contains("rror unpacking"), "docker load: {output}");
    Ok(())
}
