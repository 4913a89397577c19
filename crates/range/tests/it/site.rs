//! A host agent and ranges of a test's own, gone when the test ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proto::client::AdminClient;
use range::{
    LoadWay, RangeEvent, RangeName, Ranges, Reference, Report, Selection, Settings, StoreKind,
    UpRequest,
};
use tempfile::TempDir;

use crate::docker::Docker;
use crate::keeper::Keeper;
use crate::proxy::Proxy;

/// Maximum time until a host agent answers.
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
    /// The host agent, which is started again whenever it ends.
    pub(crate) agent: Keeper,
    /// Proxy that the one range reads through; see [`Options::proxied`].
    pub(crate) wire: Option<Proxy>,
    settings: Settings,
    project: String,
    folder: TempDir,
}

/// Options of a host agent of a test's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The engine, folder or archive that images come from, as `--engine` takes it; the engine that
    /// runs the ranges when empty.
    pub(crate) engine: String,
    /// More flags.
    pub(crate) flags: Vec<String>,
    /// True if the agent runs beneath its own supervisor.
    pub(crate) supervised: bool,
    /// A range that reaches the host agent through [`Site::wire`], by its name.
    pub(crate) proxied: Option<&'static str>,
    /// Load method of the agents of its ranges.
    pub(crate) load_way: LoadWay,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let project = format!("lstest-{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("ls-").tempdir().unwrap();
        let docker_host = variable("LONGSHORE_TEST_DOCKER");
        let state = folder.path().join("host");
        let wire = options.proxied.map(|range| interpose(&state, range));
        let engine = if options.engine.is_empty() { &docker_host } else { &options.engine };
        let agent = serve(engine, &state, &options);
        let settings = Settings {
            project: project.clone(),
            concurrency: 4,
            load_way: options.load_way,
            locks: folder.path().join("locks"),
            ..Settings::new(
                &docker_host,
                format!("unix://{}", state.join("admin.sock").display()),
                variable("LONGSHORE_TEST_DIND_AGENT"),
            )
        };
        let ranges = Ranges::connect(settings.clone()).await.unwrap();
        let docker = Docker::at(&docker_host);
        let site = Self { docker, docker_host, ranges, settings, agent, wire, project, folder };
        site.answers().await;
        site
    }

    /// Another host agent in the place of the one there is, with an empty store: the ranges stay
    /// and find it at their sockets.
    pub(crate) async fn serve_again(&mut self, options: &Options) {
        let state = self.path("host");
        // Nobody runs meanwhile.
        self.agent.stop();
        match std::fs::remove_dir_all(state.join("store")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        self.agent = serve(&options.engine, &state, options);
        self.answers().await;
    }

    /// Has the agents of ranges that are made from now on bring images in by `way`.
    pub(crate) async fn load_by(&mut self, way: LoadWay) {
        self.settings.load_way = way;
        self.ranges = Ranges::connect(self.settings.clone()).await.unwrap();
    }

    /// Changes how ranges are made from now on.
    pub(crate) async fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.ranges = Ranges::connect(self.settings.clone()).await.unwrap();
    }

    /// The administrator's side of the host agent.
    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.admin_endpoint())
    }

    /// Returns the administrator's endpoint of the host agent.
    pub(crate) fn admin_endpoint(&self) -> proto::Endpoint {
        format!("unix://{}", self.path("host/admin.sock").display()).parse().unwrap()
    }

    /// A path under the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Brings ranges up, of these names and on this store, with these images.
    pub(crate) async fn up(&self, store: StoreKind, names: &[&str], images: &[&str]) -> Report {
        self.up_from(&range_image(store), names, images).await
    }

    /// As [`up`](Self::up), from a range image by its name.
    pub(crate) async fn up_from(&self, image: &str, names: &[&str], images: &[&str]) -> Report {
        let request = UpRequest {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            range_image: image.to_owned(),
            images: references(images),
            grants: vec![range::Pattern::all()],
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

    /// Has a range want nothing more; what it has stays.
    pub(crate) async fn want_nothing(&self, range: &str) {
        let range: RangeName = range.parse().unwrap();
        self.admin().set_wanted(&range, &[], None).await.unwrap();
    }

    /// The container of a range.
    pub(crate) fn container(&self, range: &str) -> String {
        format!("{}-{range}", self.project)
    }

    /// The labels of what belongs to a range.
    pub(crate) fn labels(&self, range: &str) -> [String; 3] {
        [
            "dev.longshore=1".to_owned(),
            format!("dev.longshore.project={}", self.project),
            format!("dev.longshore.range={range}"),
        ]
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
        let ranges = self.admin().ranges().await.unwrap();
        let found = ranges.into_iter().find(|found| found.name.as_str() == range);
        let found = found.unwrap_or_else(|| panic!("there is no range {range}"));
        found.state.unwrap().agent.peak_rss_bytes
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
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("host.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("end of the host agent's log:");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Runs a host agent as the only one on `state`; its log is beside that.
fn serve(engine: &str, state: &Path, options: &Options) -> Keeper {
    let command = if options.supervised { "run" } else { "serve" };
    let arguments = [command, "--engine", engine, "--inspect", "127.0.0.1:0", "--state-dir"];
    let mut words: Vec<String> = arguments.map(str::to_owned).into();
    words.push(state.display().to_string());
    words.extend(options.flags.clone());
    let program = variable("LONGSHORE_TEST_HOST_AGENT");
    let log = state.with_extension("log");
    let behind = options.proxied.map(|range| places(state, range));
    Keeper::start(move || {
        let mut command = match &behind {
            None => Command::new(&program),
            Some(Places { front, back }) => {
                // For this process alone, the socket behind the proxy lies at the path of the
                // range's socket.
                let script = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
                command.args([back, front]).arg(&program);
                command
            }
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        command.args(&words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.unwrap());
        command
    })
}

/// The two folders for one range's socket: the one that the range has mounted, with the proxy's,
/// and the one where the host agent makes its own.
struct Places {
    front: PathBuf,
    back: PathBuf,
}

fn places(state: &Path, range: &str) -> Places {
    Places {
        front: state.join("ranges").join(range).join("host"),
        back: state.with_extension("behind").join(range),
    }
}

/// Makes a range known to a host agent to come, with a proxy where the range will look for it.
fn interpose(state: &Path, range: &str) -> Proxy {
    let Places { front, back } = places(state, range);
    for folder in [&front, &back] {
        std::fs::create_dir_all(folder).unwrap();
    }
    Proxy::start(&front.join("host.sock"), &back.join("host.sock"))
}

/// References from text that is known to be good.
pub(crate) fn references(images: &[&str]) -> Vec<Reference> {
    images.iter().map(|image| image.parse().unwrap()).collect()
}
