//! An engine that pulls: one image, from an endpoint on a loopback address that serves nothing else
//! and no longer than the pull.
//!
//! ```text
//!   POST /images/create 127.0.0.1:PORT/longshore/<config digest>@<target digest>
//!        engine ──GET──► endpoint ──► blobs
//!        │
//!        └ the image, named by its digest in that repository alone
//! ```
//! What becomes of the name that it has by that is told in `pulled.rs`.
//!
//! The engine has to be in one network namespace with this process, as it is in a range.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use transfer::{
    BlobError, BlobSource, BlobStream, Digest, EngineImageId, Image, LoadError, Platform, StoreKind,
};

use super::watch::{MAX_SILENCE, Progress, Verdict, watched};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::pulled::{is_ours, repository};
use crate::docker::load::prove::target;
use crate::docker::load::thin::published;
use crate::registry::{
    Blob, Document, Loopback, ManifestName, Refusal, Registry, Repository, Shelf, blob_of,
    document_of,
};

const ACTION: &str = "pulling an image";

/// Has an engine pull.
#[derive(Clone, Debug)]
pub(super) struct RegistryLoader {
    docker: Docker,
}

impl RegistryLoader {
    pub(super) fn new(docker: Docker) -> Self {
        Self { docker }
    }

    /// Has the engine pull, and reads its answer to the end.
    async fn pull(&self, path: &str, progress: &Progress) -> Result<(), LoadError> {
        let mut answer = self.docker.http.post(ACTION, path, MAX_SILENCE).await?;
        let mut verdict = Verdict::default();
        while let Some(piece) = answer.next_piece().await {
            match piece {
                Ok(piece) => verdict.take(&piece),
                Err(error) => {
                    // What was said before the break says more than the break.
                    verdict.finish()?;
                    return Err(EngineError::transport(self.docker.address(), ACTION, error).into());
                }
            }
            progress.made();
        }
        verdict.finish()
    }
}

impl RegistryLoader {
    /// Has the engine pull an image. The engine itself finds out what it lacks: on the containerd
    /// store by blobs, on a graphdriver by the digests that it pulled before.
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub(super) async fn load(
        &self,
        image: &Image,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), LoadError> {
        let progress = Arc::new(Progress::default());
        let (noted, mut trouble) = mpsc::channel(1);
        let blobs = Noted { blobs: blobs.clone(), progress: progress.clone(), noted };
        let served = document(image, self.docker.store_kind().await?);
        let digest = served.descriptor.digest;
        let shelf = OneImage { image: image.clone(), served, blobs: Arc::new(blobs) };
        let registry = Registry::bind(Loopback::port(0), Arc::new(shelf)).await;
        let registry = registry.map_err(|error| {
            EngineError::transport(self.docker.address(), "serving it an image", error)
        })?;
        let path = create(&registry.address(), image, &digest);
        let pull = watched(&self.docker, ACTION, &progress, self.pull(&path, &progress));
        tokio::select! {
            // First: the engine says of it only that the connection broke, and tries again.
            biased;
            Some(error) = trouble.recv() => return Err(LoadError::Source(error)),
            pulled = pull => pulled?,
            () = registry.serve(std::future::pending()) => {}
        }
        let id = EngineImageId(target(&self.docker, image).await?);
        Ok(drop_names(&self.docker, id).await?)
    }
}

/// What the engine is to pull: what a registry calls the image by on the containerd store, where
/// that stays its digest. A graphdriver keeps neither.
fn document(image: &Image, store: StoreKind) -> Document {
    match (store, published(image)) {
        (StoreKind::Containerd, Some(index)) => Document::index(index.clone()),
        _ => Document::manifest(image.manifest.clone()),
    }
}

/// The call that has the engine pull `image` from `address`.
fn create(address: &Loopback, image: &Image, target: &Digest) -> String {
    let repository = repository(address, &image.config_digest);
    let path = format!("/images/create?fromImage={repository}&tag={target}");
    let (own, host) = (&image.platform, Platform::host());
    if (&own.os, &own.architecture) == (&host.os, &host.architecture) {
        return path;
    }
    // An engine takes an image of another platform only where it is told to.
    format!("{path}&platform={own}")
}

/// Removes the names that an image was pulled by, unless it has no other: it would go with them.
pub(super) async fn drop_names(docker: &Docker, image: EngineImageId) -> Result<(), EngineError> {
    let Some(inspected) = docker.inspect(&image.to_string()).await? else { return Ok(()) };
    if !inspected.has_names() {
        return Ok(());
    }
    for name in inspected.pinned().into_iter().filter(is_ours) {
        docker.remove_image(&name).await?;
    }
    Ok(())
}

/// One image as a registry, whatever the repository is called.
struct OneImage {
    image: Image,
    /// What is pulled of it.
    served: Document,
    blobs: Arc<dyn BlobSource>,
}

#[async_trait]
impl Shelf for OneImage {
    async fn manifest(&self, _: &Repository, name: &ManifestName) -> Result<Document, Refusal> {
        let document = match name {
            ManifestName::Digest(digest) if *digest == self.served.descriptor.digest => {
                Some(self.served.clone())
            }
            ManifestName::Digest(digest) => document_of(&self.image, digest),
            ManifestName::Tag(_) => None,
        };
        document.ok_or(Refusal::UnknownManifest)
    }

    async fn blob(&self, _: &Repository, digest: &Digest) -> Result<Blob, Refusal> {
        blob_of(&self.image, digest, &self.blobs).ok_or(Refusal::UnknownBlob)
    }

    async fn tags(&self, _: &Repository) -> Result<Vec<String>, Refusal> {
        Err(Refusal::UnknownName)
    }
}

/// Blobs of which each frame is a sign of progress, and the first that fails is told.
struct Noted {
    blobs: Arc<dyn BlobSource>,
    progress: Arc<Progress>,
    noted: mpsc::Sender<BlobError>,
}

#[async_trait]
impl BlobSource for Noted {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.blobs.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (progress, noted) = (self.progress.clone(), self.noted.clone());
        let opened = self.blobs.open(digest, offset).await;
        let stream = opened.map_err(|error| told(&noted, error))?;
        let frames = stream.map(move |frame: Result<Bytes, BlobError>| {
            progress.made();
            frame.map_err(|error| told(&noted, error))
        });
        Ok(frames.boxed())
    }

    fn doubt(&self, digest: &Digest) {
        self.blobs.doubt(digest);
    }
}

/// Tells of an error, unless one was told of before.
fn told(noted: &mpsc::Sender<BlobError>, error: BlobError) -> BlobError {
    let error = Arc::new(error);
    // Full, or nobody waits any more: then there is a reason already.
    drop(noted.try_send(error.again()));
    error.again()
}

#[cfg(test)]
mod tests {
    use transfer::fixture;

    use super::*;

    #[test]
    fn an_image_of_another_platform_is_asked_for_by_that() {
        let (mut image, _) = fixture::image(1, &[10]);
        image.platform = Platform::host();
        let path = |image: &Image| create(&Loopback::port(5001), image, &image.manifest_digest);
        let expected = format!(
            "/images/create?fromImage=127.0.0.1:5001/longshore/{}&tag={}",
            image.config_digest.0.hex(),
            image.manifest_digest
        );
        assert_eq!(path(&image), expected);
        image.platform.architecture = "s390x".into();
        assert_eq!(path(&image), format!("{expected}&platform=linux/s390x"));
    }
}
