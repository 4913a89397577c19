//! Locks between calls, of this process and of others: files under `flock`, in one folder.
//!
//! A call that makes a range holds the lock of its name. A lock ends with its holder, also when that
//! is killed. The last holder removes the file, so that the folder does not grow.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::RangeError;

/// The folder of locks of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    folder: PathBuf,
}

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    path: PathBuf,
}

impl Locks {
    /// Those in `folder`, which is made when it is first needed.
    pub(crate) fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The lock of `name` for one holder alone; `None` while anybody else has it.
    ///
    /// # Errors
    /// [`RangeError::Lock`].
    pub(crate) fn hold(&self, name: &str) -> Result<Option<Held>, RangeError> {
        self.take(name, FlockOperation::NonBlockingLockExclusive)
    }

    /// The lock of `name`, shared with others; `None` while one holder has it alone.
    ///
    /// # Errors
    /// [`RangeError::Lock`].
    pub(crate) fn share(&self, name: &str) -> Result<Option<Held>, RangeError> {
        self.take(name, FlockOperation::NonBlockingLockShared)
    }

    fn take(&self, name: &str, operation: FlockOperation) -> Result<Option<Held>, RangeError> {
        let path = self.folder.join(format!("{name}.lock"));
        let failed = |source| RangeError::Lock { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        loop {
            let file = open(&path).map_err(failed)?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed(error.into())),
            }
            // Its last holder may have removed the file after it was opened here.
            if is_at(&file, &path).map_err(failed)? {
                return Ok(Some(Held { file, path }));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let alone = rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive);
        if alone.is_ok() {
            // A file that stays is in nobody's way.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(no_follow).open(path)
}

/// True if `file` is the file at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_a_lock_alone_or_several_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::in_folder(folder.path().join("made/when/needed"));
        let alone = locks.hold("a").unwrap();
        assert!(alone.is_some());
        assert!(locks.hold("a").unwrap().is_none() && locks.share("a").unwrap().is_none());
        assert!(locks.hold("b").unwrap().is_some(), "each name has a lock of its own");
        drop(alone);
        let (one, two) = (locks.share("a").unwrap(), locks.share("a").unwrap());
        assert!(one.is_some() && two.is_some() && locks.hold("a").unwrap().is_none());
        drop(two);
        assert!(locks.hold("a").unwrap().is_none(), "one still shares it");
        drop(one);
        assert!(locks.hold("a").unwrap().is_some());
    }

    #[test]
    fn the_last_holder_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::in_folder(folder.path());
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let (one, two) = (locks.share("a").unwrap(), locks.share("a").unwrap());
        drop(one);
        assert_eq!(files(), 1);
        drop(two);
        assert_eq!(files(), 0);
        // As a holder leaves it that was killed.
        std::fs::write(folder.path().join("a.lock"), "").unwrap();
        assert!(locks.hold("a").unwrap().is_some());
        assert_eq!(files(), 0);
    }

    #[test]
    fn many_threads_hold_one_lock_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::in_folder(folder.path());
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Some(_held) = locks.hold("a").unwrap() else { continue };
                        let before = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold it");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = Locks::in_folder(folder.path().join("file/locks")).hold("a").unwrap_err();
        assert!(error.explain().contains("file/locks"), "{}", error.explain());
    }
}
