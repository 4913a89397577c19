//! The way of an image from a source into a sink: resolve, plan, load, prove, and only then tag.
//!
//! ```text
//! resolve ► confirmed, or open  ► proven already? ──yes──► named already? ──yes──► Skipped
//!                                      │ no                     │ no
//!                                      ▼                        ▼
//!                     plan ► wait ► load ► prove ──yes────────► tag ────────────► Synced
//!                       ▲             ▲      │ no
//!                 base ─┘             └ heal ┘ (the full set, once)  then: discard, Failed
//! ```
//!
//! Several images are pulled at once. A layer that several of them lack goes in once and first, as
//! part of a base that they share (`base`); then they load at once, the largest first (`schedule`).

mod base;
mod schedule;
mod error;
mod progress;
mod resolve;
mod sizes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use base::BASE_LABEL;
pub use error::PullError;

use crate::blob::{BlobError, BlobSource};
use crate::digest::ChainId;
use crate::event::{ImageReport, Observer, Outcome, Stage};
use crate::image::Image;
use crate::reference::Reference;
use crate::sink::{ImageSink, LoadError, Missing, Overlap, Proof, Room, Sharing};
use crate::source::{ImageKey, ImageSource, ImageSummary, OpenImage, SourceError};
use base::base_of;
use progress::Progress;
use resolve::Resolver;
use schedule::{Grant, NeededLayer, Needs, Schedule, Slot, WHOLE_FOR};
use sizes::{Sizes, size};

/// How often a pull repeats a load, after the host forgot its lease or gave wrong bytes.
///
/// Each time costs the load that was under way; a host that does either more often than this within
/// one image is broken, and the report should say so rather than go round.
const SOURCE_RETRIES: u32 = 3;

/// Images that are looked at at once, those that wait for their load left out: each is a question to
/// the host or to the engine, and a host that exports for them has that many exports.
const LOOKS: usize = 4;

/// Pulls images from one source into one sink.
pub struct Puller {
    source: Arc<dyn ImageSource>,
    sink: Arc<dyn ImageSink>,
    resolver: Resolver,
    schedule: Schedule,
    looks: Semaphore,
    /// The sizes of images, for those that are there and need not be opened.
    sizes: Sizes,
    /// Whether there may be bases in the engine that nobody needs any more.
    unswept: AtomicBool,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

impl Puller {
    /// Loads up to `concurrency` images at once, at least one.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, sink: Arc<dyn ImageSink>, concurrency: usize) -> Self {
        Self {
            resolver: Resolver::new(source.clone()),
            source,
            sink,
            schedule: Schedule::new(concurrency),
            looks: Semaphore::new(LOOKS),
            sizes: Sizes::default(),
            // A pull before this one may have been killed.
            unswept: AtomicBool::new(true),
        }
    }

    /// Brings every image in, and tells how it went, in the order asked. One that fails does not
    /// stop the others.
    ///
    /// Cancel safe: dropping the future ends the loads under way; no name was moved by them.
    pub async fn pull(
        &self,
        references: &[Reference],
        observer: Arc<dyn Observer>,
    ) -> Vec<ImageReport> {
        let pull = |reference: &Reference| self.pull_one(reference.clone(), observer.clone());
        join_all(references.iter().map(pull)).await
    }

    /// Brings one image in.
    pub async fn pull_one(&self, reference: Reference, observer: Arc<dyn Observer>) -> ImageReport {
        self.attempt(reference, observer).await.0
    }

    /// The same, with the error beside the report where it failed: for who tries again by it.
    pub async fn attempt(
        &self,
        reference: Reference,
        observer: Arc<dyn Observer>,
    ) -> (ImageReport, Option<PullError>) {
        let mut journey = Progress::begin(reference, observer);
        match self.travel(&mut journey).await {
            Ok((outcome, proof)) => {
                self.sweep().await;
                (journey.arrived(outcome, &proof), None)
            }
            Err(error) => {
                // Who was away may be back soon, and then a base that is in is of use.
                if !error.is_absence() {
                    self.sweep().await;
                }
                (journey.failed(&error), Some(error))
            }
        }
    }

    /// What bringing an image in would move: its way as far as the plan, and no further.
    ///
    /// # Errors
    /// Any [`PullError`].
    pub async fn plan(&self, reference: &Reference) -> Result<Plan, PullError> {
        let summary = self.find(reference).await?;
        let _look = self.look().await;
        let (proof, (bytes_to_move, bytes_saved)) = match self.sink.confirm(&summary).await? {
            Some(proof) => (Some(proof), (0, self.sizes.of(&summary))),
            None => {
                let image = self.open(summary.key()).await?.opened.image;
                match self.sink.prove(&image).await? {
                    Some(proof) => (Some(proof), (0, size(&image))),
                    None => (None, self.sink.missing(&image).await?.sizes(&image)),
                }
            }
        };
        let is_there = proof.is_some_and(|proof| proof.references.contains(reference));
        Ok(Plan { key: summary.key(), bytes_to_move, bytes_saved, is_there })
    }

    /// The way of one image; the module's drawing in code.
    async fn travel(&self, journey: &mut Progress) -> Result<(Outcome, Proof), PullError> {
        let seat = self.schedule.look();
        journey.enter(Stage::Resolve);
        let summary = self.find(&journey.reference).await?;
        journey.config_digest = Some(summary.config_digest);

        let look = self.look().await;
        journey.enter(Stage::Plan);
        if let Some(proof) = self.sink.confirm(&summary).await? {
            let size = self.sizes.of(&summary);
            return self.name(journey, Has::Summary(&summary, size), proof).await;
        }
        journey.enter(Stage::Export);
        let whole = self.open(summary.key()).await?;
        let image = &whole.opened.image;
        journey.enter(Stage::Plan);
        match self.turn(journey, &whole, seat, look).await? {
            Next::Proven(proof) => self.name(journey, Has::Image(image), proof).await,
            Next::Load(seat, missing) => {
                let proof = self.load_or_discard(journey, &whole, missing).await?;
                drop(seat);
                self.name(journey, Has::Image(image), proof).await
            }
        }
    }

    /// The image that `reference` names now.
    async fn find(&self, reference: &Reference) -> Result<ImageSummary, PullError> {
        // The engine tells meanwhile how it takes images: its answer counts for the next questions,
        // and an error comes again there.
        let (summary, _) = tokio::join!(self.resolver.resolve(reference), self.sink.intake());
        Ok(summary?)
    }

    /// Plans, and waits for the image's turn to load what it lacks; plans again whenever somebody
    /// brought in some of that, and brings in for others too what they share with it.
    async fn turn<'a>(
        &'a self,
        journey: &mut Progress,
        whole: &Whole,
        mut seat: Slot<'a>,
        mut look: SemaphorePermit<'a>,
    ) -> Result<Next<'a>, PullError> {
        let image = &whole.opened.image;
        loop {
            if let Some(proof) = self.sink.prove(image).await? {
                return Ok(Next::Proven(proof));
            }
            let missing = self.sink.missing(image).await?;
            let wants = self.wants(image, &missing).await?;
            drop(look);
            let mut waiting = Box::pin(seat.turn(wants));
            let turn = match waiting.as_mut().now_or_never() {
                Some(turn) => turn,
                None => {
                    journey.enter(Stage::Wait);
                    waiting.await
                }
            };
            seat = match turn {
                Grant::Whole(seat) => return Ok(Next::Load(seat, missing)),
                Grant::Again(seat) => seat,
                Grant::Base(seat, count) => {
                    self.load_base(journey, whole, &missing, count).await?;
                    seat.look_again()
                }
            };
            look = self.look().await;
            journey.enter(Stage::Plan);
        }
    }

    /// What an image lacks, in the words of the schedule.
    async fn wants(&self, image: &Image, missing: &Missing) -> Result<Needs, PullError> {
        let (bytes, _) = missing.sizes(image);
        let own = vec![image.config_digest.0];
        if self.sink.overlap().await? == Overlap::Layers {
            return Ok(Needs { image: own, layers: Vec::new(), bytes });
        }
        let diff_ids: Vec<_> = image.diff_ids().collect();
        let stacks = ChainId::chain(&diff_ids);
        let sharing = self.sink.intake().await?.sharing;
        let layers = image.layers.iter().zip(&stacks).zip(&missing.0);
        let layers =
            layers.filter(|(_, missing)| **missing).map(|((layer, stack), _)| NeededLayer {
                key: match sharing {
                    Sharing::ByChain => stack.0,
                    Sharing::ByBlob => layer.blob.digest,
                },
                stack: stack.0,
            });
        Ok(Needs { image: own, layers: layers.collect(), bytes })
    }

    /// Brings in the first `count` of the layers that are missing, for all who share them. An engine
    /// that does not take them in this way gets them with their images for a while.
    async fn load_base(
        &self,
        journey: &mut Progress,
        whole: &Whole,
        missing: &Missing,
        count: usize,
    ) -> Result<(), PullError> {
        let positions = missing.0.iter().enumerate().filter(|(_, missing)| **missing);
        let depth = positions.map(|(position, _)| position + 1).nth(count.saturating_sub(1));
        let made = depth.map(|depth| (depth, base_of(&whole.opened.image, depth)));
        let Some((depth, Ok(base))) = made else {
            self.go_whole(journey, "they make no image of their own");
            return Ok(());
        };
        self.unswept.store(true, Ordering::Relaxed);
        let lacking = Missing(missing.0[..depth].to_vec());
        let _room = self.room(journey, &base, &lacking).await?;
        journey.enter(Stage::Load);
        let moved = self.load(journey, whole, &base, &lacking).await;
        match moved {
            Ok(()) if self.sink.prove(&base).await?.is_some() => {
                journey.brought(lacking.sizes(&base).0);
            }
            Ok(()) => self.go_whole(journey, "the engine does not confirm them"),
            Err(PullError::Load(LoadError::Refused { message })) => {
                self.go_whole(journey, &message);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Has images go in whole for a while, since a base did not go in.
    fn go_whole(&self, journey: &Progress, reason: &str) {
        self.schedule.only_whole();
        let image = &journey.reference;
        tracing::warn!(
            %image, reason, again_after = ?WHOLE_FOR,
            "layers that images share did not go in on their own: until they are tried so again, \
             every image brings its own"
        );
    }

    /// Removes bases, once nobody is about to load upon them.
    async fn sweep(&self) {
        if !self.schedule.is_idle() || !self.unswept.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.sink.sweep().await {
            self.unswept.store(true, Ordering::Relaxed);
            tracing::warn!(%error, "shared layers stay in the engine under an image of their own");
        }
    }

    async fn look(&self) -> SemaphorePermit<'_> {
        self.looks.acquire().await.expect("invariant: it is never closed")
    }

    /// The image with its layers in the form that the engine takes best.
    async fn open(&self, key: ImageKey) -> Result<Whole, PullError> {
        let form = self.sink.intake().await?.form;
        let opened = self.source.open(&key, form).await?;
        self.sizes.remember(key, &opened.image);
        Ok(Whole { key, opened })
    }

    /// Loads and proves; what a load that failed left is removed.
    async fn load_or_discard(
        &self,
        journey: &mut Progress,
        whole: &Whole,
        missing: Missing,
    ) -> Result<Proof, PullError> {
        let loaded = self.load_and_prove(journey, whole, missing).await;
        if loaded.is_err()
            && let Err(discard) = self.sink.discard(&whole.opened.image).await
        {
            tracing::warn!(image = %journey.reference, error = %discard, "leftovers of a failed load stay");
        }
        loaded
    }

    /// Loads what is missing; what is not proven then is healed with the full set, once.
    async fn load_and_prove(
        &self,
        journey: &mut Progress,
        whole: &Whole,
        missing: Missing,
    ) -> Result<Proof, PullError> {
        let image = &whole.opened.image;
        let full = Missing::all(image);
        let thin = missing != full;
        match self.load_in(journey, whole, &missing, Stage::Load).await {
            // What the engine refused may be a base that went away under a thin archive.
            Err(PullError::Load(LoadError::Refused { message })) if thin => {
                tracing::info!(image = %journey.reference, message, "thin load refused");
            }
            Err(error) => return Err(error),
            Ok(()) => {
                journey.enter(Stage::Prove);
                if let Some(proof) = self.sink.prove(image).await? {
                    return Ok(proof);
                }
            }
        }
        self.load_in(journey, whole, &full, Stage::Heal).await?;
        journey.enter(Stage::Prove);
        self.sink.prove(image).await?.ok_or(PullError::Unproven)
    }

    /// Loads once there is room.
    async fn load_in(
        &self,
        journey: &mut Progress,
        whole: &Whole,
        missing: &Missing,
        stage: Stage,
    ) -> Result<(), PullError> {
        let image = &whole.opened.image;
        let _room = self.room(journey, image, missing).await?;
        journey.enter(stage);
        journey.planned(missing.sizes(image));
        self.load(journey, whole, image, missing).await
    }

    async fn room(
        &self,
        journey: &mut Progress,
        image: &Image,
        missing: &Missing,
    ) -> Result<Room, PullError> {
        let mut asking = self.sink.room(image, missing);
        if let Some(room) = asking.as_mut().now_or_never() {
            return Ok(room?);
        }
        journey.enter(Stage::Wait);
        Ok(asking.await?)
    }

    /// Loads `part`, which is all of the image or a base of it.
    ///
    /// The image is opened again when the host forgot the lease under which it was read. Bytes that
    /// were wrong are doubted: the host puts its bad copy aside, and the next load reads another.
    async fn load(
        &self,
        journey: &Progress,
        whole: &Whole,
        part: &Image,
        missing: &Missing,
    ) -> Result<(), PullError> {
        let mut blobs = whole.opened.blobs.clone();
        let mut retries = 0;
        loop {
            let metered = Arc::new(journey.metered(blobs.clone()));
            let opened = OpenImage { image: part.clone(), blobs: metered };
            let error = match self.sink.load(&opened, missing).await {
                Err(LoadError::Source(error)) if retries < SOURCE_RETRIES => error,
                result => return Ok(result?),
            };
            retries += 1;
            match error.wrong_blob() {
                Some(digest) => blobs.doubt(digest),
                None if matches!(error, BlobError::LeaseLost { .. }) => {
                    blobs = self.open_again(journey, whole).await?;
                }
                None => return Err(LoadError::Source(error).into()),
            }
            tracing::info!(image = %journey.reference, %error, "loading again");
        }
    }

    /// The blobs of the same image under another lease.
    async fn open_again(
        &self,
        journey: &Progress,
        whole: &Whole,
    ) -> Result<Arc<dyn BlobSource>, PullError> {
        let now = self.open(whole.key).await?.opened;
        if now.image.target_digest() == whole.opened.image.target_digest() {
            return Ok(now.blobs);
        }
        // The plan is void; the next attempt plans for what the image is now.
        let changed = "its manifest on the host is another one by now";
        Err(SourceError::unavailable(&journey.reference, changed).into())
    }

    /// Gives a proven image its name, unless it has it.
    async fn name(
        &self,
        journey: &mut Progress,
        has: Has<'_>,
        proof: Proof,
    ) -> Result<(Outcome, Proof), PullError> {
        let loaded = journey.loaded();
        if !loaded {
            journey.planned((0, has.size()));
        }
        if proof.references.contains(&journey.reference) {
            let outcome = if loaded { Outcome::Synced } else { Outcome::Skipped };
            return Ok((outcome, proof));
        }
        journey.enter(Stage::Tag);
        self.sink.tag(&proof, &journey.reference).await?;
        let proof = match has {
            Has::Image(image) => self.sink.prove(image).await?,
            Has::Summary(summary, _) => self.sink.confirm(summary).await?,
        };
        match proof {
            Some(proof) if proof.references.contains(&journey.reference) => {
                Ok((Outcome::Synced, proof))
            }
            _ => Err(PullError::Unnamed { reference: journey.reference.clone() }),
        }
    }
}

/// What bringing an image in would move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The image.
    pub key: ImageKey,
    /// Bytes of layers that the engine lacks.
    pub bytes_to_move: u64,
    /// Bytes of layers that it has.
    pub bytes_saved: u64,
    /// Whether the engine has the image under its name, and confirmed every layer.
    pub is_there: bool,
}

/// An image on its way, and the key that it was opened by.
struct Whole {
    key: ImageKey,
    opened: OpenImage,
}

/// What a plan comes to.
enum Next<'a> {
    /// The image is there.
    Proven(Proof),
    /// It is this image's turn to load what is missing.
    Load(Slot<'a>, Missing),
}

/// What is known of an image that is there.
enum Has<'a> {
    /// All of it.
    Image(&'a Image),
    /// What the source tells at once, and what its layers come to.
    Summary(&'a ImageSummary, u64),
}

impl Has<'_> {
    /// Bytes of its layers.
    fn size(&self) -> u64 {
        match self {
            Self::Image(image) => size(image),
            Self::Summary(_, size) => *size,
        }
    }
}

#[cfg(test)]
mod tests;
