//! Locks on the folders that ranges and seeds have beside the host agent: who makes one holds its own
//! alone, who copies a seed shares that with others. They end with their holder, also when it is killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::RangeError;

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Held {
    folder: File,
}

/// The lock on `folder`, for one alone; `None` while somebody else has it, and where the folder went
/// meanwhile: another may be in its place.
pub(crate) fn hold(folder: &Path) -> Result<Option<Held>, RangeError> {
    lock(folder, FlockOperation::NonBlockingLockExclusive).map_err(failed)
}

/// The same, shared with others; `None` while one has it alone.
pub(crate) fn share(folder: &Path) -> Result<Option<Held>, RangeError> {
    lock(folder, FlockOperation::NonBlockingLockShared).map_err(failed)
}

impl Held {
    /// Has a lock that was shared for one alone, if nobody else shares it.
    pub(crate) fn alone(self) -> Option<Self> {
        let alone = rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive);
        alone.is_ok().then_some(self)
    }
}

fn failed(error: io::Error) -> RangeError {
    RangeError::seed("locking a folder beside the host agent", error)
}

fn lock(folder: &Path, operation: FlockOperation) -> io::Result<Option<Held>> {
    let file = File::open(folder)?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let held = file.metadata()?;
    match std::fs::metadata(folder) {
        Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
            Ok(Some(Held { folder: file }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_alone_or_several_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let alone = hold(folder).unwrap();
        assert!(alone.is_some());
        assert!(hold(folder).unwrap().is_none() && share(folder).unwrap().is_none());
        drop(alone);
        let (one, two) = (share(folder).unwrap().unwrap(), share(folder).unwrap());
        assert!(two.is_some() && hold(folder).unwrap().is_none());
        drop(two);
        let one = one.alone().unwrap();
        assert!(share(folder).unwrap().is_none());
        drop(one);
        let (one, two) = (share(folder).unwrap().unwrap(), share(folder).unwrap());
        assert!(one.alone().is_none(), "another shares it");
        drop(two);
        assert!(hold(&folder.join("absent")).is_err());
    }
}
