//! Reading everything once, to find what rotted unread.

use std::io;

use super::folder::{FsStore, StoreError, open_file, storage};
use crate::blob::BlobError;
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::file::{FileState, hash, open_regular};

/// The result of a check of the whole store.
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

    /// Whether the blob is there with `size` bytes and the right ones. It is hashed, unless its file
    /// is the one that was hashed before. A wrong one goes to quarantine.
    ///
    /// # Errors
    /// [`BlobError::Storage`].
    pub async fn is_right(&self, digest: &Digest, size: u64) -> Result<bool, BlobError> {
        let (inner, digest) = (self.0.clone(), *digest);
        blocking(move || {
            let path = inner.blob(&digest);
            let file = match open_regular(&path) {
                // A link in a blob's place is no blob; an ingest replaces it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Ok(false);
                }
                opened => opened.map_err(storage(digest, &path))?,
            };
            let state = FileState::of(&file.metadata().map_err(storage(digest, &path))?);
            if state.size() != size || inner.trust.is_good(&digest, state) {
                return Ok(state.size() == size);
            }
            let hashed = hash(&file, 0..u64::MAX, || true).map_err(storage(digest, &path))?;
            let right = hashed.is_some_and(|(actual, _)| actual == digest);
            match right {
                true => inner.trust.good(digest, state),
                false => inner.quarantine_if_same(&digest, &file),
            }
            Ok(right)
        })
        .await
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
