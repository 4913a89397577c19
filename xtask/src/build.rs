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
use std::process::{Command, Stdio};
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
    fn at(bin: &Path) -> Self {
        Self { host_agent: bin.join(HOST_AGENT), dind_agent: bin.join(DIND_AGENT) }
    }

    fn are_there(&self) -> bool {
        self.host_agent.exists() && self.dind_agent.exists()
    }
}

/// The agents of the sources as they are now. Cargo is asked only when a source has changed.
///
/// # Errors
/// When the state folder cannot be written or the build fails, with the end of cargo's output.
pub(crate) fn agents() -> Result<Agents> {
    let bin = State::open()?.bin();
    let agents = Agents::at(&bin);
    let root = crate::root();
    if !root.join("Cargo.toml").exists() {
        // This binary outlived its sources: what was built from them is all there is.
        return match agents.are_there() {
            true => Ok(agents),
            false => {
                bail!("the agents cannot be built: there are no sources at {}", root.display())
            }
        };
    }
    let sources = fingerprint(root).context("looking at the sources of the agents")?;
    let record = bin.join("sources");
    if agents.are_there() && fs::read_to_string(&record).is_ok_and(|built| built == sources) {
        return Ok(agents);
    }
    build(root, &bin)?;
    fs::write(&record, sources).with_context(|| format!("writing {}", record.display()))?;
    Ok(agents)
}

/// The agents as they were last built, whatever the sources say by now; `None` before the first
/// build.
pub(crate) fn agents_as_they_are() -> Result<Option<Agents>> {
    let agents = Agents::at(&State::open()?.bin());
    Ok(agents.are_there().then_some(agents))
}

fn build(root: &Path, bin: &Path) -> Result<()> {
    let started = Instant::now();
    setup::ensure_compiler()?;
    eprintln!("         agents: building, which takes minutes the first time");
    let target = target_folder(root).join("static");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["build", "--locked", "--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(&target)
        .args(["--package", "host-agent", "--package", "dind-agent"])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stdin(Stdio::null())
        .output()
        .context("starting cargo, which builds the agents")?;
    if !output.status.success() {
        bail!(
            "building the agents failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    fs::create_dir_all(bin).with_context(|| format!("creating {}", bin.display()))?;
    for name in [HOST_AGENT, DIND_AGENT] {
        let built = target.join(TARGET).join(PROFILE).join(name);
        let place = bin.join(name);
        put(&built, &place)
            .with_context(|| format!("copying {} to {}", built.display(), place.display()))?;
    }
    eprintln!("{:6.1} s  agents: built", started.elapsed().as_secs_f64());
    Ok(())
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
