//! The files that were found to be the blobs of their names. So each is hashed once, and again only
//! for a reason.
//!
//! ```text
//!                commit ─► good ◄──────────── right ─┐
//!                           │                        │
//!   another file, changed, doubted by a reader       ├── one job for all who read meanwhile;
//!                           ▼                        │   their last frames wait for it
//!   first read ──────► to be hashed ─────────────────┤
//!                                                    └─ wrong ─► quarantine
//! ```
//! A file is the same as before while device, inode, size and modification time are. We set that time
//! ourselves, to the nanosecond, whenever the blob is read (collection goes by it): so a foreign
//! write shows even within one tick of the file system's clock. What rots beneath the file system
//! shows nothing; its reader finds out, asks again, and is how we learn of it
//! ([`crate::BlobSource::doubt`]).

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::digest::Digest;
use crate::file::FileState;

/// The state of a blob's file by which it is known again. Taken before the rename of a commit, it
/// leaves the change time out.
pub(super) fn stamp(metadata: &Metadata) -> FileState {
    FileState::of(metadata).without_change_time()
}

/// Knowledge about the blobs that were ingested or read since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Digest, Known>,
    rounds: u64,
}

#[derive(Debug)]
struct Known {
    stamp: FileState,
    /// Its bytes are the blob's.
    good: bool,
    /// Another number after each reason to hash it anew.
    round: u64,
    hashing: Weak<Hashing>,
}

/// A file that is being hashed; ends when nobody waits for it.
#[derive(Debug)]
pub(super) struct Hashing(pub(super) watch::Receiver<Option<Verdict>>);

/// The result of hashing a file.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Right,
    Wrong { actual: Digest },
    Unreadable(Arc<io::Error>),
}

impl Trust {
    /// Sets the file's time to now, and says whether its bytes are known to be the blob's, and in
    /// which round of reasons to hash it that is.
    pub(super) fn touch(&self, digest: &Digest, file: &File) -> io::Result<(bool, u64)> {
        let mut table = self.table();
        let found = stamp(&file.metadata()?);
        // A store that cannot take the note is read all the same.
        let _kept_older = file.set_modified(SystemTime::now());
        let stamp = stamp(&file.metadata()?);
        let round = table.next_round();
        match table.known.get_mut(digest) {
            Some(known) if known.stamp == found => {
                known.stamp = stamp;
                Ok((known.good, known.round))
            }
            _ => {
                table.known.insert(*digest, Known::unhashed(stamp, round));
                Ok((false, round))
            }
        }
    }

    /// Notes that the file of a committed blob is right.
    pub(super) fn good(&self, digest: Digest, stamp: FileState) {
        let mut table = self.table();
        let round = table.next_round();
        table.known.insert(digest, Known { good: true, ..Known::unhashed(stamp, round) });
    }

    /// Whether the file in this state is known to have the blob's bytes.
    pub(super) fn is_good(&self, digest: &Digest, state: FileState) -> bool {
        let known = self.table();
        known.known.get(digest).is_some_and(|known| known.good && known.stamp == state)
    }

    /// Has the blob hashed for its next reader.
    pub(super) fn doubt(&self, digest: &Digest) {
        let mut table = self.table();
        let round = table.next_round();
        if let Some(known) = table.known.get_mut(digest) {
            *known = Known::unhashed(known.stamp, round);
        }
    }

    /// Forgets a blob that is gone.
    pub(super) fn forget(&self, digest: &Digest) {
        self.table().known.remove(digest);
    }

    /// The job that hashes this file, begun by whoever comes first.
    pub(super) fn hashing(
        &self,
        digest: &Digest,
        file: FileState,
        begin: impl FnOnce(u64) -> Arc<Hashing>,
    ) -> Arc<Hashing> {
        let mut table = self.table();
        let Some(known) = table.known.get_mut(digest) else {
            // Removed meanwhile, and nobody's to share.
            return begin(0);
        };
        if !known.stamp.is_same_file(&file) {
            return begin(0);
        }
        if let Some(hashing) = known.hashing.upgrade() {
            return hashing;
        }
        let hashing = begin(known.round);
        known.hashing = Arc::downgrade(&hashing);
        hashing
    }

    /// The file was found right: good from now on, unless there was a new reason to hash it.
    pub(super) fn found_right(&self, digest: &Digest, stamp: FileState, round: u64) {
        let mut table = self.table();
        if let Some(known) = table.known.get_mut(digest) {
            known.good |= known.round == round && known.stamp == stamp;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Begins at 1: no file is in round 0.
    fn next_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }
}

impl Known {
    fn unhashed(stamp: FileState, round: u64) -> Self {
        Self { stamp, good: false, round, hashing: Weak::new() }
    }
}

#[cfg(test)]
mod tests;
