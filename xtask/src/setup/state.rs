//! The state folder: where everything lies that set-up makes outside an engine.
//!
//! ```text
//! <state>/longshore-state    the mark: this folder is ours, and teardown may remove it
//!         lock               held by whoever sets up or tears down
//!         hosts              engines of others that hold objects of ours, one a line
//!         pulled             images that we pulled into them, one `host image` a line
//!         packages           packages that we installed, one a line
//!         run/               sockets and pid files: the private engine's, the agents'
//!         engine/            the private engine: data, exec, daemon.json, network.json, dockerd.log
//!         build/             roots being made, logs of builds; empty when all is well
//!         images/            what probing each range image showed
//!         bin/  log/         the agents: binaries as last built, logs of detached ones
//!         host/              the host agent's own state
//!         locks/             held by calls that make ranges
//!         embedded/          folders of the demo without engines
//!         bench/             what a bench under way keeps
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::step::say;

/// The file that marks a folder as ours.
const MARK: &str = "longshore-state";

/// Longest path of a Unix socket, in bytes (`sun_path` less its final NUL).
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
    /// Opens the state folder: `LONGSHORE_STATE`, else `/var/lib/longshore-xtask` for root, else
    /// `longshore` in `XDG_STATE_HOME` or `~/.local/state`. It is made when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made, is somebody else's, or its path is too long for a socket.
    pub(crate) fn open() -> Result<Self> {
        Self::open_at(place()?)
    }

    fn open_at(root: PathBuf) -> Result<Self> {
        let state = Self { root };
        let longest = state.engine_exec().join("containerd/containerd-debug.sock.ttrpc");
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            bail!(
                "LONGSHORE_STATE={} is too long: sockets lie under it, and their paths end at {MAX_SOCKET_PATH} bytes",
                state.root.display()
            );
        }
        let is_new = fs::read_dir(&state.root).is_ok_and(|mut entries| entries.next().is_none());
        if state.root.exists() && !is_new && !state.root.join(MARK).exists() {
            bail!(
                "{} holds files of somebody else; set LONGSHORE_STATE to a folder that is empty or not there yet",
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

    /// The state folder if there is one, without making it.
    ///
    /// # Errors
    /// When there is no place for one, or what lies there is not ours.
    pub(super) fn existing() -> Result<Option<Self>> {
        let root = place()?;
        let is_ours = root.join(MARK).exists();
        is_ours.then(|| Self::open_at(root)).transpose()
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Sockets and pid files, those of detached agents (`<name>.pid`) included.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The agents' binaries, as they were last built.
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Where the tools lie that tests need and the machine lacks.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// The logs of detached agents.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The host agent's own state.
    pub(crate) fn host_agent(&self) -> PathBuf {
        self.root.join("host")
    }

    /// The folder of locks of calls that make ranges.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Folders of the demo without engines.
    pub(crate) fn embedded(&self) -> PathBuf {
        self.root.join("embedded")
    }

    /// What a bench under way keeps.
    pub(crate) fn bench(&self) -> PathBuf {
        self.root.join("bench")
    }

    /// The private engine's socket.
    pub(super) fn engine_socket(&self) -> PathBuf {
        self.run().join("docker.sock")
    }

    /// All of the private engine but its socket.
    pub(super) fn engine(&self) -> PathBuf {
        self.root.join("engine")
    }

    /// The private engine's data-root; it is there once such an engine was ever started.
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

    /// Where roots and images are being made.
    pub(super) fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// What probing the range image called `name` showed.
    pub(super) fn image_record(&self, name: &str) -> PathBuf {
        self.root.join("images").join(format!("{name}.json"))
    }

    /// Waits for exclusive use of the folder.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub(super) fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        loop {
            let file =
                File::create(&path).with_context(|| format!("opening {}", path.display()))?;
            if file.try_lock().is_err() {
                say("another Longshore command is setting this machine up: waiting for it");
                file.lock().with_context(|| format!("locking {}", path.display()))?;
            }
            // A teardown that we waited for has removed the file that we hold: take the new one.
            let ours = file.metadata().with_context(|| format!("reading {}", path.display()))?;
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(Lock { _file: file });
            }
            Self::open_at(self.root.clone())?;
        }
    }

    /// Adds `line` to the list called `name`, once.
    ///
    /// # Errors
    /// When the list cannot be written.
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

    /// The lines of the list called `name`; a list that is not there has none.
    pub(super) fn notes(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.root.join(name)).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

/// Writes `bytes` so that `path` has either its old content or all of the new, kill or not.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("renaming {}", partial.display()))
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).with_context(|| {
        format!("creating {} (set LONGSHORE_STATE to a folder that can be written)", path.display())
    })
}

fn place() -> Result<PathBuf> {
    let named = std::env::var_os("LONGSHORE_STATE").filter(|value| !value.is_empty());
    if let Some(named) = named {
        return std::path::absolute(&named).context("LONGSHORE_STATE is not a path");
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/longshore-xtask"));
    }
    // As the specification of these folders says, a path that is not absolute is none.
    let state_home = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    if let Some(state_home) = state_home.filter(|path| path.is_absolute()) {
        return Ok(state_home.join("longshore"));
    }
    match std::env::home_dir() {
        Some(home) => Ok(home.join(".local/state/longshore")),
        None => bail!("no home folder to keep state in: set LONGSHORE_STATE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_files_of_others_is_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        let error = State::open_at(folder.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("somebody else"), "{error}");
    }

    #[test]
    fn a_folder_is_opened_again_with_its_notes() {
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
