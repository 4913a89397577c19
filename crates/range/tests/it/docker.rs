//! The plain `docker` client, as a person would type it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An engine, spoken to through the `docker` client; one inside a range through `docker exec`.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    host: String,
    container: Option<String>,
}

impl Docker {
    /// The engine at a `DOCKER_HOST` value.
    pub(crate) fn at(host: impl Into<String>) -> Self {
        Self { host: host.into(), container: None }
    }

    /// The engine inside one of this engine's containers.
    pub(crate) fn inside(&self, container: impl Into<String>) -> Self {
        Self { host: self.host.clone(), container: Some(container.into()) }
    }

    /// Its `DOCKER_HOST` value; of the engine around it for one inside a range.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Runs `docker` with these arguments; what it printed on stdout, or on stderr as an error.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String, String> {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host]).stdin(Stdio::null());
        if let Some(container) = &self.container {
            command.args(["exec", container, "docker"]);
        }
        printed(command.args(arguments))
    }

    /// Runs another program beside an engine that is inside a container; what it printed.
    pub(crate) fn command_around(&self, argv: &[&str]) -> Result<String, String> {
        let container = self.container.as_deref().expect("the engine is inside a container");
        Self::at(self.host.clone()).run(&[&["exec", container], argv].concat())
    }

    /// Runs `docker` with words parted by spaces, and must succeed.
    pub(crate) fn must(&self, words: &str) -> String {
        let arguments: Vec<_> = words.split_whitespace().collect();
        self.run(&arguments).unwrap_or_else(|error| panic!("docker {words}: {error}"))
    }

    /// The image ID and the diff IDs that the engine tells of an image; `None` when it has none.
    pub(crate) fn image(&self, reference: &str) -> Option<(String, Vec<String>)> {
        let format = "{{.Id}} {{range .RootFS.Layers}}{{.}} {{end}}";
        let text = self.run(&["image", "inspect", "--format", format, reference]).ok()?;
        let mut words = text.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.collect()))
    }

    /// Returns the output of a program of an image.
    pub(crate) fn program(&self, reference: &str, argv: &[&str]) -> Result<String, String> {
        let options = ["run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined"];
        self.run(&[&options[..], &[reference], argv].concat())
    }

    /// Starts a container that only waits, and answers its name and where its root can be read.
    pub(crate) fn hold(&self, reference: &str) -> (String, PathBuf) {
        let options =
            "run --detach --network none --security-opt seccomp=unconfined --entrypoint sleep";
        let container = self.must(&format!("{options} {reference} 600"));
        let pid = self.must(&format!("inspect --format {{{{.State.Pid}}}} {container}"));
        let within = match &self.container {
            None => PathBuf::from("/"),
            Some(outer) => {
                let host = Self::at(self.host.clone());
                let pid = host.must(&format!("inspect --format {{{{.State.Pid}}}} {outer}"));
                PathBuf::from(format!("/proc/{pid}/root"))
            }
        };
        (container, within.join(format!("proc/{pid}/root")))
    }

    /// Builds an image from files: one layer for each list of names and contents, on top of `base`.
    pub(crate) fn build(&self, reference: &str, base: &str, layers: &[&[(&str, Vec<u8>)]]) {
        let context = tempfile::tempdir().unwrap();
        let mut recipe = format!("FROM {base}\n");
        for (number, files) in layers.iter().enumerate() {
            let folder = context.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            for (name, content) in *files {
                std::fs::write(folder.join(name), content).unwrap();
            }
            recipe.push_str(&format!("COPY {number} /layer-{number}\n"));
        }
        std::fs::write(context.path().join("Dockerfile"), recipe).unwrap();
        self.build_in(reference, context.path());
    }

    /// Builds an image from a folder with its Dockerfile.
    pub(crate) fn build_in(&self, reference: &str, context: &Path) {
        let mut command = Command::new("docker");
        command
            .args(["--host", &self.host, "build", "--quiet", "--label", "dev.longshore=1"])
            .args(["--tag", reference])
            .arg(context)
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null());
        // This builder calls itself deprecated on stderr at every build: told only of one that failed.
        printed(&mut command)
            .unwrap_or_else(|error| panic!("docker build of {reference} failed: {error}"));
    }
}

/// Returns a command's output on stdout, or on stderr as an error.
fn printed(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("docker can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Bytes that no compression shrinks, the same for the same seed.
pub(crate) fn noise(mut seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
