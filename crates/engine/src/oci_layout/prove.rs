//! The proof of a folder: every blob is hashed again, unless its file is the one that was hashed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use transfer::Digest;
use transfer::file::{FileState, open_regular};

use super::blob_path;
use crate::file_blob::FileBlob;

/// Most blobs that are remembered; beyond it all are forgotten, which costs reading them again.
const MAX_KNOWN: usize = 65_536;

/// What hashing has shown: for each blob, of which file, and whether it was right.
#[derive(Debug, Default)]
pub(super) struct Hashed(Mutex<HashMap<Digest, (FileState, bool)>>);

impl Hashed {
    /// Whether the blob is in the folder with the right size and bytes.
    pub(super) fn is_right(&self, root: &Path, digest: &Digest, size: u64) -> io::Result<bool> {
        let Some((span, identity)) = open(root, digest)? else { return Ok(false) };
        if span.size != size {
            return Ok(false);
        }
        if let Some(right) = self.known(digest, &identity) {
            return Ok(right);
        }
        let right = span.digest()? == *digest;
        let mut known = self.lock();
        if MAX_KNOWN <= known.len() {
            known.clear();
        }
        known.insert(*digest, (identity, right));
        Ok(right)
    }

    /// Whether the blob need not be sent: it is there with the right size, and not known to have
    /// other bytes. Nothing is hashed: that is the proof's.
    pub(super) fn seems_right(&self, root: &Path, digest: &Digest, size: u64) -> io::Result<bool> {
        let Some((span, identity)) = open(root, digest)? else { return Ok(false) };
        Ok(span.size == size && self.known(digest, &identity) != Some(false))
    }

    fn known(&self, digest: &Digest, identity: &FileState) -> Option<bool> {
        let known = self.lock();
        known.get(digest).filter(|(seen, _)| seen == identity).map(|(_, right)| *right)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (FileState, bool)>> {
        self.0.lock().expect("invariant: no one panics while holding what was hashed")
    }
}

fn open(root: &Path, digest: &Digest) -> io::Result<Option<(FileBlob, FileState)>> {
    let file = match open_regular(&blob_path(root, digest)) {
        // A link in a blob's place is no blob; a load puts one there.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) =>
        {
            return Ok(None);
        }
        opened => opened?,
    };
    let identity = FileState::of(&file.metadata()?);
    Ok(Some((FileBlob::whole(file)?, identity)))
}
