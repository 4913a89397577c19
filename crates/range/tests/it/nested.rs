//! A host's engine that a test may kill: one inside a container, which comes back by itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use range::{Isolation, Mode};

use crate::docker::Docker;

/// Maximum time from an engine's start until it answers.
const ENGINE_UP: Duration = Duration::from_secs(60);

/// An engine in a container of its own, with a socket on this machine.
#[derive(Debug)]
pub(crate) struct Nested {
    /// The engine, through the plain client.
    pub(crate) docker: Docker,
    /// Its socket.
    pub(crate) socket: PathBuf,
    outer: Docker,
    container: String,
}

impl Nested {
    /// Starts an engine of `image`, a range image, whose socket is made in `folder`. It is started
    /// again whenever it ends.
    pub(crate) fn start(outer: &Docker, name: &str, image: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let container = format!("lstest-{}-{name}", std::process::id());
        let socket = folder.join("docker.sock");
        let volume = format!("--volume={}:/run/outer", folder.display());
        let own = ["--restart=always", "--label=dev.longshore=1", &volume, "--name", &container];
        run_with_powers(outer, &own, &[image, "--host", "unix:///run/outer/docker.sock"]);
        let docker = Docker::at(format!("unix://{}", socket.display()));
        let engine = Self { docker, socket, outer: outer.clone(), container };
        engine.answers();
        engine
    }

    /// The process of its container, as this machine numbers it; 0 while it does not run.
    pub(crate) fn pid(&self) -> i32 {
        pid_of(&self.outer, &self.container)
    }

    /// Returns its data folder on this machine.
    pub(crate) fn data_root(&self) -> PathBuf {
        let format =
            "{{range .Mounts}}{{if eq .Destination \"/var/lib/docker\"}}{{.Source}}{{end}}{{end}}";
        let found = self.outer.run(&["inspect", "--format", format, &self.container]).unwrap();
        assert!(!found.is_empty(), "{} has no volume for its data", self.container);
        PathBuf::from(found)
    }

    fn answers(&self) {
        let started = Instant::now();
        while let Err(error) = self.docker.run(&["version"]) {
            assert!(started.elapsed() < ENGINE_UP, "{} does not answer: {error}", self.container);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.outer.run(&["logs", "--tail", "20", &self.container]);
            eprintln!("end of the log of {}:\n{}", self.container, log.unwrap_or_default());
        }
        if let Err(error) = self.outer.run(&["rm", "--force", "--volumes", &self.container]) {
            eprintln!("{} stays: {error}", self.container);
        }
    }
}

/// The process of a container, as this machine numbers it; 0 while it does not run.
pub(crate) fn pid_of(docker: &Docker, container: &str) -> i32 {
    let found = docker.run(&["inspect", "--format", "{{.State.Pid}}", container]);
    found.ok().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

/// `docker run --detach` with all that an engine in a container needs: what ranges are given.
fn run_with_powers(docker: &Docker, options: &[&str], command: &[&str]) {
    let mut names = match Isolation::choose(Mode::Auto).unwrap() {
        Isolation::Privileged => Vec::new(),
        Isolation::Capabilities(names) => names,
    };
    loop {
        let powers = powers(&names);
        let powers: Vec<&str> = powers.iter().map(String::as_str).collect();
        let arguments = [&["run", "--detach"], options, &powers, command].concat();
        let Err(error) = docker.run(&arguments) else { return };
        // An engine older than the kernel does not know all its capabilities.
        let before = names.len();
        names.retain(|name| !error.contains(&format!("\"CAP_{name}\"")));
        assert!(names.len() < before, "docker run failed: {error}");
        let made = options.iter().position(|option| *option == "--name").map(|at| options[at + 1]);
        drop(docker.run(&["rm", "--force", "--volumes", made.unwrap_or_default()]));
    }
}

fn powers(capabilities: &[String]) -> Vec<String> {
    if capabilities.is_empty() {
        return vec!["--privileged".to_owned()];
    }
    let fixed = [
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--device-cgroup-rule=a *:* rwm",
        "--cgroupns=host",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup",
    ];
    let added = capabilities.iter().map(|name| format!("--cap-add={name}"));
    added.chain(fixed.map(str::to_owned)).collect()
}

/// The process with these words on its command line, in the container whose first is `first`; 0
/// where there is none.
pub(crate) fn process_in(first: i32, is_meant: impl Fn(&[String]) -> bool) -> i32 {
    let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(container) = space(first) else { return 0 };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| space(*pid).as_ref() == Some(&container))
        .find(|pid| is_meant(&command_line(Path::new(&format!("/proc/{pid}/cmdline")))))
        .unwrap_or(0)
}

fn command_line(path: &Path) -> Vec<String> {
    let text = std::fs::read(PathBuf::from(path)).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A process that `parent` started and has not waited for; 0 where there is none.
pub(crate) fn child_of(parent: i32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let first = children.ok().and_then(|pids| pids.split_whitespace().next()?.parse().ok());
    first.unwrap_or(0)
}
