//! Collection: blobs that nobody counts on make room, the least recently read first.
//!
//! When a blob was last read is its file's modification time: set whenever a reader opens it, and
//! kept by every file system, however it is mounted. A reader that has a removed blob open reads it to
//! its end; whoever asks for it next is told that it is not here, and takes it in again.

use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::folder::{FsStore, Inner, StoreError};
use super::policy::{Collected, Goal, Mark, Policy, Space, Usage};
use crate::blocking::blocking;
use crate::digest::Digest;

/// How often a store looks after itself when nothing is taken in.
const TIDY_EVERY: Duration = Duration::from_secs(60);

impl FsStore {
    /// Looks after the store for ever: after each blob that was taken in, and from time to time.
    /// `told` hears what was collected, and what went wrong. Ingests leave the policy's reserve free
    /// from its first poll on.
    pub async fn keep_within(
        &self,
        policy: Policy,
        told: impl Fn(Result<Collected, StoreError>) + Send,
    ) {
        self.set_reserve(policy.reserve);
        loop {
            match self.tidy(&policy).await {
                Ok(Collected { blobs: 0, .. }) => {}
                result => told(result),
            }
            let taken_in = self.0.committed.notified();
            let _either = tokio::time::timeout(TIDY_EVERY, taken_in).await;
        }
    }

    /// What ingests are to leave free from now on; nothing until this is called.
    pub fn set_reserve(&self, reserve: Mark) {
        *self.0.reserve.lock().unwrap_or_else(PoisonError::into_inner) = reserve;
    }

    /// Collects the store once, if `policy` wants that.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn tidy(&self, policy: &Policy) -> Result<Collected, StoreError> {
        let (usage, space) = (self.usage().await?, self.space().await?);
        match policy.target(usage.bytes, space) {
            Some(target) => self.collect(Goal { target, dry_run: false }).await,
            None => Ok(Collected::default()),
        }
    }

    /// Removes blobs that no lease keeps until `goal` is reached or nothing more may go.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the blobs cannot be listed, or one not be removed; what was removed
    /// before stays removed.
    pub async fn collect(&self, goal: Goal) -> Result<Collected, StoreError> {
        let inner = self.0.clone();
        blocking(move || inner.collect(goal)).await
    }

    /// How many blobs there are, and what they take.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        let blobs = self.list().await?;
        Ok(Usage { blobs: blobs.len() as u64, bytes: blobs.iter().map(|(_, size)| size).sum() })
    }

    /// How much room there is on the store's file system.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn space(&self) -> Result<Space, StoreError> {
        let inner = self.0.clone();
        blocking(move || inner.space()).await
    }

    /// What was collected since the store was opened.
    #[must_use]
    pub fn collected(&self) -> Collected {
        *self.0.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that may be collected.
struct Candidate {
    read: SystemTime,
    digest: Digest,
    size: u64,
    path: PathBuf,
}

impl Inner {
    pub(super) fn space(&self) -> Result<Space, StoreError> {
        let found = rustix::fs::statvfs(&self.root)
            .map_err(|error| StoreError::io("ask the space of", &self.root)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { size: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }

    /// What ingests leave free, in bytes.
    pub(super) fn reserved(&self, space: Space) -> u64 {
        space.reserved(*self.reserve.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes as many bytes, or nothing when so much may not go: it would help nobody.
    pub(super) fn make_room(&self, bytes: u64) -> Result<Collected, StoreError> {
        let stored: u64 = self.list()?.iter().map(|(_, size)| size).sum();
        let Some(target) = stored.checked_sub(bytes) else {
            return Ok(Collected::default());
        };
        let goal = Goal { target, dry_run: true };
        match self.collect(goal)? {
            would if would.bytes < bytes => Ok(Collected::default()),
            _ => self.collect(Goal { dry_run: false, ..goal }),
        }
    }

    pub(super) fn collect(&self, goal: Goal) -> Result<Collected, StoreError> {
        // One at a time: two would each remove what the goal asks for.
        let mut sum = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates = self.candidates()?;
        let mut stored: u64 = candidates.iter().map(|candidate| candidate.size).sum();
        candidates.sort_by_key(|candidate| (candidate.read, candidate.digest));
        let mut collected = Collected::default();
        for candidate in candidates {
            if stored <= goal.target {
                break;
            }
            if self.let_go(&candidate, goal.dry_run)? {
                stored -= candidate.size;
                collected.blobs += 1;
                collected.bytes += candidate.size;
            } else {
                collected.kept_leased += 1;
            }
        }
        if !goal.dry_run {
            sum.blobs += collected.blobs;
            sum.bytes += collected.bytes;
            sum.kept_leased = collected.kept_leased;
        }
        Ok(collected)
    }

    /// Removes the blob unless it is leased; whether it is gone.
    fn let_go(&self, candidate: &Candidate, dry_run: bool) -> Result<bool, StoreError> {
        let remove = || if dry_run { Ok(()) } else { std::fs::remove_file(&candidate.path) };
        match self.leases.unless_held(&candidate.digest, candidate.read, remove) {
            None => Ok(false),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &candidate.path)(error))
            }
            Some(_) => {
                if !dry_run {
                    self.trust.forget(&candidate.digest);
                }
                Ok(true)
            }
        }
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut candidates = Vec::new();
        if self.is_shared() {
            return Ok(candidates);
        }
        for (digest, _) in self.list()? {
            let path = self.blob(&digest);
            // One that is gone since, or does not tell its time, is not there for us.
            let Ok(metadata) = path.metadata() else { continue };
            let Ok(read) = metadata.modified() else { continue };
            candidates.push(Candidate { read, digest, size: metadata.len(), path });
        }
        Ok(candidates)
    }
}

#[cfg(test)]
mod tests;
