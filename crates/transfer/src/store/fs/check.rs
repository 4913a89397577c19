//! Reading everything once, to find what rotted unread.

use std::io;

use super::{FsStore, StoreError, open_file, storage};
use crate::blob::BlobError;
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::file::hash;

/// What a check of the whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs that were read to the end and are what their names say.
    pub good: u64,
    /// Bytes of the good ones.
    pub bytes: u64,
    /// Blobs that were not, and are in quarantine now. Sorted.
    pub quarantined: Vec<Digest>,
    /// Blobs that could not be read, and why: nothing is known of them. Sorted.
    pub unreadable: Vec<(Digest, String)>,
}

impl FsStore {
    /// Hashes every committed blob and quarantines those that are not what their names say.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the blobs cannot be listed; one unreadable blob does not stop it.
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        for (digest, _) in self.list().await? {
            match self.check_one(digest).await {
                Ok(size) => {
                    report.good += 1;
                    report.bytes += size;
                }
                // Removed since it was listed.
                Err(BlobError::NotFound { .. }) => {}
                Err(BlobError::DigestMismatch { .. } | BlobError::SizeMismatch { .. }) => {
                    report.quarantined.push(digest);
                }
                Err(error) => report.unreadable.push((digest, error.to_string())),
            }
        }
        Ok(report)
    }

    /// Hashes one blob; its size in bytes if it is right.
    async fn check_one(&self, digest: Digest) -> Result<u64, BlobError> {
        let inner = self.0.clone();
        blocking(move || {
            let path = inner.blob(&digest);
            let hashed = open_file(&path)
                .and_then(|(file, _)| Ok((hash(&file, 0..u64::MAX, || true)?, file)));
            match hashed {
                Ok((Some((actual, size)), _)) if actual == digest => Ok(size),
                Ok((hashed, file)) => {
                    inner.quarantine_if_same(&digest, &file);
                    let actual = hashed.map_or(digest, |(actual, _)| actual);
                    Err(BlobError::DigestMismatch { expected: digest, actual })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(BlobError::NotFound { digest })
                }
                Err(error) => Err(storage(digest, &path)(error)),
            }
        })
        .await
    }
}
