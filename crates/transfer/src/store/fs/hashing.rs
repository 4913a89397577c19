//! Hashing a blob's file anew, once for all who read it meanwhile.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::folder::{Inner, storage};
use super::trust::{Hashing, Verdict, stamp};
use crate::blob::BlobError;
use crate::digest::Digest;
use crate::file::hash;

impl Hashing {
    /// Joins the job that hashes `file`, or begins it. It reads ahead of those who wait for it, so
    /// that they find the file's pages in memory.
    pub(super) fn of(
        inner: &Arc<Inner>,
        digest: Digest,
        file: &Arc<File>,
    ) -> io::Result<Arc<Self>> {
        let stamp = stamp(&file.metadata()?);
        let begin = |round| {
            let (told, verdict) = watch::channel(None);
            let (inner, file) = (inner.clone(), file.clone());
            tokio::task::spawn_blocking(move || {
                let verdict = judge(&inner, &digest, &file, round, &told);
                told.send_replace(verdict);
            });
            Arc::new(Self(verdict))
        };
        Ok(inner.trust.hashing(&digest, stamp, begin))
    }

    /// Waits until it is known whether the file is right.
    pub(super) async fn verdict(&self, inner: &Inner, digest: Digest) -> Result<(), BlobError> {
        let mut verdict = self.0.clone();
        let verdict = match verdict.wait_for(Option::is_some).await {
            Ok(verdict) => verdict.clone(),
            // The job is gone without a word: the runtime shuts down.
            Err(_closed) => None,
        };
        match verdict {
            Some(Verdict::Right) => Ok(()),
            Some(Verdict::Wrong { actual }) => {
                Err(BlobError::DigestMismatch { expected: digest, actual })
            }
            Some(Verdict::Unreadable(error)) => {
                let error = io::Error::new(error.kind(), error);
                Err(storage(digest, &inner.blob(&digest))(error))
            }
            None => Err(BlobError::unavailable(digest, "the blob was not hashed to its end")),
        }
    }
}

/// Hashes the file and acts on the result; `None` when nobody waits any more.
fn judge(
    inner: &Inner,
    digest: &Digest,
    file: &File,
    round: u64,
    waiting: &watch::Sender<Option<Verdict>>,
) -> Option<Verdict> {
    match hash(file, 0..u64::MAX, || !waiting.is_closed()) {
        Ok(None) => None,
        Ok(Some((actual, _))) if actual == *digest => {
            if let Ok(metadata) = file.metadata() {
                inner.trust.found_right(digest, stamp(&metadata), round);
            }
            Some(Verdict::Right)
        }
        Ok(Some((actual, _))) => {
            inner.quarantine_if_same(digest, file);
            Some(Verdict::Wrong { actual })
        }
        Err(error) => Some(Verdict::Unreadable(Arc::new(error))),
    }
}
