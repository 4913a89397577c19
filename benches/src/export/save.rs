//! The peer: `docker save` to `/dev/null`, run on the command line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::options::{Options, Timing};
use super::ours::Ours;

/// Runs `docker save` on one engine.
pub(super) struct Save {
    docker: String,
    /// Archive sizes by image. Images do not change during a run.
    sizes: RefCell<BTreeMap<String, u64>>,
}

impl Save {
    pub(super) fn new(docker: &str) -> Self {
        Self { docker: docker.to_owned(), sizes: RefCell::default() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.docker]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Times a save of `image` to `/dev/null`, with the archive's size.
    pub(super) fn whole(&self, image: &str, options: &Options) -> anyhow::Result<Timing> {
        options.cache.prepare()?;
        let began = Instant::now();
        let status = self.command(&["save", image]).stdout(Stdio::null()).status();
        let time = began.elapsed();
        ensure!(status.context("running docker save")?.success(), "docker save {image} failed");
        Ok(Timing { bytes: self.size(image)?, time, cpu: Duration::ZERO })
    }

    /// Times a save of `image` until its first byte.
    pub(super) fn first_byte(&self, image: &str, options: &Options) -> anyhow::Result<Timing> {
        options.cache.prepare()?;
        let began = Instant::now();
        let mut save = self.command(&["save", image]).stdout(Stdio::piped()).spawn()?;
        let mut first = [0];
        let read = save.stdout.take().context("a pipe was asked for")?.read_exact(&mut first);
        let time = began.elapsed();
        // A closed pipe would end it too, but later.
        save.kill().and_then(|()| save.wait()).context("ending docker save")?;
        read.with_context(|| format!("docker save {image} printed nothing"))?;
        Ok(Timing { bytes: 1, time, cpu: Duration::ZERO })
    }

    /// The archive's size in bytes, counted once per image.
    fn size(&self, image: &str) -> anyhow::Result<u64> {
        if let Some(size) = self.sizes.borrow().get(image) {
            return Ok(*size);
        }
        let mut save = self.command(&["save", image]).stdout(Stdio::piped()).spawn()?;
        let mut out = save.stdout.take().context("a pipe was asked for")?;
        let size = std::io::copy(&mut out, &mut std::io::sink())?;
        ensure!(save.wait()?.success(), "docker save {image} failed");
        self.sizes.borrow_mut().insert(image.to_owned(), size);
        Ok(size)
    }
}

/// An image with a single layer, which makes `docker save` export that layer only.
pub(super) struct OneLayer<'a> {
    save: &'a Save,
    pub(super) name: String,
}

impl<'a> OneLayer<'a> {
    /// Imports the largest layer of `ours` as an image of its own.
    pub(super) async fn import(save: &'a Save, ours: &Ours) -> anyhow::Result<Self> {
        let name = format!("longshore-bench/export-{}:1", std::process::id());
        let mut command = tokio::process::Command::from(save.command(&["import", "-", &name]));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let alone = Self { save, name };
        let mut import = command.spawn().context("running docker import")?;
        let mut pipe = import.stdin.take().context("a pipe was asked for")?;
        let layer = ours.layer()?;
        let mut frames = ours.blobs().open(&layer.blob.digest, 0).await?;
        while let Some(frame) = frames.try_next().await? {
            pipe.write_all(&frame).await.context("writing to docker import")?;
        }
        drop(pipe);
        ensure!(import.wait().await?.success(), "docker import failed");
        Ok(alone)
    }
}

impl Drop for OneLayer<'_> {
    fn drop(&mut self) {
        let mut remove = self.save.command(&["rmi", &self.name]);
        // It fails if the import failed, and that error is reported already.
        drop(remove.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}
