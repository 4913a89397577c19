//! The frames that were read last, for others who read the same blob at about the same time.
//!
//! Ranges that come up together read the same layers. Whoever is first copies a frame out of the page
//! cache; those close behind send that very copy, and being quicker so, they stay close. One who
//! fell far behind reads for itself again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::digest::Digest;

/// How many frames are kept: bounds memory, and how far behind one may be.
const KEPT: usize = 8;

/// Frames by blob and offset.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(Digest, u64, Bytes)>>);

impl Recent {
    /// The frame that was read of this blob at `offset`, if it still is at hand.
    pub(super) fn get(&self, digest: &Digest, offset: u64) -> Option<Bytes> {
        let kept = self.kept();
        let mut latest_first = kept.iter().rev();
        let found = latest_first.find(|(of, at, _)| (of, *at) == (digest, offset));
        found.map(|(_, _, frame)| frame.clone())
    }

    /// Keeps a frame in place of the oldest.
    pub(super) fn put(&self, digest: Digest, offset: u64, frame: &Bytes) {
        let mut kept = self.kept();
        let oldest = if kept.len() < KEPT { None } else { kept.pop_front() };
        kept.push_back((digest, offset, frame.clone()));
        // A buffer goes back to its pool after the lock.
        drop(kept);
        drop(oldest);
    }

    /// Lets go of all of them: nobody is close behind, or what was read is in doubt.
    pub(super) fn clear(&self) {
        let kept = std::mem::take(&mut *self.kept());
        drop(kept);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Digest, u64, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
