//! Locks between processes that use one folder as a sink; a killed process holds none.
//!
//! | file | shared | exclusive |
//! |---|---|---|
//! | `lock` | – | for moments: names change, an ingest begins, leftovers are swept |
//! | `loads` | from the begin of a load until its image has a name | while blobs are discarded |
//!
//! The holder of `lock` waits for nobody: it only tries `loads`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

/// Waits until nobody else changes the folder.
pub(super) fn changing(root: &Path) -> io::Result<Held> {
    let file = open(root, "lock")?;
    file.lock()?;
    Ok(Held { _file: file })
}

/// Says that blobs are coming in that no name reaches yet; waits while blobs are being discarded.
pub(super) fn loading(root: &Path) -> io::Result<Held> {
    let file = open(root, "loads")?;
    file.lock_shared()?;
    Ok(Held { _file: file })
}

/// Keeps loads from beginning; `None` where one is under way.
pub(super) fn without_loads(root: &Path) -> io::Result<Option<Held>> {
    let file = open(root, "loads")?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Held { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(root: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(root.join(name))
}
