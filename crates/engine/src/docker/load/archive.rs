//! Thin archives into the engine's socket as their frames arrive: works on every engine.
//!
//! A graphdriver hashes each layer as it unpacks it, and throws away what is not the diff ID that the
//! image's config names: nobody hashes it here besides, until it refuses something.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use transfer::blob::Cause;
use transfer::{BlobSource, Image, LoadError, Missing, StoreKind};

use super::watch::{MAX_SILENCE, Progress, Verdict, watched};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::load::thin::{ThinArchive, sent};

const ACTION: &str = "loading an image";

/// Posts thin archives to an engine, whichever store it has.
#[derive(Clone, Debug)]
pub(super) struct ArchiveLoader {
    docker: Docker,
}

impl ArchiveLoader {
    pub(super) fn new(docker: Docker) -> Self {
        Self { docker }
    }

    /// Sends the archive and reads the engine's answer to its end.
    async fn post(
        &self,
        archive: mpsc::Receiver<Result<Bytes, Cause>>,
        progress: &Progress,
    ) -> Result<(), LoadError> {
        // Not quiet: what the engine says of its progress is a sign of life.
        let path = "/images/load?quiet=0";
        let body = ReceiverStream::new(archive);
        let mut answer = self.docker.http.post_tar(ACTION, path, body, MAX_SILENCE).await?;
        let mut verdict = Verdict::default();
        loop {
            match answer.next_piece().await {
                None => return verdict.finish(),
                Some(Ok(piece)) => verdict.take(&piece),
                Some(Err(error)) => {
                    // What was said before the break says more than the break.
                    verdict.finish()?;
                    return Err(EngineError::transport(self.docker.address(), ACTION, error).into());
                }
            }
            progress.made();
        }
    }

    /// Pumps the archive into the engine, and waits for what it says.
    async fn send(&self, archive: ThinArchive<'_>) -> Result<(), LoadError> {
        let progress = Progress::default();
        // Two frames: one that the engine takes, one that is being read meanwhile.
        let (sender, receiver) = mpsc::channel(2);
        let mut pump = pin!(pump(archive, sender, &progress));
        let mut load =
            pin!(watched(&self.docker, ACTION, &progress, self.post(receiver, &progress)));
        tokio::select! {
            // The engine may answer before it took everything: it refused, or has enough.
            answer = &mut load => answer,
            pumped = &mut pump => match pumped {
                // A broken-off body never looks like a whole archive: dropping the load closes the
                // connection in the middle of a chunk.
                Err(error) => Err(error),
                Ok(()) => load.await,
            },
        }
    }
}

impl ArchiveLoader {
    /// Loads an image without a name.
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub(super) async fn load(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), LoadError> {
        let archive = ThinArchive::new(image, missing, blobs);
        if self.docker.store_kind().await? != StoreKind::Graphdriver {
            // It keeps whatever blob is in an archive under the digest that the bytes have.
            return self.send(archive).await;
        }
        match self.send(archive.unverified()).await {
            // It does not always say so when a layer is not what it should be: the bytes of a broken
            // one may be no archive at all. Verified, they are told apart from all else.
            Err(LoadError::Refused { message }) => {
                tracing::info!(image = %image.config_digest, message, "loading again, verified");
                sent(image, missing).for_each(|layer| blobs.doubt(&layer.digest));
                self.send(ThinArchive::new(image, missing, blobs)).await
            }
            ended => ended,
        }
    }
}

/// Hands the archive's frames to the request, as it takes them.
async fn pump(
    mut archive: ThinArchive<'_>,
    sender: mpsc::Sender<Result<Bytes, Cause>>,
    progress: &Progress,
) -> Result<(), LoadError> {
    while let Some(frame) = archive.next_frame().await? {
        if sender.send(Ok(frame)).await.is_err() {
            // The request has ended, and its answer tells why.
            return Ok(());
        }
        progress.made();
    }
    Ok(())
}
