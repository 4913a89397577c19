//! Lending: every image and every blob that a caller reads passes through here.
//!
//! ```text
//!   by name ───────────► granted? ──► ImageSource
//!   by digest ─► names ──►  │ image: a lease on (caller, image)
//!   stat, open ─► lease ────┘──► blobs of that image   renews the lease
//! ```
//!
//! Grants are checked before anything is asked of the source. An image that is not granted does not
//! exist: the answer is the same `NotFound` in both cases.

mod lease;
mod names;
mod reading;
mod terms;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use transfer::{
    BlobError, BlobStream, Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm,
    Reference, SourceError,
};

use crate::identity::Caller;
use crate::transfers::Transfer;
use lease::{Granted, Leases};
use names::Names;
pub use reading::Turn;
use reading::{Read, Reads, Turnstile};
use terms::Meter;
pub use terms::{Known, LeaseGrant, Loan, ReadError, Terms};

/// Access to images; checked at every step, and again for every lease when grants change
/// ([`Library::grants_changed`]).
pub trait Access: Send + Sync {
    /// True if `caller` may read every image, also one without a name.
    fn may_read_all(&self, caller: &Caller) -> bool;

    /// True if `caller` may know of the image with this name, and read all of it.
    fn may_read(&self, caller: &Caller, name: &Reference) -> bool;

    /// True if `caller` may ask for the image with this name and read its documents, but perhaps no
    /// blob: it plans the image.
    fn may_plan(&self, caller: &Caller, name: &Reference) -> bool {
        self.may_read(caller, name)
    }
}

/// Everybody may read every image.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllImages;

impl Access for AllImages {
    fn may_read_all(&self, _caller: &Caller) -> bool {
        true
    }

    fn may_read(&self, _caller: &Caller, _name: &Reference) -> bool {
        true
    }
}

/// The names of images are not known yet.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host's images are not listed yet; ask again")]
struct NotListed;

/// Name or id of a requested image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// Its reference.
    Reference(Reference),
    /// The key of its summary.
    Key(ImageKey),
}

/// A blob that was opened.
pub struct Opened {
    /// Facts known of the blob.
    pub known: Known,
    /// Its bytes, from the requested offset.
    pub frames: BlobStream,
    /// The reader's turn: to be kept as long as any frame is.
    pub turn: Turn,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Reads by callers since the library opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Streams opened.
    pub reads: u64,
    /// Bytes handed out.
    pub bytes: u64,
}

/// The images of a host as its callers may see them. One for the whole process, so that its limits
/// hold for all listeners together.
pub struct Library {
    images: Arc<dyn ImageSource>,
    access: Arc<dyn Access>,
    names: Names,
    leases: Leases,
    turnstile: Turnstile,
    reads: Reads,
    meter: Arc<Meter>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("served", &self.served()).finish_non_exhaustive()
    }
}

impl Library {
    /// Lends the images of `images` to the callers that `access` lets in. `leases` is the table of
    /// the store that the blobs lie in: a blob on loan is not collected.
    #[must_use]
    pub fn new(
        images: Arc<dyn ImageSource>,
        access: Arc<dyn Access>,
        leases: transfer::store::Leases,
        terms: Terms,
    ) -> Self {
        Self {
            images,
            access,
            names: Names::default(),
            leases: Leases::new(leases, terms.lease),
            turnstile: Turnstile::new(terms),
            reads: Reads::default(),
            meter: Arc::default(),
        }
    }

    /// The streams that are being read now, sorted by id.
    #[must_use]
    pub fn reading(&self) -> Vec<Transfer> {
        self.reads.list()
    }

    /// Returns the reads so far.
    #[must_use]
    pub fn served(&self) -> Served {
        Served {
            reads: self.meter.reads.load(Ordering::Relaxed),
            bytes: self.meter.bytes.load(Ordering::Relaxed),
        }
    }

    /// Ends every lease of a caller: it is not served any more.
    pub fn forget(&self, caller: &Caller) {
        self.leases.forget(caller);
        self.turnstile.forget(caller);
    }

    /// Takes over the names of all images of the host: callers that ask by digest are granted an
    /// image by its names.
    pub fn learn_names(&self, images: &[ImageSummary]) {
        self.names.replace(images);
    }

    /// Ends leases whose image is no longer granted to a caller; reads under way end with
    /// [`BlobError::NotFound`] at their next frame.
    pub fn grants_changed(&self, caller: &Caller) {
        self.leases.revoke(caller, |names| !self.is_granted(caller, names));
    }

    /// Every image that the caller may read, sorted by key, with the names by which it may.
    ///
    /// # Errors
    /// As [`ImageSource::list`].
    pub async fn list(&self, caller: &Caller) -> Result<Vec<ImageSummary>, SourceError> {
        let mut images = self.images.list().await?;
        images.retain_mut(|image| {
            let is_granted = self.is_granted(caller, &image.references);
            self.hide_names(caller, image);
            is_granted
        });
        images.sort_by_key(ImageSummary::key);
        Ok(images)
    }

    /// The image that `reference` names now, with the names by which the caller may read it.
    ///
    /// # Errors
    /// As [`ImageSource::resolve`]; an image that is not granted is not found.
    pub async fn resolve(
        &self,
        caller: &Caller,
        reference: &Reference,
    ) -> Result<ImageSummary, SourceError> {
        let mut image = self.find(caller, reference).await?;
        self.hide_names(caller, &mut image);
        Ok(image)
    }

    /// The image that a `reference` names now, which is granted or planned.
    async fn find(
        &self,
        caller: &Caller,
        reference: &Reference,
    ) -> Result<ImageSummary, SourceError> {
        let by_digest = || {
            let names = reference.digest().map(|digest| self.names.of_digest(digest));
            self.may_look(caller, &names.unwrap_or_default())
        };
        if !self.may_look(caller, std::slice::from_ref(reference)) && !by_digest() {
            return Err(SourceError::NotFound { image: reference.to_string() });
        }
        let image = self.images.resolve(reference).await?;
        self.names.note(&image, reference);
        Ok(image)
    }

    /// The image whole, and a lease under which the caller may read its blobs, if the image is
    /// granted and not only planned.
    ///
    /// # Errors
    /// As [`ImageSource::open`]; an image that is not granted is not found.
    pub async fn image(
        &self,
        caller: &Caller,
        name: &ImageName,
        form: LayerForm,
    ) -> Result<(Image, LeaseGrant), SourceError> {
        let key = match name {
            ImageName::Reference(reference) => self.find(caller, reference).await?.key(),
            ImageName::Key(key) => *key,
        };
        let names = self.names_for(caller, &key)?;
        let removals = self.leases.removals();
        let _until_leased = self.leases.hold_arrivals();
        let opened = self.images.open(&key, form).await;
        let mut granted = opened.map(|opened| self.leases.grant(caller, opened, &names));
        if removals != self.leases.removals() {
            // A blob was removed since the source looked for it, perhaps one of these. What it finds
            // or takes in now stays: all of it is leased, or arrives while arrivals are held.
            let opened = self.images.open(&key, form).await;
            granted = opened.map(|opened| self.leases.grant(caller, opened, &names));
        }
        let (grant, image) = granted?;
        if !self.may_look(caller, &names) {
            // The grant was taken away meanwhile, perhaps before there was a lease to take.
            self.grants_changed(caller);
            return Err(key.not_found());
        }
        Ok((image, grant))
    }

    /// The names of an image that the caller asks for by digest, if it is granted or plans one of
    /// them.
    fn names_for(&self, caller: &Caller, key: &ImageKey) -> Result<Vec<Reference>, SourceError> {
        let names = self.names.of(key);
        if names.is_none() && !self.access.may_read_all(caller) {
            return Err(SourceError::unavailable(key, NotListed));
        }
        let names = names.unwrap_or_default();
        if self.may_look(caller, &names) { Ok(names) } else { Err(key.not_found()) }
    }

    /// True if the caller may read the image that has these names.
    fn is_granted(&self, caller: &Caller, names: &[Reference]) -> bool {
        self.access.may_read_all(caller)
            || names.iter().any(|name| self.access.may_read(caller, name))
    }

    /// True if the caller may see the documents of the image that has these names.
    fn may_look(&self, caller: &Caller, names: &[Reference]) -> bool {
        self.access.may_read_all(caller)
            || names.iter().any(|name| self.access.may_plan(caller, name))
    }

    /// Takes the names away that the caller was not granted.
    fn hide_names(&self, caller: &Caller, image: &mut ImageSummary) {
        if !self.access.may_read_all(caller) {
            image.references.retain(|name| self.access.may_read(caller, name));
        }
    }

    /// Takes note of blobs of an image whose bytes were wrong when the caller read them: each is
    /// verified here at its next read. Digests that are no blobs of the image are passed over.
    ///
    /// # Errors
    /// [`BlobError::LeaseLost`] without a living lease on the image.
    pub fn doubt(&self, caller: &Caller, loan: &Loan, wrong: &[Digest]) -> Result<(), BlobError> {
        for digest in wrong {
            match self.readable(caller, loan, digest) {
                Ok(lease) => lease.blobs().doubt(digest),
                Err(BlobError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The size of a blob of an image; `None` when the image has no such blob or it is gone.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] for an image that is not granted, [`BlobError::LeaseLost`], and that
    /// the store failed.
    pub async fn stat(
        &self,
        caller: &Caller,
        loan: &Loan,
        digest: &Digest,
    ) -> Result<Option<u64>, BlobError> {
        match self.readable(caller, loan, digest) {
            Ok(lease) => lease.blobs().stat(digest).await,
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a blob of an image from `offset` on. Waits for its turn.
    ///
    /// # Errors
    /// [`ReadError::Busy`] when the turn does not come; as [`transfer::BlobSource::open`], and
    /// [`BlobError::LeaseLost`].
    pub async fn open(
        &self,
        caller: &Caller,
        loan: &Loan,
        digest: &Digest,
        offset: u64,
    ) -> Result<Opened, ReadError> {
        let lease = self.readable(caller, loan, digest)?;
        let known = lease.known(digest).ok_or(BlobError::NotFound { digest: *digest })?;
        let size = known.size;
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest: *digest, size, offset }.into());
        }
        // Waiting for a turn may take longer than a lease without a read lives. Once the blob is
        // open, its removal does not matter any more.
        let until_open = self.leases.hold(caller, digest);
        let turn = self.turnstile.enter(caller, size - offset).await?;
        // The caller does not trust this host, and verifies: no need to do it twice.
        let stream = lease.blobs().open_unverified(digest, offset).await?;
        drop(until_open);
        self.meter.reads.fetch_add(1, Ordering::Relaxed);
        let line = self.reads.begin(Read {
            caller: caller.clone(),
            config_digest: loan.config_digest,
            digest: *digest,
            size,
            offset,
            started: SystemTime::now(),
            bytes: AtomicU64::new(0),
        });
        let frames = reading::lend(stream, lease, *digest, self.meter.clone(), line);
        Ok(Opened { known, frames, turn })
    }

    /// The one place that decides whether a caller may read a blob: it holds a living lease on the
    /// image, the image is still granted to it, and the blob is part of it.
    fn readable(
        &self,
        caller: &Caller,
        loan: &Loan,
        digest: &Digest,
    ) -> Result<Arc<Granted>, BlobError> {
        let lease =
            self.leases.renew(caller, loan).ok_or(BlobError::LeaseLost { digest: *digest })?;
        match lease.known(digest) {
            Some(_) if self.is_granted(caller, lease.names()) => Ok(lease),
            _ => Err(BlobError::NotFound { digest: *digest }),
        }
    }
}
