//! Who reads what, and the frames that were read last, for others who read the same at about the
//! same time.
//!
//! Ranges that come up together read the same layers. Whoever is first copies a frame out of the page
//! cache; those close behind send that very copy, and being quicker so, they stay close. One who
//! fell far behind reads for itself again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::digest::Digest;

/// How many frames are kept: bounds memory, and how far behind one may be. When 16 read at
/// full speed (benches/wire), 8 spared half of their reads, 16 85 %, 24 93 %; 15 of 16 is all.
const KEPT: usize = 24;

/// A blob as one state of its file has it, by the rounds that [`super::trust`] counts: after a reason
/// to hash it anew, nobody gets what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) digest: Digest,
    pub(super) round: u64,
}

/// Streams under way, and frames by version and offset.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    readers: HashMap<Version, usize>,
    /// The sum of `readers`.
    all: usize,
    /// Only of what several read.
    frames: VecDeque<(Version, u64, Bytes)>,
}

impl Recent {
    /// One more reads this.
    pub(super) fn begin(&self, version: Version) {
        let mut state = self.state();
        *state.readers.entry(version).or_default() += 1;
        state.all += 1;
    }

    /// One less does.
    pub(super) fn end(&self, version: Version) {
        let mut state = self.state();
        let left = state.readers.get(&version).map_or(0, |readers| readers.saturating_sub(1));
        match left {
            0 => _ = state.readers.remove(&version),
            left => _ = state.readers.insert(version, left),
        }
        state.all -= 1;
        let mut gone = VecDeque::new();
        if left < 2 {
            let of_others = |(of, ..): &(Version, u64, Bytes)| *of != version;
            (state.frames, gone) = state.frames.drain(..).partition(of_others);
        }
        // Buffers go back to their pool after the lock.
        drop(state);
        drop(gone);
    }

    /// How many streams are under way.
    pub(super) fn readers(&self) -> usize {
        self.state().all
    }

    /// The frame that was read at `offset`, if it still is at hand.
    pub(super) fn get(&self, version: Version, offset: u64) -> Option<Bytes> {
        let state = self.state();
        let mut latest_first = state.frames.iter().rev();
        let found = latest_first.find(|(of, at, _)| (*of, *at) == (version, offset));
        found.map(|(_, _, frame)| frame.clone())
    }

    /// Keeps a frame in place of the oldest, where another reads the same.
    pub(super) fn put(&self, version: Version, offset: u64, frame: &Bytes) {
        let mut state = self.state();
        if state.readers.get(&version).is_none_or(|readers| *readers < 2) {
            return;
        }
        let is_full = KEPT <= state.frames.len();
        let oldest = if is_full { state.frames.pop_front() } else { None };
        state.frames.push_back((version, offset, frame.clone()));
        drop(state);
        drop(oldest);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_kept_for_those_who_read_the_same_and_no_longer() {
        let recent = Recent::default();
        let version = Version { digest: Digest::of(b"blob"), round: 1 };
        let frame = Bytes::from_static(b"frame");
        recent.begin(version);
        recent.put(version, 0, &frame);
        assert_eq!(recent.get(version, 0), None, "nobody else wants it");
        recent.begin(version);
        for offset in 0..=KEPT as u64 {
            recent.put(version, offset, &frame);
        }
        assert_eq!((recent.get(version, 0), recent.get(version, 1)), (None, Some(frame)));
        let later = Version { round: 2, ..version };
        assert_eq!(recent.get(later, 1), None, "of a file that is in doubt");
        recent.end(version);
        assert_eq!((recent.get(version, 1), recent.readers()), (None, 1));
        recent.end(version);
        assert_eq!(recent.readers(), 0);
        assert!(recent.state().readers.is_empty());
    }
}
