//! Who may read which image until when: one lease for each caller, image and form of its layers.
//!
//! A range's engine and the registry in front of it may want the same image in two forms at once:
//! neither is to lose its lease to the other, or to have what it read doubted for the other's sake.
//!
//! How long it lives is kept by the store's own table of leases, so that what a caller may read is
//! what the store keeps; what it covers, and under which name, is kept here.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use transfer::store::{Arriving, Lease as KeptBlob, Leases as Kept};
use transfer::{ConfigDigest, Digest, Image, LayerForm};

use super::{Known, LeaseGrant, Loan};
use crate::identity::Caller;

/// Every form, since what a caller shows when it reads names none.
const FORMS: [LayerForm; 2] = [LayerForm::AsStored, LayerForm::Uncompressed];

/// A lease that was found alive: what it covers.
#[derive(Debug)]
pub(super) struct Granted {
    id: String,
    manifest_digest: Digest,
    blobs: HashMap<Digest, Known>,
    /// Those that were opened under it since the caller last asked for the image.
    opened: Mutex<HashSet<Digest>>,
    /// Its name in the store's table.
    holder: String,
    ttl: Duration,
    kept: Kept,
}

impl Granted {
    /// What is known of a blob of the image; `None` when it is not part of it.
    pub(super) fn known(&self, digest: &Digest) -> Option<Known> {
        self.blobs.get(digest).copied()
    }

    /// Takes note that a blob is read under the lease.
    pub(super) fn opened(&self, digest: &Digest) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
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
    granted: Mutex<HashMap<(Caller, ConfigDigest, LayerForm), Arc<Granted>>>,
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

    /// A lease on all blobs of `image`, which was asked for in `form`; the one that the caller has
    /// already, renewed, if it lives and the image's documents are still the same.
    ///
    /// Forgets the leases that ran out, so that the table is no larger than what callers use.
    pub(super) fn grant(&self, caller: &Caller, image: &Image, form: LayerForm) -> LeaseGrant {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = self.kept.holders();
        granted.retain(|_, lease| alive.binary_search(&lease.holder).is_ok());
        let key = (caller.clone(), image.config_digest, form);
        let lease = match granted.get(&key) {
            Some(lease) if lease.manifest_digest == image.manifest_digest && lease.renew() => {
                lease.clone()
            }
            _ => {
                let lease = Arc::new(self.make(caller, image, form));
                self.kept.grant(lease.holder.clone(), lease.blobs.keys().copied(), self.ttl);
                granted.insert(key, lease.clone());
                lease
            }
        };
        LeaseGrant { id: lease.id.clone(), ttl: self.ttl, expires: SystemTime::now() + self.ttl }
    }

    /// What the caller read of the image in that form since it last asked for it so, told once.
    pub(super) fn take_opened(
        &self,
        caller: &Caller,
        image: &ConfigDigest,
        form: LayerForm,
    ) -> HashSet<Digest> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = granted.get(&(caller.clone(), *image, form));
        let opened = lease.map(|lease| lease.opened.lock().unwrap_or_else(PoisonError::into_inner));
        opened.map(|mut opened| std::mem::take(&mut *opened)).unwrap_or_default()
    }

    /// Keeps a blob until the guard is dropped.
    pub(super) fn hold(&self, caller: &Caller, digest: &Digest) -> KeptBlob {
        self.kept.hold(format!("{caller} opening"), [*digest])
    }

    /// Keeps what is taken in from now on until the guard is dropped.
    pub(super) fn hold_arrivals(&self) -> Arriving {
        self.kept.hold_arrivals()
    }

    /// How many blobs the store removed so far.
    pub(super) fn removals(&self) -> u64 {
        self.kept.removals()
    }

    /// The lease that the caller shows, renewed; `None` when it ran out or was never this caller's.
    pub(super) fn renew(&self, caller: &Caller, loan: &Loan) -> Option<Arc<Granted>> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let of_form = |form| granted.get(&(caller.clone(), loan.config_digest, form));
        let lease =
            FORMS.into_iter().filter_map(of_form).find(|lease| lease.id == loan.lease_id)?;
        lease.renew().then(|| lease.clone())
    }

    /// Ends every lease of a caller.
    pub(super) fn forget(&self, caller: &Caller) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.retain(|(holder, ..), lease| {
            if holder == caller {
                self.kept.release(&lease.holder);
            }
            holder != caller
        });
    }

    fn make(&self, caller: &Caller, image: &Image, form: LayerForm) -> Granted {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let document = |bytes: &[u8]| Known { size: bytes.len() as u64, compresses: false };
        let documents = [
            (image.manifest_digest, document(&image.manifest)),
            (image.config_digest.0, document(&image.config)),
        ];
        let layers = image.layers.iter().map(|layer| {
            let compresses = layer.blob.media_type.is_uncompressed_layer();
            (layer.blob.digest, Known { size: layer.blob.size, compresses })
        });
        Granted {
            id: format!("{:016x}-{serial}", self.life),
            manifest_digest: image.manifest_digest,
            blobs: documents.into_iter().chain(layers).collect(),
            opened: Mutex::default(),
            holder: format!("{caller}/{}/{form:?}", image.config_digest),
            ttl: self.ttl,
            kept: self.kept.clone(),
        }
    }
}
