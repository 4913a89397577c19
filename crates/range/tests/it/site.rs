//! A host agent and ranges of a test's own, gone when the test ends.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proto::client::{AdminClient, RangeClient};
use range::{RangeEvent, Ranges, Reference, Report, Selection, Settings, StoreKind, UpRequest};
use tempfile::TempDir;

use crate::docker::Docker;

/// How long a host agent may take until it answers.
const AGENT_UP: Duration = Duration::from_secs(20);

/// A variable that `cargo xtask test` sets; without it a test on real engines fails.
pub(crate) fn variable(name: &str) -> String {
    let found = std::env::var(name).unwrap_or_default();
    assert!(!found.is_empty(), "{name} is not set: run these tests with `cargo xtask test`");
    found
}

/// The references of the demo stack.
pub(crate) fn stack() -> Vec<String> {
    variable("LONGSHORE_TEST_STACK").split(',').map(str::to_owned).collect()
}

/// The image of the demo stack with this word in its name.
pub(crate) fn stack_image(word: &str) -> String {
    let found = stack().into_iter().find(|reference| reference.contains(word));
    found.unwrap_or_else(|| panic!("the demo stack has no {word}: {:?}", stack()))
}

/// The range image of a store.
pub(crate) fn range_image(store: StoreKind) -> String {
    variable(match store {
        StoreKind::Graphdriver => "LONGSHORE_TEST_RANGE_OVERLAY2",
        StoreKind::Containerd => "LONGSHORE_TEST_RANGE_CONTAINERD",
    })
}

/// A host agent with a store of its own, and the ranges of a project of their own.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) docker: Docker,
    pub(crate) docker_host: String,
    pub(crate) ranges: Ranges,
    project: String,
    agent: Child,
    folder: TempDir,
}

impl Site {
    pub(crate) async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let project = format!("lstest-{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("ls-").tempdir().unwrap();
        let docker_host = variable("LONGSHORE_TEST_DOCKER");
        let state = folder.path().join("host");
        let agent = serve(&docker_host, &state);
        let settings = Settings {
            project: project.clone(),
            concurrency: 4,
            ..Settings::new(
                &docker_host,
                format!("unix://{}", state.join("admin.sock").display()),
                variable("LONGSHORE_TEST_DIND_AGENT"),
            )
        };
        let ranges = Ranges::connect(settings).await.unwrap();
        let docker = Docker::at(&docker_host);
        let site = Self { docker, docker_host, ranges, project, agent, folder };
        site.answers().await;
        site
    }

    /// The administrator's side of the host agent.
    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.admin_endpoint())
    }

    /// Where the administrator's side of the host agent listens.
    pub(crate) fn admin_endpoint(&self) -> proto::Endpoint {
        format!("unix://{}", self.path("host/admin.sock").display()).parse().unwrap()
    }

    /// A path under the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Brings ranges up, of these names and on this store, with these images.
    pub(crate) async fn up(&self, store: StoreKind, names: &[&str], images: &[&str]) -> Report {
        let request = UpRequest {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            range_image: range_image(store),
            images: references(images),
            labels: range::Labels::default(),
        };
        self.ranges.up(&request, Arc::new(|_: RangeEvent| {})).await.unwrap()
    }

    /// Syncs ranges with what they were told to have, or with these images.
    pub(crate) async fn sync(&self, names: &[&str], images: &[&str]) -> Report {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let selection = Selection::Names(names);
        let observer = Arc::new(|_: RangeEvent| {});
        self.ranges.sync(&selection, &references(images), observer).await.unwrap()
    }

    /// The container of a range.
    pub(crate) fn container(&self, range: &str) -> String {
        format!("{}-{range}", self.project)
    }

    /// The engine inside a range, through the plain client.
    pub(crate) fn inside(&self, range: &str) -> Docker {
        self.docker.inside(self.container(range))
    }

    /// The socket of the engine inside a range, as this process can reach it.
    pub(crate) fn engine_socket(&self, range: &str) -> String {
        let format = "inspect --format {{.State.Pid}}";
        let pid = self.docker.must(&format!("{format} {}", self.container(range)));
        format!("unix:///proc/{pid}/root/run/docker.sock")
    }

    /// The most memory that the agent of a range ever held, in bytes.
    pub(crate) async fn dind_peak_rss(&self, range: &str) -> u64 {
        let socket = self.path(&format!("host/ranges/{range}/agent/agent.sock"));
        let endpoint: proto::Endpoint = format!("unix://{}", socket.display()).parse().unwrap();
        let agent = RangeClient::new(endpoint);
        agent.status().await.unwrap().peak_rss_bytes
    }

    async fn answers(&self) {
        let started = Instant::now();
        loop {
            let error = match self.admin().stats().await {
                Ok(_) => return,
                Err(error) => error.to_string(),
            };
            assert!(started.elapsed() < AGENT_UP, "the host agent does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let label = format!("label=dev.longshore.project={}", self.project);
        for (list, remove) in [
            ("ps --all --quiet --filter", "rm --force --volumes"),
            ("volume ls --quiet --filter", "volume rm --force"),
        ] {
            let words = format!("{list} {label}");
            let found = self.docker.run(&words.split_whitespace().collect::<Vec<_>>());
            for id in found.unwrap_or_default().lines() {
                let words = format!("{remove} {id}");
                let removed = self.docker.run(&words.split_whitespace().collect::<Vec<_>>());
                if let Err(error) = removed {
                    eprintln!("{id} stays: {error}");
                }
            }
        }
        let ended = self.agent.kill().and_then(|()| self.agent.wait());
        if let Err(error) = ended {
            eprintln!("the host agent stays: {error}");
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("host.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("end of the host agent's log:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn serve(docker_host: &str, state: &std::path::Path) -> Child {
    let log = state.with_extension("log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    Command::new(variable("LONGSHORE_TEST_HOST_AGENT"))
        .args(["serve", "--engine", docker_host, "--inspect", "127.0.0.1:0", "--state-dir"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// References from text that is known to be good.
pub(crate) fn references(images: &[&str]) -> Vec<Reference> {
    images.iter().map(|image| image.parse().unwrap()).collect()
}
