//! The agent's folder: its files, and their permissions.
//!
//! ```text
//!   <state>/                    mode 0700: nobody else on this machine looks in
//!     store/                    the blobs (`transfer::store::FsStore`)
//!     admin.sock                mode 0600: its callers are administrators
//!     ranges/<name>/
//!       range.json              the range's wanted images, grants and address (`record`)
//!       host/host.sock          made by this agent; the folder is mounted read-only into the range
//! ```
//!
//! A range can write none of it. Older versions made a folder `agent` for each range that it could
//! write: removing a range follows no link in that.
//!
//! The folders under `ranges/` are the record of which ranges there are: they are read when the
//! agent starts. One that is being removed is renamed first, to a name that no range has, so that a
//! kill leaves it whole or gone; the rest goes when the agent starts. A range has *folders* mounted,
//! not sockets: a mounted socket file would stay the one of an agent that is gone.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use control::RangeName;

/// The agent's folder. Clones are the same folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Number of ranges removed since the folder was opened.
    removals: Arc<AtomicU64>,
}

/// The folder of a range that is not there any more, and that waits to be deleted.
#[derive(Debug)]
#[must_use = "it takes its room until it is deleted"]
pub struct Leaving(PathBuf);

impl Leaving {
    /// Deletes the folder with everything in it; links are removed, not followed. The time depends
    /// on how much the range left.
    ///
    /// # Errors
    /// The system's own; the rest is deleted when the agent's folder is next opened.
    pub fn delete(self) -> io::Result<()> {
        absent_is_fine(std::fs::remove_dir_all(&self.0))
    }
}

impl StateDir {
    /// Opens the folder and creates its missing parts.
    ///
    /// # Errors
    /// The system's own.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let state = Self { root: root.into(), removals: Arc::default() };
        make_private(&state.root)?;
        make_private(&state.ranges_folder())?;
        state.finish_removals()?;
        Ok(state)
    }

    /// The blob store's folder.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The administrator's socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.root)
    }

    /// A range's own folder, with the two that it has mounted.
    #[must_use]
    pub fn range(&self, name: &RangeName) -> PathBuf {
        self.ranges_folder().join(name.as_str())
    }

    /// The socket on which a range is served.
    #[must_use]
    pub fn range_socket(&self, name: &RangeName) -> PathBuf {
        self.range(name).join("host").join("host.sock")
    }

    /// Returns the record of a range.
    #[must_use]
    pub fn range_record(&self, name: &RangeName) -> PathBuf {
        self.range(name).join("range.json")
    }

    /// Lists the ranges, sorted; entries that are not a range's name are left alone.
    ///
    /// # Errors
    /// The system's own.
    pub fn ranges(&self) -> io::Result<Vec<RangeName>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.ranges_folder())? {
            let entry = entry?;
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(name) = name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes a range's folders.
    ///
    /// # Errors
    /// The system's own.
    pub fn make_range(&self, name: &RangeName) -> io::Result<()> {
        make_private(&self.range(name).join("host"))
    }

    /// Takes a range's folders away, at once and with everything that the range left in them;
    /// `None` without folders. The range is gone then, and another may have its name.
    ///
    /// # Errors
    /// The system's own.
    pub fn take_range_away(&self, name: &RangeName) -> io::Result<Option<Leaving>> {
        // A name of its own: one of the same range may be under deletion still.
        let number = self.removals.fetch_add(1, Ordering::Relaxed);
        let leaving = self.ranges_folder().join(format!("{LEAVING}{number}-{name}"));
        match std::fs::rename(self.range(name), &leaving) {
            Ok(()) => Ok(Some(Leaving(leaving))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finishes interrupted removals of ranges.
    fn finish_removals(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.ranges_folder())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(LEAVING) {
                absent_is_fine(std::fs::remove_dir_all(entry.path()))?;
            }
        }
        Ok(())
    }

    fn ranges_folder(&self) -> PathBuf {
        self.root.join("ranges")
    }
}

/// The administrator's socket of the agent whose folder is `root`.
#[must_use]
pub fn admin_socket(root: &Path) -> PathBuf {
    root.join("admin.sock")
}

/// Prefix of the folder of a range that is being removed; no range's name has it.
const LEAVING: &str = ".leaving-";

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folders_are_the_record_of_the_ranges() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path().join("state")).unwrap();
        assert_eq!(state.ranges().unwrap(), []);
        let names: Vec<RangeName> = ["lab-1", "lab-2"].map(|name| name.parse().unwrap()).into();
        for name in names.iter().rev() {
            state.make_range(name).unwrap();
            state.make_range(name).unwrap();
        }
        std::fs::create_dir(root.path().join("state/ranges/Not A Name")).unwrap();
        std::fs::write(root.path().join("state/ranges/file"), "").unwrap();
        assert_eq!(StateDir::open(root.path().join("state")).unwrap().ranges().unwrap(), names);
        for folder in [state.range(&names[0]), state.range(&names[0]).join("host")] {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        }
        let leaving = state.take_range_away(&names[0]).unwrap().unwrap();
        assert_eq!(state.ranges().unwrap(), names[1..]);
        assert!(state.take_range_away(&names[0]).unwrap().is_none());
        state.make_range(&names[0]).unwrap();
        let again = state.take_range_away(&names[0]).unwrap().unwrap();
        for leaving in [leaving, again] {
            leaving.delete().unwrap();
        }
        assert_eq!(std::fs::read_dir(root.path().join("state/ranges")).unwrap().count(), 3);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished_when_the_folder_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        let name: RangeName = "lab-1".parse().unwrap();
        state.make_range(&name).unwrap();
        let _cut_short = state.take_range_away(&name).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("ranges")).unwrap().count(), 1);
        assert_eq!(state.ranges().unwrap(), []);
        StateDir::open(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("ranges")).unwrap().count(), 0);
    }

    #[test]
    fn removing_a_range_follows_no_link_that_it_left() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path().join("state")).unwrap();
        let name: RangeName = "hostile".parse().unwrap();
        state.make_range(&name).unwrap();
        let precious = root.path().join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("file"), "kept").unwrap();
        // As an older version left it.
        let agent = state.range(&name).join("agent");
        std::fs::create_dir(&agent).unwrap();
        std::os::unix::fs::symlink(&precious, agent.join("agent.sock")).unwrap();
        state.take_range_away(&name).unwrap().unwrap().delete().unwrap();
        assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"kept");
    }
}
