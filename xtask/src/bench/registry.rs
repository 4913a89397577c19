//! A peer: docker-registry, with one push and a pull by each range, compressed with gzip.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::context::Bench;
use super::docker::Docker;
use super::row::Sample;
use super::testbed::{RunningRange, remove, settle};
use crate::setup;

/// Timeout for a registry to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry's content on disk.
#[derive(Debug)]
pub(super) struct Registry {
    folder: PathBuf,
    /// The images' names, without the registry's address.
    names: Vec<String>,
    /// The time of the push.
    pub(super) push: Sample,
}

/// The registry of a whole bench, filled by the first measure that needs it.
#[derive(Debug, Default)]
pub(super) struct Shared(OnceCell<Registry>);

impl Shared {
    /// The registry with the bench's images. The first call pushes them.
    pub(super) async fn get(&self, bench: &Bench) -> Result<&Registry> {
        let filled = async {
            bench.say("docker-registry: pushing, once for all ranges");
            Registry::filled(&bench.folder, &Docker::at(bench.host()), &bench.images).await
        };
        self.0.get_or_try_init(|| filled).await
    }

    /// Removes the content, if any was pushed.
    pub(super) fn end(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), Registry::end)
    }
}

impl Registry {
    /// Pushes `images` from `host` into an empty registry, one after another as a script would.
    async fn filled(folder: &Path, host: &Docker, images: &[String]) -> Result<Self> {
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
        let push = Sample::of(started.elapsed().as_secs_f64());
        for image in &there {
            // This removes only the tag, since the image has another one.
            drop(host.run(&["image", "rm", image]).await);
        }
        pushed?;
        Ok(Self { folder, names, push })
    }

    /// Serves the registry on the loopback address of `range`, where engines accept plain HTTP by
    /// default.
    pub(super) async fn serve_in(&self, range: &RunningRange) -> Result<Served<'_>> {
        let port = free_port()?;
        let server = serve(&self.folder, port, Some(range.pid)).await?;
        Ok(Served { registry: self, port, _server: server })
    }

    /// Removes the content.
    fn end(&self) -> Result<()> {
        remove(&self.folder)
    }
}

/// A running registry, which ends on drop.
#[derive(Debug)]
pub(super) struct Served<'a> {
    registry: &'a Registry,
    port: u16,
    _server: Child,
}

impl Served<'_> {
    /// Pulls all images at once.
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

/// Starts a registry for `folder`, on the loopback address of this machine or of the network namespace
/// of process `inside`.
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
        .context("starting docker-registry (from the package docker-registry)")?;
    let started = Instant::now();
    while !listens(port, inside) {
        let ended = child.try_wait().context("checking the registry's process")?;
        ensure!(ended.is_none(), "docker-registry ended: {ended:?}, see {}", folder.display());
        ensure!(
            started.elapsed() < START_TIMEOUT,
            "docker-registry does not listen on port {port}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Reports whether a process listens on `port` of the loopback address there.
fn listens(port: u16, inside: Option<i32>) -> bool {
    let owner = inside.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let table = fs::read_to_string(format!("/proc/{owner}/net/tcp")).unwrap_or_default();
    is_listening(&table, port)
}

/// Reports whether the kernel's table of sockets has a listener (state `0A`) on `127.0.0.1:port`.
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
    fn a_listener_is_distinguished_from_a_connection() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:1388 00000000:0000 0A 0\n   1: 0100007F:1389 0100007F:1388 01 0\n";
        assert!(is_listening(table, 5000));
        assert!(!is_listening(table, 5001));
        assert!(!is_listening("", 5000));
    }
}
