//! Who makes a seed or a range holds a lock on its folder beside the host agent, and loses it when killed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Held {
    _folder: File,
}

/// The lock on `folder`; `None` while another maker holds it.
pub(crate) fn try_hold(folder: &Path) -> io::Result<Option<Held>> {
    let file = File::open(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Held { _folder: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_maker_at_a_time_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = try_hold(folder.path()).unwrap();
        assert!(held.is_some());
        assert!(try_hold(folder.path()).unwrap().is_none());
        drop(held);
        assert!(try_hold(folder.path()).unwrap().is_some());
        assert!(try_hold(&folder.path().join("absent")).is_err());
    }
}
