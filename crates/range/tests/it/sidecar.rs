//! The sidecar example, run by Docker's own compose as its README says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use range::{Isolation, Mode, StoreKind};

use crate::docker::Docker;
use crate::site::{range_image, stack_image, variable};

/// Maximum time for a restart policy and a health check.
const COMES_BACK: Duration = Duration::from_secs(60);

/// A compose project of the example, gone when the test ends.
struct Project {
    name: String,
    docker_host: String,
    files: Vec<PathBuf>,
    environment: Vec<(&'static str, String)>,
    _folder: tempfile::TempDir,
}

impl Project {
    fn new(store: StoreKind, images: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ls-").tempdir().unwrap();
        let docker_host = variable("LONGSHORE_TEST_DOCKER");
        let socket = docker_host.strip_prefix("unix://").expect("the engine is on this machine");
        let docker = Docker::at(&docker_host);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sidecar");
        let mut files = vec![example.join("compose.yaml")];
        if let Isolation::Capabilities(names) = Isolation::choose(Mode::Auto).unwrap() {
            files.push(example.join("compose.capabilities.yaml"));
            // Those of this machine, in the place of the example's list.
            let names: Vec<_> = names.into_iter().filter(|name| known(name)).collect();
            let path = folder.path().join("here.yaml");
            let text = format!("services: {{range: {{cap_add: [{}]}}}}\n", names.join(", "));
            std::fs::write(&path, text).unwrap();
            files.push(path);
        }
        Self {
            name: format!("lstest-sidecar-{store}-{}", std::process::id()),
            files,
            environment: vec![
                ("LONGSHORE_AGENTS", variable("LONGSHORE_TEST_AGENTS_IMAGE")),
                ("LONGSHORE_IMAGES", images.to_owned()),
                ("LONGSHORE_HOST_STATE", folder.path().join("state").display().to_string()),
                ("RANGE_IMAGE", range_image(store)),
                ("DOCKER_SOCKET", socket.to_owned()),
                ("DOCKER_ROOT", docker.must("info --format {{.DockerRootDir}}")),
            ],
            docker_host,
            _folder: folder,
        }
    }

    /// Runs compose with these words, and must succeed.
    fn compose(&self, words: &str) -> String {
        self.try_compose(words).unwrap_or_else(|error| panic!("compose {words}: {error}"))
    }

    fn try_compose(&self, words: &str) -> Result<String, String> {
        let mut command = Command::new(variable("LONGSHORE_TEST_COMPOSE"));
        command.args(["--project-name", &self.name]);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        let output = command
            .args(words.split_whitespace())
            .env("DOCKER_HOST", &self.docker_host)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The engine of the range.
    fn range(&self) -> Docker {
        Docker::at(&self.docker_host).inside(self.compose("ps --all --quiet range"))
    }

    /// Kills a service's process from outside, as a crash would.
    fn crash(&self, service: &str) {
        let docker = Docker::at(&self.docker_host);
        let container = self.compose(&format!("ps --quiet {service}"));
        let pid = docker.must(&format!("inspect --format {{{{.State.Pid}}}} {container}"));
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// True if the service was restarted after a crash, and is healthy if it has a health check.
    fn is_back(&self, service: &str) -> bool {
        let format = "{{.RestartCount}} {{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}";
        let container = self.compose(&format!("ps --all --quiet {service}"));
        let state = Docker::at(&self.docker_host).run(&["inspect", "--format", format, &container]);
        matches!(state.unwrap().trim_end(), "1 running healthy" | "1 running")
    }
}

/// Waits for something that comes by itself.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < COMES_BACK, "{what} did not come back");
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.try_compose("logs --no-color --tail 30");
            eprintln!("{}", logs.unwrap_or_else(|error| error));
        }
        if let Err(error) = self.try_compose("down --volumes --timeout 5") {
            eprintln!("the project {} stays: {error}", self.name);
        }
    }
}

/// Capabilities newer than the engines of this test are none of theirs.
fn known(name: &str) -> bool {
    !["PERFMON", "BPF", "CHECKPOINT_RESTORE"].contains(&name)
}

#[test]
#[ignore = "needs a Docker engine, range images and compose: cargo xtask test"]
fn dind_the_sidecar_example_fills_a_range_by_compose_alone() {
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let tiny = stack_image("tiny");
        let project = Project::new(store, &tiny);
        project.compose("up --detach --wait --wait-timeout 120");
        let (_, here) = Docker::at(&project.docker_host).image(&tiny).unwrap();
        let (_, there) =
            project.range().image(&tiny).expect("it is healthy, so the image is there");
        assert_eq!(there, here, "{store}");

        // Each of the three crashes once, and comes back without anybody's help.
        for service in ["host-agent", "range-agent", "range"] {
            project.crash(service);
            eventually(service, || project.is_back(service));
        }
        eventually("the range's image", || project.range().image(&tiny).is_some());
        assert_eq!(project.range().image(&tiny).unwrap().1, here, "{store}");
    }
}
