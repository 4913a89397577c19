//! Builds the two agents, apart from everything else, and puts them where ranges can have them.
//!
//! Both are linked statically: the dind agent runs inside any range image, whatever C library that
//! has, and one build shares the dependencies between the two. Static linking needs the flag
//! `+crt-static` *and* an explicit `--target`, else procedural macros get the flag too and fail to
//! build; and a target folder of its own, else each change of flags throws away everybody's work.
//!
//! ```text
//! target/static/x86_64-unknown-linux-gnu/agent/longshore-*   where cargo builds
//! <state>/bin/longshore-*                                    where they are run from
//!             sources                                        what they were built from
//! ```
//! A running range and host agent so never miss a file that a `cargo clean` took away, and a build
//! that changes nothing changes no file.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, State};

/// The only target that the toolchain file installs.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The profile of the workspace's `Cargo.toml` that agents are built with here.
const PROFILE: &str = "agent";

/// The binaries.
const HOST_AGENT: &str = "longshore-host-agent";
const DIND_AGENT: &str = "longshore-dind-agent";

/// What in the workspace the agents are made from; everything in a folder counts.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "crates",
    "proto",
    "host-agent",
    "dind-agent",
];

/// The agents, built and in place.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    /// The host agent's binary.
    pub(crate) host_agent: PathBuf,
    /// The dind agent's binary.
    pub(crate) dind_agent: PathBuf,
}

impl Agents {
    /// Those in the folder `bin`, whether they are there or not.
    pub(crate) fn at(bin: &Path) -> Self {
        Self { host_agent: bin.join(HOST_AGENT), dind_agent: bin.join(DIND_AGENT) }
    }

    fn are_there(&self) -> bool {
        self.host_agent.exists() && self.dind_agent.exists()
    }
}

/// A build of the agents that may still be under way; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Build {
    agents: Agents,
    /// Absent when the agents are up to date.
    cargo: Option<Running>,
}

/// A cargo that builds.
#[derive(Debug)]
struct Running {
    child: Child,
    started: Instant,
    /// Where cargo puts what it makes.
    built: PathBuf,
    log: PathBuf,
    /// The fingerprint of what it is made from, and where that is written down.
    sources: String,
    record: PathBuf,
}

/// The agents of the sources as they are now. Cargo is asked only when a source has changed.
///
/// # Errors
/// When the state folder cannot be written or the build fails, with the end of cargo's output.
pub(crate) fn agents() -> Result<Agents> {
    begin()?.finish()
}

/// As [`agents`], without waiting: there is other work to do meanwhile.
///
/// # Errors
/// When the state folder cannot be written or cargo cannot be started.
pub(crate) fn begin() -> Result<Build> {
    let state = State::open()?;
    let agents = Agents::at(&state.bin());
    let root = crate::workspace::root();
    if !root.join("Cargo.toml").exists() {
        // This binary outlived its sources: what was built from them is all there is.
        return match agents.are_there() {
            true => Ok(Build { agents, cargo: None }),
            false => {
                bail!("the agents cannot be built: there are no sources at {}", root.display())
            }
        };
    }
    let sources = fingerprint(root).context("looking at the sources of the agents")?;
    let record = state.bin().join("sources");
    if agents.are_there() && fs::read_to_string(&record).is_ok_and(|built| built == sources) {
        return Ok(Build { agents, cargo: None });
    }
    setup::ensure_compiler()?;
    let target = target_folder(root).join("static");
    let log = state.log().join("build.log");
    fs::create_dir_all(state.log())
        .with_context(|| format!("creating {}", state.log().display()))?;
    let child = cargo(root, &target, &log)?;
    eprintln!(
        "         agents: building, which takes minutes the first time; log in {}",
        log.display()
    );
    let built = target.join(TARGET).join(PROFILE);
    let running = Running { child, started: Instant::now(), built, log, sources, record };
    Ok(Build { agents, cargo: Some(running) })
}

/// The agents as they were last built, whatever the sources say by now; `None` before the first
/// build.
pub(crate) fn agents_as_they_are() -> Result<Option<Agents>> {
    let agents = Agents::at(&State::open()?.bin());
    Ok(agents.are_there().then_some(agents))
}

impl Build {
    /// Waits for the build, and puts the agents in place.
    ///
    /// # Errors
    /// When the build fails, with the end of cargo's output.
    pub(crate) fn finish(mut self) -> Result<Agents> {
        let Some(running) = &mut self.cargo else { return Ok(self.agents.clone()) };
        let status = running.child.wait().context("waiting for cargo")?;
        if !status.success() {
            bail!(
                "building the agents failed; the end of {}:\n{}",
                running.log.display(),
                tail(&running.log)
            );
        }
        let bin = running.record.parent().context("the state folder has a place for binaries")?;
        fs::create_dir_all(bin).with_context(|| format!("creating {}", bin.display()))?;
        for place in [&self.agents.host_agent, &self.agents.dind_agent] {
            let name = place.file_name().context("an agent's binary has a name")?;
            let built = running.built.join(name);
            put(&built, place)
                .with_context(|| format!("copying {} to {}", built.display(), place.display()))?;
        }
        fs::write(&running.record, &running.sources)
            .with_context(|| format!("writing {}", running.record.display()))?;
        eprintln!("{:6.1} s  agents: built", running.started.elapsed().as_secs_f64());
        self.cargo = None;
        Ok(self.agents.clone())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        if let Some(running) = &mut self.cargo {
            // What it has built until now is used by the next; an error means that it has ended.
            drop(running.child.kill());
            drop(running.child.wait());
        }
    }
}

/// Builds the programs of these packages as the agents are built, with this profile and cargo's own
/// output, and says in which folder they are.
///
/// # Errors
/// When cargo cannot be started or the build fails.
pub(crate) fn programs(profile: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = crate::workspace::root();
    let target = target_folder(root).join("static");
    let status = static_build(root, &target, profile, packages).status();
    if !status.context("starting cargo, which builds the programs")?.success() {
        bail!("building {} with the profile {profile} failed", packages.join(", "));
    }
    Ok(target.join(TARGET).join(profile))
}

/// Starts cargo, whose output goes to `log`: nobody has to read it for cargo to go on.
fn cargo(root: &Path, target: &Path, log: &Path) -> Result<Child> {
    let file = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let errors = file.try_clone().with_context(|| format!("opening {}", log.display()))?;
    static_build(root, target, PROFILE, &["host-agent", "dind-agent"])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .context("starting cargo, which builds the agents")
}

/// Cargo, asked for static programs.
fn static_build(root: &Path, target: &Path, profile: &str, packages: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--profile", profile, "--target", TARGET, "--target-dir"])
        .arg(target)
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Copies `built` to `place`, whole or not at all; leaves `place` alone when nothing changes.
///
/// Who runs the old file keeps it: it is replaced, never written to.
fn put(built: &Path, place: &Path) -> io::Result<()> {
    let bytes = fs::read(built)?;
    if fs::read(place).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let partial = place.with_extension("partial");
    drop(bytes);
    fs::copy(built, &partial)?;
    fs::rename(&partial, place)
}

/// Cargo's target folder, which the person may have moved.
fn target_folder(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}

/// A number that changes when a source is written to, made or removed. Another compiler may give
/// another number, which costs one look by cargo.
fn fingerprint(root: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        hash(&root.join(source), &mut hasher)?;
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn hash(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        // Not there is a state too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    path.hash(hasher);
    if !meta.is_dir() {
        meta.len().hash(hasher);
        meta.modified()?.hash(hasher);
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    entries.sort();
    // Tests are in no binary, and are what changes most.
    entries.retain(|entry| !entry.ends_with("tests") && !entry.ends_with("target"));
    entries.iter().try_for_each(|entry| hash(entry, hasher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_changes_with_the_sources_alone() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("crates/x/src/lib.rs");
        let test = root.path().join("crates/x/tests/it/main.rs");
        for path in [&source, &test] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "one").unwrap();
        }
        let first = fingerprint(root.path()).unwrap();
        assert_eq!(fingerprint(root.path()).unwrap(), first);
        fs::write(&test, "other words").unwrap();
        fs::write(root.path().join("README.md"), "words").unwrap();
        assert_eq!(fingerprint(root.path()).unwrap(), first);
        fs::write(&source, "three").unwrap();
        let second = fingerprint(root.path()).unwrap();
        assert_ne!(second, first);
        fs::remove_file(&source).unwrap();
        assert_ne!(fingerprint(root.path()).unwrap(), second);
    }

    #[test]
    fn a_binary_that_did_not_change_is_left_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let root = tempfile::tempdir().unwrap();
        let (built, place) = (root.path().join("built"), root.path().join("place"));
        let inode = || fs::metadata(&place).unwrap().ino();
        fs::write(&built, "one").unwrap();
        put(&built, &place).unwrap();
        let first = inode();
        put(&built, &place).unwrap();
        assert_eq!(inode(), first);
        fs::write(&built, "two").unwrap();
        put(&built, &place).unwrap();
        assert_ne!(inode(), first, "whoever runs the old file keeps it");
        assert_eq!(fs::read(&place).unwrap(), b"two");
    }
}
