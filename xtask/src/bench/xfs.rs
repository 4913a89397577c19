//! A separate engine on XFS on a loop device, for machines whose file system has no reflinks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use super::docker::{Docker, save_load};
use super::testbed::remove;
use crate::setup;

/// Size of the file system in bytes. Its file is sparse.
const SIZE: u64 = 24 << 30;

/// Timeouts for the engine to start and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine with its file system.
#[derive(Debug)]
pub(super) struct XfsEngine {
    folder: PathBuf,
    docker: Docker,
    process: Child,
}

impl XfsEngine {
    /// Makes the file system, and starts the engine with `image` from the engine `from`.
    ///
    /// # Errors
    /// The machine has no loop device, no XFS in the kernel, or too little disk space.
    pub(super) async fn start(folder: &Path, from: &Docker, image: &str) -> Result<Self> {
        clear(folder)?;
        let folder = folder.join("xfs");
        let disk = folder.join("disk");
        fs::create_dir_all(&disk).with_context(|| format!("creating {}", disk.display()))?;
        let file = folder.join("disk.img");
        let made = fs::File::create(&file).and_then(|made| made.set_len(SIZE));
        made.with_context(|| format!("making {}", file.display()))?;
        run("mkfs.xfs", &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), &file])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &file, &disk])?;
        let docker = Docker::at(format!("unix://{}", folder.join("docker.sock").display()));
        let process = match spawn(&folder, &docker.host) {
            Ok(process) => process,
            Err(error) => {
                unmount(&folder)?;
                return Err(error);
            }
        };
        let engine = Self { folder, docker, process };
        engine.answers().await?;
        save_load(from, &engine.docker, &[image.to_owned()]).await?;
        Ok(engine)
    }

    /// Its address.
    pub(super) fn host(&self) -> &str {
        &self.docker.host
    }

    async fn answers(&self) -> Result<()> {
        let started = Instant::now();
        while let Err(error) =
            self.docker.run(&["version", "--format", "{{.Server.Version}}"]).await
        {
            let log = self.folder.join("log");
            ensure!(started.elapsed() < START_TIMEOUT, "{error:#}; see {}", log.display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

impl Drop for XfsEngine {
    /// Stops the engine and removes its files.
    fn drop(&mut self) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
            // An error means that it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && asked.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = unmount(&self.folder) {
            eprintln!(
                "could not remove the XFS engine's file system, the next bench tries again: {error:#}"
            );
        }
    }
}

fn spawn(folder: &Path, host: &str) -> Result<Child> {
    let config = folder.join("daemon.json");
    fs::write(&config, "{}\n").with_context(|| format!("writing {}", config.display()))?;
    let log = fs::File::create(folder.join("log")).context("opening an engine's log")?;
    let errors = log.try_clone().context("opening an engine's log")?;
    let flag = |name: &str, path: &str| format!("--{name}={}", folder.join(path).display());
    // With `--pdeathsig` the engine ends with this process, and its containerd with the engine.
    let mut command = Command::from(setup::command("setpriv")?);
    command
        .args(["--pdeathsig", "TERM", "dockerd", "--host", host])
        .args([flag("config-file", "daemon.json"), flag("data-root", "disk/data")])
        .args([flag("exec-root", "exec"), flag("pidfile", "docker.pid")])
        .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"])
        .args(["--containerd-namespace=longshore-bench"])
        .args(["--containerd-plugins-namespace=plugins.longshore-bench"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("starting an engine on XFS")
}

/// Removes what a killed bench left in its `folder`.
pub(super) fn clear(folder: &Path) -> Result<()> {
    unmount(&folder.join("xfs"))
}

/// Unmounts the file system and removes its folder.
fn unmount(folder: &Path) -> Result<()> {
    let disk = folder.join("disk");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mine = disk.display().to_string();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(&mine)) {
        run("umount", &["--recursive".as_ref(), &disk])?;
    }
    remove(folder)
}

fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let output = setup::command(program)?.args(arguments).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    super::docker::checked(program, &output).map(drop)
}
