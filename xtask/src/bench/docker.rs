//! The docker client, as a person at a shell uses it: on the host's engine and on those in ranges.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

use crate::setup;

/// An engine, by its address.
#[derive(Clone, Debug)]
pub(super) struct Docker {
    /// As `unix:///…`.
    pub(super) host: String,
}

impl Docker {
    pub(super) fn at(host: impl Into<String>) -> Self {
        Self { host: host.into() }
    }

    /// A client command with `args`, which dies with us.
    pub(super) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::from(setup::command("docker")?);
        command.args(["--host", &self.host]).args(args).kill_on_drop(true);
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CLI_HINTS", "false");
        Ok(command)
    }

    /// Runs the client to its end and answers what it printed, without the last line end.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args)?.output().await.context("starting the docker client")?;
        checked(&format!("docker {}", args.join(" ")), &output)
    }

    /// Loads the archive `file`.
    pub(super) async fn load(&self, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        well(&self.run(&["load", "--input", &file]).await?)
    }

    /// Saves `images` into the archive `file`.
    pub(super) async fn save(&self, images: &[String], file: &Path) -> Result<()> {
        let file = file.display().to_string();
        let names = images.iter().map(String::as_str);
        let args: Vec<&str> = ["save", "--output", &file].into_iter().chain(names).collect();
        self.run(&args).await.map(drop)
    }

    /// Whether it has all of `images`: a load that says nothing proves nothing.
    pub(super) async fn must_have(&self, images: &[String]) -> Result<()> {
        for image in images {
            self.run(&["image", "inspect", "--format", "{{.Id}}", image]).await?;
        }
        Ok(())
    }

    /// Removes images that are there; one that is not, is no error.
    pub(super) async fn forget(&self, images: &[String]) {
        for image in images {
            drop(self.run(&["image", "rm", "--force", image]).await);
        }
    }
}

/// `docker save IMAGE… | docker load`: all of `images` from one engine to another.
pub(super) async fn save_load(from: &Docker, into: &Docker, images: &[String]) -> Result<()> {
    let names: Vec<&str> = ["save"].into_iter().chain(images.iter().map(String::as_str)).collect();
    let mut save = from.command(&names)?;
    let mut save = save.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipe: Stdio = save.stdout.take().context("save has no stdout")?.try_into()?;
    let mut load = into.command(&["load"])?;
    let load = load.stdin(pipe).output();
    let (saved, loaded) = tokio::try_join!(save.wait_with_output(), load)?;
    checked("docker save", &saved)?;
    well(&checked("docker load", &loaded)?)
}

/// What `output` says, or how it failed.
pub(super) fn checked(what: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

/// A load on the containerd store ends well whatever happened: only its words tell.
fn well(said: &str) -> Result<()> {
    ensure!(!said.contains("rror unpacking"), "docker load: {said}");
    Ok(())
}
