//! Leases: a blob that someone counts on is not collected.
//!
//! ```text
//!   hold(holder, digests)          lives until the guard is dropped
//!   grant(holder, digests, ttl)    lives until `ttl` after the last renew(holder, ttl)
//!                                  granted again by the same holder: the new digests replace the old
//!   hold_arrivals()                whatever comes in until the guard is dropped
//! ```
//! A granted lease is known by its holder, for instance `range/image`: so a caller that asks again
//! and again has one lease, not thousands.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::digest::Digest;

/// Who holds which blobs, until when. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    granted: HashMap<String, Granted>,
    held: HashMap<u64, (String, Vec<Digest>)>,
    /// Since when arrivals are held, by guard.
    arrivals: HashMap<u64, SystemTime>,
    next_id: u64,
    removals: u64,
}

#[derive(Debug)]
struct Granted {
    digests: HashSet<Digest>,
    expires: Instant,
}

/// Keeps its blobs while it lives.
#[must_use = "a lease ends when it is dropped"]
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    id: u64,
}

/// Keeps what arrives while it lives.
#[must_use = "arrivals are held no longer when it is dropped"]
#[derive(Debug)]
pub struct Arriving {
    leases: Leases,
    id: u64,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.leases.table().arrivals.remove(&self.id);
    }
}

/// How much earlier than the clock a file system may say that a file was written.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.table().held.remove(&self.id);
    }
}

impl Leases {
    /// Keeps `digests` until the guard is dropped: for work of our own.
    pub fn hold(
        &self,
        holder: impl Into<String>,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Lease {
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        table.held.insert(id, (holder.into(), digests.into_iter().collect()));
        Lease { leases: self.clone(), id }
    }

    /// Keeps whatever arrives, or is read, from now on until the guard is dropped: for an image that
    /// is being exported, whose blobs nobody can name yet.
    pub fn hold_arrivals(&self) -> Arriving {
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        table.arrivals.insert(id, SystemTime::now() - CLOCK_GRAIN);
        Arriving { leases: self.clone(), id }
    }

    /// Keeps `digests` for `ttl` from now: for a caller that may vanish. What the same holder was
    /// granted before is replaced.
    pub fn grant(
        &self,
        holder: impl Into<String>,
        digests: impl IntoIterator<Item = Digest>,
        ttl: Duration,
    ) {
        let granted =
            Granted { digests: digests.into_iter().collect(), expires: Instant::now() + ttl };
        self.table().granted.insert(holder.into(), granted);
    }

    /// Lets a granted lease live until `ttl` from now; `false` when it is gone. Never shortens it.
    #[must_use]
    pub fn renew(&self, holder: &str, ttl: Duration) -> bool {
        match self.table().granted.get_mut(holder) {
            Some(granted) => {
                granted.expires = granted.expires.max(Instant::now() + ttl);
                true
            }
            None => false,
        }
    }

    /// Ends a granted lease. One that is gone already is not an error.
    pub fn release(&self, holder: &str) {
        self.table().granted.remove(holder);
    }

    /// Whether anyone counts on the blob.
    #[must_use]
    pub fn is_leased(&self, digest: &Digest) -> bool {
        self.table().is_leased(digest)
    }

    /// Everyone who holds a lease now, sorted; a holder of several occurs as often.
    #[must_use]
    pub fn holders(&self) -> Vec<String> {
        let table = self.table();
        let held = table.held.values().map(|(holder, _)| holder);
        let mut holders: Vec<String> = table.granted.keys().chain(held).cloned().collect();
        holders.sort();
        holders
    }

    /// Runs `remove` unless the blob is leased, and lets no lease begin meanwhile. `None` where it
    /// is leased.
    pub(super) fn unless_leased<T>(
        &self,
        digest: &Digest,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut table = self.table();
        if table.is_leased(digest) {
            return None;
        }
        table.removals += 1;
        Some(remove())
    }

    /// As [`unless_leased`](Self::unless_leased), for a blob that arrived or was read at `time`.
    pub(super) fn unless_held<T>(
        &self,
        digest: &Digest,
        time: SystemTime,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut table = self.table();
        if table.is_leased(digest) || table.arrivals.values().any(|since| *since <= time) {
            return None;
        }
        table.removals += 1;
        Some(remove())
    }

    /// How many blobs were removed so far. Whoever finds blobs in place, then leases them, and sees
    /// that the number is the same as before, has them for as long as the lease lives.
    #[must_use]
    pub fn removals(&self) -> u64 {
        self.table().removals
    }

    /// The table without what has expired.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.0.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        table.granted.retain(|_, granted| now < granted.expires);
        table
    }
}

impl Table {
    fn is_leased(&self, digest: &Digest) -> bool {
        self.granted.values().any(|granted| granted.digests.contains(digest))
            || self.held.values().any(|(_, digests)| digests.contains(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_granted_lease_lives_as_long_as_it_is_renewed() {
        let leases = Leases::default();
        let digest = Digest::of(b"layer");
        leases.grant("range-1/image", [digest], MINUTE);
        assert_eq!(leases.holders(), ["range-1/image"]);
        for _ in 0..10 {
            tokio::time::advance(MINUTE / 2).await;
            assert!(leases.renew("range-1/image", MINUTE));
        }
        assert!(leases.is_leased(&digest));
        tokio::time::advance(MINUTE).await;
        assert!(!leases.is_leased(&digest));
        assert!(!leases.renew("range-1/image", MINUTE), "what is lost stays lost");
        assert_eq!(leases.holders(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_never_shortens() {
        let leases = Leases::default();
        leases.grant("a", [Digest::of(b"layer")], MINUTE);
        assert!(leases.renew("a", Duration::from_secs(1)));
        tokio::time::advance(MINUTE / 2).await;
        assert!(leases.is_leased(&Digest::of(b"layer")));
    }

    #[tokio::test]
    async fn a_guard_keeps_its_blobs_until_it_is_dropped() {
        let leases = Leases::default();
        let digest = Digest::of(b"layer");
        let first = leases.hold("export", [digest]);
        let second = leases.hold("export", [digest]);
        drop(first);
        assert!(leases.is_leased(&digest));
        assert_eq!(leases.holders(), ["export"]);
        drop(second);
        assert!(!leases.is_leased(&digest));
    }

    #[tokio::test]
    async fn what_arrives_is_held_from_its_guards_beginning_to_its_end() {
        let leases = Leases::default();
        let (digest, before) = (Digest::of(b"layer"), SystemTime::now() - MINUTE);
        let removed = |time| leases.unless_held(&digest, time, || ()).is_some();
        let guard = leases.hold_arrivals();
        assert!(removed(before));
        assert!(!removed(SystemTime::now()));
        let second = leases.hold_arrivals();
        drop(guard);
        assert!(!removed(SystemTime::now()));
        drop(second);
        assert!(removed(SystemTime::now()));
        assert_eq!(leases.removals(), 2);
    }

    #[tokio::test]
    async fn asking_again_replaces_the_lease() {
        let leases = Leases::default();
        for content in [b"old", b"new"] {
            leases.grant("range/image", [Digest::of(content)], MINUTE);
        }
        assert!(!leases.is_leased(&Digest::of(b"old")));
        assert!(leases.is_leased(&Digest::of(b"new")));
        leases.release("range/image");
        assert!(!leases.is_leased(&Digest::of(b"new")));
    }
}
