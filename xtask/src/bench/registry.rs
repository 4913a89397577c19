//! A peer: docker-registry, pushed to once and pulled from by each range, gzip on the way.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokio::process::{Child, Command};

use super::docker::Docker;
use super::row::Take;
use super::site::{Inside, remove, settle};
use crate::setup;

/// How long a registry may take until it listens.
const UP: Duration = Duration::from_secs(10);

/// A registry's content on disk, with the images in it.
#[derive(Debug)]
pub(super) struct Registry {
    folder: PathBuf,
    /// The images by their names in the registry, the registry's own left out.
    names: Vec<String>,
    /// How long the push took.
    pub(super) push: Take,
}

impl Registry {
    /// Pushes `images` from `host`, one after the other as a script does, into an empty registry.
    pub(super) async fn filled(folder: &Path, host: &Docker, images: &[String]) -> Result<Self> {
        let folder = folder.join("registry");
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let port = free_port()?;
        let _server = serve(&folder, port, None).await?;
        let names: Vec<String> = images.to_vec();
        let there: Vec<String> = names.iter().map(|name| at(port, name)).collect();
        for (image, there) in images.iter().zip(&there) {
            host.run(&["tag", image, there]).await?;
        }
        settle().await?;
        let started = Instant::now();
        let pushed = async {
            for image in &there {
                host.run(&["push", "--quiet", image]).await?;
            }
            anyhow::Ok(())
        };
        let pushed = pushed.await;
        let push = Take::of(started.elapsed().as_secs_f64());
        for image in &there {
            // The name alone: the image has another.
            drop(host.run(&["image", "rm", image]).await);
        }
        pushed?;
        Ok(Self { folder, names, push })
    }

    /// Serves the registry on the loopback address of `range`: engines take plain HTTP there without
    /// being told to.
    pub(super) async fn beside(&self, range: &Inside) -> Result<Served<'_>> {
        let port = free_port()?;
        let server = serve(&self.folder, port, Some(range.pid)).await?;
        Ok(Served { registry: self, port, _server: server })
    }

    /// Removes the content.
    pub(super) fn end(&self) -> Result<()> {
        remove(&self.folder)
    }
}

/// A registry that answers; it ends with this value.
#[derive(Debug)]
pub(super) struct Served<'a> {
    registry: &'a Registry,
    port: u16,
    _server: Child,
}

impl Served<'_> {
    /// Pulls every image, all at once.
    pub(super) async fn pull(&self, into: &Docker) -> Result<()> {
        let pulls = self.registry.names.iter().map(|name| {
            let there = at(self.port, name);
            async move { into.run(&["pull", "--quiet", &there]).await }
        });
        try_join_all(pulls).await.map(drop)
    }
}

fn at(port: u16, image: &str) -> String {
    format!("127.0.0.1:{port}/{image}")
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

/// A registry process over `folder`, on the loopback address of this machine or of the network that
/// process `inside` is in.
async fn serve(folder: &Path, port: u16, inside: Option<i32>) -> Result<Child> {
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
         storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: '{}'}}}}\n",
        folder.join("content").display()
    );
    fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    let mut command = match inside {
        None => Command::from(setup::command("docker-registry")?),
        Some(pid) => {
            let mut command = Command::from(setup::command("nsenter")?);
            command.arg(format!("--net=/proc/{pid}/ns/net")).arg("docker-registry");
            command
        }
    };
    let command = command.arg("serve").arg(&config).kill_on_drop(true);
    let log = fs::File::create(folder.join("log")).context("opening the registry's log")?;
    let mut child = command
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("starting docker-registry (of the package of that name)")?;
    let started = Instant::now();
    while !listens(port, inside) {
        let ended = child.try_wait().context("looking at the registry")?;
        ensure!(ended.is_none(), "docker-registry ended: {ended:?}, see {}", folder.display());
        ensure!(started.elapsed() < UP, "docker-registry does not listen on port {port}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Whether somebody listens on `port` of the loopback address there.
fn listens(port: u16, inside: Option<i32>) -> bool {
    let whose = inside.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let table = fs::read_to_string(format!("/proc/{whose}/net/tcp")).unwrap_or_default();
    is_listening(&table, port)
}

/// Whether the kernel's table of sockets has a listener (state `0A`) on `127.0.0.1:port`.
fn is_listening(table: &str, port: u16) -> bool {
    let address = format!("0100007F:{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&address) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:1388 00000000:0000 0A 0\n   1: 0100007F:1389 0100007F:1388 01 0\n";
        assert!(is_listening(table, 5000));
        assert!(!is_listening(table, 5001));
        assert!(!is_listening("", 5000));
    }
}
