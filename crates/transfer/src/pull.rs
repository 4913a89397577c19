//! The way of an image from a source into a sink: resolve, plan, load, prove, and only then tag.
//!
//! ```text
//! resolve ► confirmed, or image ► proven already? ──yes──► named already? ──yes──► Skipped
//!                                      │ no                     │ no
//!                                      ▼                        ▼
//!                     plan ► wait ► load ► prove ──yes────────► tag ────────────► Synced
//!                       ▲             ▲      │ no
//!                 base ─┘             └ heal ┘ (the full set, once)  then: discard, Failed
//! ```
//!
//! Several images are pulled at once. A layer that several of them lack goes in once and first, as
//! part of a base that they share (`base`); then they load at once, the largest first (`board`).

mod base;
mod board;
mod journey;
mod resolve;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use base::BASE_LABEL;

use crate::blob::{BlobError, BlobSource};
use crate::digest::{ChainId, ConfigDigest};
use crate::event::{ImageReport, Observer, Outcome, Stage};
use crate::image::Image;
use crate::reference::Reference;
use crate::sink::{ImageSink, LoadError, Missing, Overlap, Proof, Room, StoreKind};
use crate::source::{ImageSource, ImageSummary, SourceError};
use base::base_of;
use board::{Board, Seat, Turn, Wanted, Wants};
use journey::Journey;
use resolve::Resolver;

/// How often a pull asks for its image again, after the host forgot its lease or gave bad bytes.
///
/// Each time costs the load that was under way; a host that does either more often than this within
/// one image is broken, and the report should say so rather than go round.
const SOURCE_RETRIES: u32 = 3;

/// Images that are looked at at once, those that wait for their load left out: each is a question to
/// the host or to the engine, and a host that exports for them has that many exports.
const LOOKS: usize = 4;

/// Images of which the size is remembered.
const MAX_SIZES: usize = 4096;

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The host could not give the image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The engine could not take it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine took everything and still does not confirm the image.
    #[error("the engine took all layers and does not confirm the image")]
    Unproven,
    /// The engine confirmed the image, and then did not show it under its name.
    #[error("the engine has the image and does not show it as {reference}")]
    Unnamed {
        /// The name that was given.
        reference: Reference,
    },
}

impl PullError {
    /// What a person can do about it; absent where the message says it all.
    #[must_use]
    pub fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::Source(SourceError::NotFound { .. }) => {
                Some("build or pull it on the host first, and look for it with `docker images`")
            }
            Self::Source(SourceError::Unavailable { .. })
            | Self::Load(LoadError::Source(BlobError::Unavailable { .. })) => Some(
                "look at the host agent and at what it takes its images from \
                     (`longshore-host-agent status`, its log), then sync again",
            ),
            Self::Source(SourceError::Export { source: BlobError::NoSpace { .. }, .. })
            | Self::Load(LoadError::Source(BlobError::NoSpace { .. })) => {
                Some("free space on the host, or give its agent a --state-dir on a larger disk")
            }
            Self::Load(LoadError::NoSpace { .. }) => {
                Some("free space in the range's data-root, or give it a larger volume")
            }
            Self::Load(LoadError::Unavailable { .. }) => {
                Some("check the range's engine and its log, then sync again")
            }
            Self::Load(LoadError::Refused { .. }) | Self::Unproven => Some(
                "nothing was tagged; run the sync again, and if it repeats keep the engine's log",
            ),
            _ => None,
        }
    }

    /// Whether somebody was away who may be back soon: the engine, the host agent or what is behind
    /// it. All else stays as it is until a person acts.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Source(
                SourceError::Unavailable { .. }
                    | SourceError::Export { source: BlobError::Unavailable { .. }, .. }
            ) | Self::Load(
                LoadError::Unavailable { .. } | LoadError::Source(BlobError::Unavailable { .. })
            )
        )
    }

    /// The message with all its causes and the next step, on one line.
    #[must_use]
    pub fn explain(&self) -> String {
        let text = crate::explain(self);
        match self.next_step() {
            Some(step) => format!("{text}; {step}"),
            None => text,
        }
    }
}

/// Pulls images from one source into one sink.
pub struct Puller {
    source: Arc<dyn ImageSource>,
    sink: Arc<dyn ImageSink>,
    resolver: Resolver,
    board: Board,
    looks: Semaphore,
    /// What the layers of images come to, for images that are there and need not be asked for.
    sizes: Mutex<HashMap<ConfigDigest, u64>>,
    /// Whether there may be bases in the engine that nobody needs any more.
    unswept: AtomicBool,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("board", &self.board).finish_non_exhaustive()
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
            board: Board::new(concurrency),
            looks: Semaphore::new(LOOKS),
            sizes: Mutex::default(),
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
        let mut journey = Journey::begin(reference, observer);
        match self.travel(&mut journey).await {
            Ok((outcome, proof)) => {
                self.sweep().await;
                (journey.arrived(outcome, &proof), None)
            }
            Err(error) => (journey.failed(&error), Some(error)),
        }
    }

    /// The way of one image; the module's drawing in code.
    async fn travel(&self, journey: &mut Journey) -> Result<(Outcome, Proof), PullError> {
        let seat = self.board.look();
        journey.enter(Stage::Resolve);
        // The engine says meanwhile who it is: the answer counts for what is asked of it next, and an
        // error comes again there.
        let (summary, _) =
            tokio::join!(self.resolver.resolve(&journey.reference), self.sink.store());
        let summary = summary?;
        journey.config_digest = Some(summary.config_digest);

        let look = self.look().await;
        journey.enter(Stage::Plan);
        if let Some(proof) = self.sink.confirm(&summary).await? {
            let size = self.size(&summary);
            return self.name(journey, Has::Summary(&summary, size), proof).await;
        }
        journey.enter(Stage::Export);
        let image = self.image(&summary.config_digest).await?;
        journey.enter(Stage::Plan);
        match self.turn(journey, &image, seat, look).await? {
            Next::Proven(proof) => self.name(journey, Has::Image(&image), proof).await,
            Next::Load(seat, missing) => {
                let proof = self.load_or_discard(journey, &image, missing).await?;
                drop(seat);
                self.name(journey, Has::Image(&image), proof).await
            }
        }
    }

    /// Plans, and waits for the image's turn to load what it lacks; plans again whenever somebody
    /// brought in some of that, and brings in for others too what they share with it.
    async fn turn<'a>(
        &'a self,
        journey: &mut Journey,
        image: &Image,
        mut seat: Seat<'a>,
        mut look: SemaphorePermit<'a>,
    ) -> Result<Next<'a>, PullError> {
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
                Turn::Whole(seat) => return Ok(Next::Load(seat, missing)),
                Turn::Again(seat) => seat,
                Turn::Base(seat, count) => {
                    self.load_base(journey, image, &missing, count).await?;
                    seat.look_again()
                }
            };
            look = self.look().await;
            journey.enter(Stage::Plan);
        }
    }

    /// What an image lacks, in the words of the board.
    async fn wants(&self, image: &Image, missing: &Missing) -> Result<Wants, PullError> {
        let (bytes, _) = missing.sizes(image);
        let own = vec![image.config_digest.0];
        if self.sink.overlap().await? == Overlap::Layers {
            return Ok(Wants { image: own, layers: Vec::new(), bytes });
        }
        let diff_ids: Vec<_> = image.diff_ids().collect();
        let stacks = ChainId::chain(&diff_ids);
        let store = self.sink.store().await?;
        let layers = image.layers.iter().zip(&stacks).zip(&missing.0);
        let layers = layers.filter(|(_, missing)| **missing).map(|((layer, stack), _)| Wanted {
            key: match store {
                StoreKind::Graphdriver => stack.0,
                StoreKind::Containerd => layer.blob.digest,
            },
            stack: stack.0,
        });
        Ok(Wants { image: own, layers: layers.collect(), bytes })
    }

    /// Brings in the first `count` of the layers that are missing, for all who share them. An engine
    /// that does not take them in this way gets them with their images.
    async fn load_base(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: &Missing,
        count: usize,
    ) -> Result<(), PullError> {
        let positions = missing.0.iter().enumerate().filter(|(_, missing)| **missing);
        let depth = positions.map(|(position, _)| position + 1).nth(count.saturating_sub(1));
        let made = depth.map(|depth| (depth, base_of(image, depth)));
        let Some((depth, Ok(base))) = made else {
            self.board.only_whole();
            return Ok(());
        };
        self.unswept.store(true, Ordering::Relaxed);
        let lacking = Missing(missing.0[..depth].to_vec());
        let _room = self.room(journey, &base, &lacking).await?;
        journey.enter(Stage::Load);
        let moved = self.load(journey, Part { whole: image, part: &base }, &lacking).await;
        let loaded = match moved {
            Ok(()) => self.sink.prove(&base).await?.is_some(),
            Err(PullError::Load(LoadError::Refused { message })) => {
                tracing::info!(image = %journey.reference, message, "shared layers refused");
                false
            }
            Err(error) => return Err(error),
        };
        match loaded {
            true => journey.brought(lacking.sizes(&base).0),
            false => self.board.only_whole(),
        }
        Ok(())
    }

    /// Removes bases, once nobody is about to load upon them.
    async fn sweep(&self) {
        if !self.board.is_idle() || !self.unswept.swap(false, Ordering::Relaxed) {
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

    /// What the layers of an image come to: as counted when it was asked for, else as the source
    /// says.
    fn size(&self, summary: &ImageSummary) -> u64 {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(&summary.config_digest).copied().unwrap_or(summary.unpacked_size)
    }

    /// The image with its layers in the form that the engine's store wants.
    async fn image(&self, config_digest: &ConfigDigest) -> Result<Image, PullError> {
        let form = self.sink.store().await?.layer_form();
        let image = self.source.image(config_digest, form).await?;
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if MAX_SIZES <= sizes.len() {
            sizes.clear();
        }
        sizes.insert(image.config_digest, size(&image));
        drop(sizes);
        Ok(image)
    }

    /// Loads and proves; what a load that failed left is removed.
    async fn load_or_discard(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: Missing,
    ) -> Result<Proof, PullError> {
        let loaded = self.load_and_prove(journey, image, missing).await;
        if loaded.is_err()
            && let Err(discard) = self.sink.discard(image).await
        {
            tracing::warn!(image = %journey.reference, error = %discard, "leftovers of a failed load stay");
        }
        loaded
    }

    /// Loads what is missing; what is not proven then is healed with the full set, once.
    async fn load_and_prove(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: Missing,
    ) -> Result<Proof, PullError> {
        let full = Missing::all(image);
        let thin = missing != full;
        match self.load_in(journey, image, &missing, Stage::Load).await {
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
        self.load_in(journey, image, &full, Stage::Heal).await?;
        journey.enter(Stage::Prove);
        self.sink.prove(image).await?.ok_or(PullError::Unproven)
    }

    /// Loads once there is room.
    async fn load_in(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: &Missing,
        stage: Stage,
    ) -> Result<(), PullError> {
        let _room = self.room(journey, image, missing).await?;
        journey.enter(stage);
        journey.planned(missing.sizes(image));
        self.load(journey, Part { whole: image, part: image }, missing).await
    }

    async fn room(
        &self,
        journey: &mut Journey,
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

    /// Loads, asking for the image again when the host forgot the lease under which it was read, or
    /// gave bytes that are not the blob's: it puts its bad copy aside and takes a new one then.
    async fn load(
        &self,
        journey: &Journey,
        Part { whole, part }: Part<'_>,
        missing: &Missing,
    ) -> Result<(), PullError> {
        let mut retries = 0;
        loop {
            let blobs = journey.metered(self.source.blobs(&whole.config_digest));
            let blobs: Arc<dyn BlobSource> = Arc::new(blobs);
            match self.sink.load(part, missing, &blobs).await {
                Err(LoadError::Source(error)) if mends(&error) && retries < SOURCE_RETRIES => {
                    retries += 1;
                    tracing::info!(image = %journey.reference, %error, "asking the host again");
                    let now = self.image(&whole.config_digest).await?;
                    if now.target_digest() != whole.target_digest() {
                        // What was planned is void; whoever tries again plans for what it is now.
                        let changed = "its manifest on the host is another one by now";
                        return Err(SourceError::unavailable(&journey.reference, changed).into());
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// Gives a proven image its name, unless it has it.
    async fn name(
        &self,
        journey: &mut Journey,
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

/// What is loaded, and the image whose blobs it is made of.
struct Part<'a> {
    whole: &'a Image,
    part: &'a Image,
}

/// What a plan comes to.
enum Next<'a> {
    /// The image is there.
    Proven(Proof),
    /// It is this image's turn to load what is missing.
    Load(Seat<'a>, Missing),
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

fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.blob.size).sum()
}

/// Whether asking the host for the image again can mend this.
fn mends(error: &BlobError) -> bool {
    matches!(
        error,
        BlobError::LeaseLost { .. }
            | BlobError::DigestMismatch { .. }
            | BlobError::SizeMismatch { .. }
    )
}

#[cfg(test)]
mod tests;
