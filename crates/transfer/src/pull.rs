//! The way of an image from a source into a sink: resolve, plan, load, prove, and only then tag.
//!
//! ```text
//! resolve ► image ► proven already? ──yes──► named already? ──yes──► Skipped
//!                        │ no                     │ no
//!                        ▼                        ▼
//!              plan ► load ► prove ──yes────────► tag ────────────► Synced
//!                       ▲      │ no
//!                       └ heal ┘ (the full set, once)  then: discard, Failed
//! ```
//!
//! Several images are pulled at once. A layer that several of them lack goes in once: whoever
//! comes second waits for the first and plans again (`claim`).

mod claim;
mod journey;

use std::sync::Arc;

use futures::StreamExt as _;

use crate::blob::{BlobError, BlobSource};
use crate::digest::ConfigDigest;
use crate::event::{ImageReport, Observer, Outcome, Stage};
use crate::image::Image;
use crate::reference::Reference;
use crate::sink::{ImageSink, LoadError, Missing, Proof};
use crate::source::{ImageSource, SourceError};
use claim::Claims;
use journey::Journey;

/// How often a pull asks for its image again, after the host forgot its lease or gave bad bytes.
///
/// Each time costs the load that was under way; a host that does either more often than this within
/// one image is broken, and the report should say so rather than go round.
const SOURCE_RETRIES: u32 = 3;

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
    /// Images under way at once.
    concurrency: usize,
    claims: Claims,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

impl Puller {
    /// Pulls up to `concurrency` images at once, at least one.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, sink: Arc<dyn ImageSink>, concurrency: usize) -> Self {
        Self { source, sink, concurrency: concurrency.max(1), claims: Claims::default() }
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
        let pulls = references.iter().enumerate().map(|(position, reference)| {
            let (reference, observer) = (reference.clone(), observer.clone());
            async move { (position, self.pull_one(reference, observer).await) }
        });
        // Unordered, so that a finished image makes room at once; put back in order at the end.
        let mut reports: Vec<_> =
            futures::stream::iter(pulls).buffer_unordered(self.concurrency).collect().await;
        reports.sort_by_key(|(position, _)| *position);
        reports.into_iter().map(|(_, report)| report).collect()
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
            Ok((outcome, proof)) => (journey.arrived(outcome, &proof), None),
            Err(error) => (journey.failed(&error), Some(error)),
        }
    }

    /// The way of one image; the module's drawing in code.
    async fn travel(&self, journey: &mut Journey) -> Result<(Outcome, Proof), PullError> {
        journey.enter(Stage::Resolve);
        let summary = self.source.resolve(&journey.reference).await?;
        journey.config_digest = Some(summary.config_digest);

        journey.enter(Stage::Export);
        let image = self.image(&summary.config_digest).await?;

        journey.enter(Stage::Plan);
        if let Some(proof) = self.sink.prove(&image).await? {
            return self.name(journey, &image, proof).await;
        }
        let missing = self.sink.missing(&image).await?;
        let claim = self.claims.claim(&image, &missing).await;
        let missing = match claim.waited() {
            false => missing,
            // Somebody brought in what we lacked, or failed to: plan again with what is there now.
            true => match self.sink.prove(&image).await? {
                Some(proof) => return self.name(journey, &image, proof).await,
                None => self.sink.missing(&image).await?,
            },
        };
        let proof = match self.load_and_prove(journey, &image, missing).await {
            Ok(proof) => proof,
            Err(error) => {
                if let Err(discard) = self.sink.discard(&image).await {
                    tracing::warn!(image = %journey.reference, error = %discard, "leftovers of a failed load stay");
                }
                return Err(error);
            }
        };
        drop(claim);
        self.name(journey, &image, proof).await
    }

    /// The image with its layers in the form that the engine's store wants.
    async fn image(&self, config_digest: &ConfigDigest) -> Result<Image, PullError> {
        let form = self.sink.info().await?.store.layer_form();
        Ok(self.source.image(config_digest, form).await?)
    }

    /// Loads what is missing; what is not proven then is healed with the full set, once.
    async fn load_and_prove(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: Missing,
    ) -> Result<Proof, PullError> {
        journey.enter(Stage::Load);
        let full = Missing::all(image);
        let thin = missing != full;
        match self.load(journey, image, &missing).await {
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
        journey.enter(Stage::Heal);
        self.load(journey, image, &full).await?;
        journey.enter(Stage::Prove);
        self.sink.prove(image).await?.ok_or(PullError::Unproven)
    }

    /// Loads, asking for the image again when the host forgot the lease under which it was read, or
    /// gave bytes that are not the blob's: it puts its bad copy aside and takes a new one then.
    async fn load(
        &self,
        journey: &mut Journey,
        image: &Image,
        missing: &Missing,
    ) -> Result<(), PullError> {
        let mut retries = 0;
        journey.planned(missing.sizes(image));
        loop {
            let blobs = journey.metered(self.source.blobs(&image.config_digest));
            let blobs: Arc<dyn BlobSource> = Arc::new(blobs);
            match self.sink.load(image, missing, &blobs).await {
                Err(LoadError::Source(error)) if mends(&error) && retries < SOURCE_RETRIES => {
                    retries += 1;
                    tracing::info!(image = %journey.reference, %error, "asking the host again");
                    let now = self.image(&image.config_digest).await?;
                    if now.target_digest() != image.target_digest() {
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
        image: &Image,
        proof: Proof,
    ) -> Result<(Outcome, Proof), PullError> {
        let loaded = journey.loaded();
        if !loaded {
            journey.planned((0, image.layers.iter().map(|layer| layer.blob.size).sum()));
        }
        if proof.references.contains(&journey.reference) {
            let outcome = if loaded { Outcome::Synced } else { Outcome::Skipped };
            return Ok((outcome, proof));
        }
        journey.enter(Stage::Tag);
        self.sink.tag(&proof, &journey.reference).await?;
        match self.sink.prove(image).await? {
            Some(proof) if proof.references.contains(&journey.reference) => {
                Ok((Outcome::Synced, proof))
            }
            _ => Err(PullError::Unnamed { reference: journey.reference.clone() }),
        }
    }
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
