//! The state folder: everything that set-up makes outside an engine.
//!
//! ```text
//! <state>/longshore-state    marks the folder as xtask's; teardown may remove it
//!         lock               locked during set-up and teardown
//!         hosts              foreign engines with our objects, one per line
//!         pulled             images pulled into them, one `host image` per line
//!         packages           installed packages, one per line
//!         run/               sockets and pid files of the private engine and the agents
//!         engine/            the private engine: data, exec, daemon.json, network.json, dockerd.log
//!         build/             unfinished roots and logs of builds; empty after a success
//!         images/            cached probes of range images
//!         bin/  log/         the agents' binaries, and logs of detached agents
//!         tools/             tools for tests that the machine lacks
//!         host/              the host agent's state
//!         locks/             locks of commands that make ranges
//!         embedded/          folders of the demo without engines
//!         bench/             files of a running bench
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::step::say;

/// The file that marks a folder as a state folder.
const MARK: &str = "longshore-state";

/// Longest path of a Unix socket in bytes (`sun_path` without its final NUL).
const MAX_SOCKET_PATH: usize = 107;

/// The state folder of this machine.
#[derive(Clone, Debug)]
pub(crate) struct State {
    root: PathBuf,
}

/// Exclusive use of the state folder, until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl State {
    /// Opens or creates the state folder: `LONGSHORE_STATE`, else `/var/lib/longshore-xtask` for root,
    /// else `longshore` in `XDG_STATE_HOME` or `~/.local/state`.
    ///
    /// # Errors
    /// The folder cannot be created, has other files, or its path is too long for sockets.
    pub(crate) fn open() -> Result<Self> {
        Self::open_at(default_root()?)
    }

    fn open_at(root: PathBuf) -> Result<Self> {
        let state = Self { root };
        let longest = state.engine_exec().join("containerd/containerd-debug.sock.ttrpc");
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            bail!(
                "the state folder's path {} is too long for the sockets in it, whose paths have at most \
                 {MAX_SOCKET_PATH} bytes: set LONGSHORE_STATE to a shorter path",
                state.root.display()
            );
        }
        let is_new = fs::read_dir(&state.root).is_ok_and(|mut entries| entries.next().is_none());
        if state.root.exists() && !is_new && !state.root.join(MARK).exists() {
            bail!(
                "{} has files that are not Longshore's: set LONGSHORE_STATE to an empty or new folder",
                state.root.display()
            );
        }
        make_folder(&state.root, 0o755)?;
        fs::write(
            state.root.join(MARK),
            "made by Longshore's set-up; `cargo xtask teardown` removes it\n",
        )
        .with_context(|| format!("writing to {}", state.root.display()))?;
        for folder in [state.run(), state.engine(), state.build(), state.root.join("images")] {
            make_folder(&folder, 0o711)?;
        }
        Ok(state)
    }

    /// Opens the state folder if it exists.
    ///
    /// # Errors
    /// Its path is unknown, or the folder cannot be opened.
    pub(super) fn existing() -> Result<Option<Self>> {
        let root = default_root()?;
        let is_ours = root.join(MARK).exists();
        is_ours.then(|| Self::open_at(root)).transpose()
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of sockets and pid files, including those of detached agents (`<name>.pid`).
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Folder of the agents' binaries from the last build.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Folder of tools that tests need and the machine lacks.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Folder of the logs of detached agents.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The host agent's state folder.
    pub(crate) fn host_agent(&self) -> PathBuf {
        self.root.join("host")
    }

    /// Folder of the locks of commands that make ranges.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Folder of the demo without engines.
    pub(crate) fn embedded(&self) -> PathBuf {
        self.root.join("embedded")
    }

    /// Folder of a running bench.
    pub(crate) fn bench(&self) -> PathBuf {
        self.root.join("bench")
    }

    /// The private engine's socket.
    pub(super) fn engine_socket(&self) -> PathBuf {
        self.run().join("docker.sock")
    }

    /// Folder of the private engine, without its socket.
    pub(super) fn engine(&self) -> PathBuf {
        self.root.join("engine")
    }

    /// The private engine's data-root, which exists since the engine's first start.
    pub(super) fn engine_data(&self) -> PathBuf {
        self.engine().join("data")
    }

    /// The private engine's exec-root.
    pub(super) fn engine_exec(&self) -> PathBuf {
        self.engine().join("exec")
    }

    /// The private engine's log.
    pub(super) fn engine_log(&self) -> PathBuf {
        self.engine().join("dockerd.log")
    }

    /// Folder of unfinished roots and images.
    pub(super) fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// The cached probe of the range image `name`.
    pub(super) fn image_record(&self, name: &str) -> PathBuf {
        self.root.join("images").join(format!("{name}.json"))
    }

    /// Waits for exclusive use of the folder.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub(super) fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        loop {
            let file =
                File::create(&path).with_context(|| format!("opening {}", path.display()))?;
            if file.try_lock().is_err() {
                say("waiting for another Longshore command that is setting this machine up");
                file.lock().with_context(|| format!("locking {}", path.display()))?;
            }
            // A teardown that finished meanwhile has removed this file: lock the new one instead.
            let ours = file.metadata().with_context(|| format!("reading {}", path.display()))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(Lock { _file: file });
            }
            Self::open_at(self.root.clone())?;
        }
    }

    /// Adds `line` to the list `name`, unless the list has it.
    ///
    /// # Errors
    /// The list cannot be written.
    pub(super) fn note(&self, name: &str, line: &str) -> Result<()> {
        if self.notes(name).iter().any(|noted| noted == line) {
            return Ok(());
        }
        let path = self.root.join(name);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))
    }

    /// The lines of the list `name`; a missing list has none.
    pub(super) fn notes(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.root.join(name)).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

/// Replaces the file `path` atomically: after a kill it has its old or its new content.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("renaming {}", partial.display()))
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).with_context(|| {
        format!("creating {} (LONGSHORE_STATE must be a writable folder)", path.display())
    })
}

fn default_root() -> Result<PathBuf> {
    let named = std::env::var_os("LONGSHORE_STATE").filter(|value| !value.is_empty());
    if let Some(named) = named {
        return std::path::absolute(&named).context("LONGSHORE_STATE is not a path");
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/longshore-xtask"));
    }
    // The XDG specification says to ignore relative paths.
    let state_home = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    if let Some(state_home) = state_home.filter(|path| path.is_absolute()) {
        return Ok(state_home.join("longshore"));
    }
    match std::env::home_dir() {
        Some(home) => Ok(home.join(".local/state/longshore")),
        None => bail!("no home folder for the state: set LONGSHORE_STATE to a folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        let error = State::open_at(folder.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("not Longshore's"), "{error}");
    }

    #[test]
    fn a_reopened_folder_has_its_lists() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("state");
        let state = State::open_at(root.clone()).unwrap();
        state.note("hosts", "unix:///a").unwrap();
        state.note("hosts", "unix:///a").unwrap();
        state.note("hosts", "unix:///b").unwrap();
        let state = State::open_at(root).unwrap();
        assert_eq!(state.notes("hosts"), ["unix:///a", "unix:///b"]);
        assert_eq!(state.notes("pulled"), [""; 0]);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_early() {
        let error = State::open_at(PathBuf::from(format!("/{}", "x".repeat(100)))).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
