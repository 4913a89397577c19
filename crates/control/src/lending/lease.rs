//! Permissions to read images for a time: one lease for each caller and image.
//!
//! The two forms of an image are two images here, with different manifests: a range's engine and its
//! registry may read both at once, and neither loses its lease to the other.
//!
//! The store's own table of leases keeps how long each one lives, so that the store keeps what a
//! caller may read. This table keeps what each covers, and its blobs.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use transfer::store::{Arriving, Lease as KeptBlob, Leases as Kept};
use transfer::{BlobSource, ConfigDigest, Digest, Image, OpenImage, Reference};

use super::terms::{Known, LeaseGrant, Loan};
use crate::identity::Caller;

/// A lease that was found alive: what it covers.
pub(super) struct Granted {
    id: String,
    caller: Caller,
    config_digest: ConfigDigest,
    /// The target of the image in the requested form.
    target_digest: Digest,
    /// The image's names at the time of the request.
    names: Vec<Reference>,
    known: HashMap<Digest, Known>,
    blobs: Arc<dyn BlobSource>,
    /// Set when the image is not granted any more; shared by all handles of the lease.
    is_revoked: Arc<AtomicBool>,
    /// Its name in the store's table.
    holder: String,
    ttl: Duration,
    kept: Kept,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Granted {
    /// Returns the facts known of a blob of the image; `None` when it is not part of it.
    pub(super) fn known(&self, digest: &Digest) -> Option<Known> {
        self.known.get(digest).copied()
    }

    /// The image's blobs.
    pub(super) fn blobs(&self) -> &Arc<dyn BlobSource> {
        &self.blobs
    }

    /// The image's names at the time of the request.
    pub(super) fn names(&self) -> &[Reference] {
        &self.names
    }

    /// True if the image is no longer granted.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::Relaxed)
    }

    /// Begins the lease's time anew; `false` when it ran out before.
    pub(super) fn renew(&self) -> bool {
        self.kept.renew(&self.holder, self.ttl)
    }
}

/// The leases of one agent's life; a restart forgets them, and callers ask anew.
#[derive(Debug)]
pub(super) struct Leases {
    kept: Kept,
    ttl: Duration,
    /// Sets the leases of this life apart from those of the last.
    life: u64,
    next: AtomicU64,
    /// By their IDs.
    granted: Mutex<HashMap<String, Arc<Granted>>>,
}

impl Leases {
    pub(super) fn new(kept: Kept, ttl: Duration) -> Self {
        Self {
            kept,
            ttl,
            life: RandomState::new().hash_one(SystemTime::now()),
            next: AtomicU64::new(1),
            granted: Mutex::default(),
        }
    }

    /// A lease on all blobs of `opened`. A caller that has a living lease on the same image keeps it:
    /// it is renewed, and reads through the new handle from now on.
    ///
    /// Forgets the leases that ran out, so that the table is no larger than what callers use.
    pub(super) fn grant(
        &self,
        caller: &Caller,
        opened: OpenImage,
        names: &[Reference],
    ) -> (LeaseGrant, Image) {
        let mut granted = self.lock();
        let alive = self.kept.holders();
        granted.retain(|_, lease| alive.binary_search(&lease.holder).is_ok());
        let OpenImage { image, blobs } = opened;
        let target_digest = image.target_digest();
        let same = |lease: &&Arc<Granted>| {
            lease.caller == *caller && lease.target_digest == target_digest && lease.renew()
        };
        let before = granted.values().find(same);
        let before = before.map(|lease| (lease.id.clone(), lease.is_revoked.clone()));
        let is_new = before.is_none();
        let (id, is_revoked) = before.unwrap_or_else(|| (self.new_id(), Arc::default()));
        let lease = Granted {
            id: id.clone(),
            caller: caller.clone(),
            config_digest: image.config_digest,
            target_digest,
            names: names.to_vec(),
            known: known(&image),
            blobs,
            is_revoked,
            holder: format!("{caller}/{target_digest}"),
            ttl: self.ttl,
            kept: self.kept.clone(),
        };
        if is_new {
            self.kept.grant(lease.holder.clone(), lease.known.keys().copied(), self.ttl);
        }
        granted.insert(id.clone(), Arc::new(lease));
        (LeaseGrant { id, ttl: self.ttl, expires: SystemTime::now() + self.ttl }, image)
    }

    fn new_id(&self) -> String {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{serial}", self.life)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Granted>>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a blob until the guard is dropped.
    pub(super) fn hold(&self, caller: &Caller, digest: &Digest) -> KeptBlob {
        self.kept.hold(format!("{caller} opening"), [*digest])
    }

    /// Keeps every blob that is taken in from now on until the guard is dropped.
    pub(super) fn hold_arrivals(&self) -> Arriving {
        self.kept.hold_arrivals()
    }

    /// Number of blobs removed from the store so far.
    pub(super) fn removals(&self) -> u64 {
        self.kept.removals()
    }

    /// The lease that the caller shows, renewed; `None` when it ran out or was never this caller's.
    pub(super) fn renew(&self, caller: &Caller, loan: &Loan) -> Option<Arc<Granted>> {
        let granted = self.lock();
        let lease = granted.get(&loan.lease_id)?;
        let is_own = lease.caller == *caller && lease.config_digest == loan.config_digest;
        (is_own && lease.renew()).then(|| lease.clone())
    }

    /// Ends every lease of a caller.
    pub(super) fn forget(&self, caller: &Caller) {
        self.revoke(caller, |_| true);
    }

    /// Ends a caller's leases on images whose names are lost to it, with the reads under them.
    pub(super) fn revoke(&self, caller: &Caller, are_lost: impl Fn(&[Reference]) -> bool) {
        self.lock().retain(|_, lease| {
            let ends = lease.caller == *caller && are_lost(&lease.names);
            if ends {
                lease.is_revoked.store(true, Ordering::Relaxed);
                self.kept.release(&lease.holder);
            }
            !ends
        });
    }
}

/// The blobs of an image, and what it says of each.
fn known(image: &Image) -> HashMap<Digest, Known> {
    let document = |bytes: &[u8]| Known { size: bytes.len() as u64, compresses: false };
    let documents = [
        (image.manifest_digest, document(&image.manifest)),
        (image.config_digest.0, document(&image.config)),
    ];
    let layers = image.layers.iter().map(|layer| {
        let compresses = layer.blob.media_type.is_uncompressed_layer();
        (layer.blob.digest, Known { size: layer.blob.size, compresses })
    });
    documents.into_iter().chain(layers).collect()
}
