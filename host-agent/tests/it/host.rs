//! A host agent in the test's process, and the engine that it serves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser as _;
use control::Pattern;
use control::admin::NewRange;
use engine::fixture::FakeDocker;
use futures::TryStreamExt as _;
use host_agent::config::{Command, Config, Serve};
use process::exit::Exit;
use process::shutdown::Shutdown;
use proto::client::{Manners, is_serving};
use proto::{AdminClient, Endpoint, RemoteHost};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use transfer::{
    BlobSource as _, Image, ImageSource as _, LayerForm, OpenImage, Reference, StoreKind, fixture,
};

/// Longest wait for an agent's first answer, which an idle machine has at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent in this process, with its state in a folder of the test's.
pub(crate) struct HostAgent {
    pub(crate) state: PathBuf,
    shutdown: Shutdown,
    pub(crate) task: JoinHandle<anyhow::Result<Exit>>,
}

impl HostAgent {
    pub(crate) fn start(state: &Path, engine: &str) -> Self {
        Self::start_with(config(state, engine))
    }

    pub(crate) fn start_with(config: Serve) -> Self {
        let (state, shutdown) = (config.state_dir.clone(), Shutdown::default());
        let task = tokio::spawn(host_agent::serve(config, shutdown.clone()));
        Self { state, shutdown, task }
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.state.join("admin.sock")
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(Endpoint::unix(self.admin_socket()))
    }

    /// Adds a range, and gives the host as that range sees it.
    pub(crate) async fn range(&self, name: &str) -> RemoteHost {
        let all = vec![Pattern::all()];
        let range = NewRange { grants: all, ..NewRange::named(name.parse().unwrap()) };
        let range = self.admin().add_range(&range).await.unwrap();
        RemoteHost::new(Endpoint::unix(range.socket_path), Manners::default())
    }

    pub(crate) async fn stop(self) -> anyhow::Result<Exit> {
        self.shutdown.drain();
        self.task.await.unwrap()
    }
}

/// An agent in a process of its own, which can be killed.
pub(crate) struct HostProcess {
    child: tokio::process::Child,
}

impl HostProcess {
    pub(crate) fn start(state: &Path, engine: &str) -> Self {
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_longshore-host-agent"))
            .args(["--log", "error", "serve", "--inspect", "off", "--engine", engine])
            .arg("--state-dir")
            .arg(state)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child }
    }

    /// An administrator's client, once the agent answers.
    pub(crate) async fn admin(&self, state: &Path) -> AdminClient {
        let endpoint = Endpoint::unix(state.join("admin.sock"));
        let begun = Instant::now();
        while let Err(error) = is_serving(&endpoint).await {
            assert!(begun.elapsed() < PATIENCE, "the host agent does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        AdminClient::new(endpoint)
    }

    /// SIGKILL, and returns when it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

pub(crate) fn config(state: &Path, engine: &str) -> Serve {
    let line = ["host", "serve", "--inspect", "off", "--drain-timeout", "1s", "--engine", engine];
    let line = line.into_iter().map(Into::into);
    let config =
        Config::parse_from(line.chain(["--state-dir".into(), state.as_os_str().to_owned()]));
    match config.command {
        Command::Serve(serve) => serve,
        command => unreachable!("the line says serve: {command:?}"),
    }
}

/// An engine with one image under the name `app:1`.
pub(crate) fn engine() -> (FakeDocker, Image) {
    let docker = FakeDocker::start(StoreKind::Graphdriver);
    let (image, blobs) = fixture::image(1, &[10, 70_000, 3 << 20]);
    docker.add(&image, &blobs, &app());
    (docker, image)
}

pub(crate) fn app() -> Reference {
    "app:1".parse().unwrap()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Reads every layer of an image to its end; each stream verifies what it gives.
pub(crate) async fn read_all(host: &RemoteHost, image: &Image) -> anyhow::Result<u64> {
    let OpenImage { image, blobs } =
        host.open(&image.config_digest.into(), LayerForm::AsStored).await?;
    let mut size = 0;
    for layer in &image.layers {
        let frames: Vec<_> = blobs.open(&layer.blob.digest, 0).await?.try_collect().await?;
        size += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
    }
    Ok(size)
}

pub(crate) fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.blob.size).sum()
}
