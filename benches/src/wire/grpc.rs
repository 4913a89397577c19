//! Our own read: a library over the file store behind a listener, and a remote host's verified blobs.
//!
//! Both ends are `proto`'s, composed as the agents compose them; nothing is tuned here.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use proto::client::Manners;
use proto::library::{AllImages, Terms};
use proto::server::{Caps, HOST_SERVICES, Health, Listener, Server, Services};
use proto::{Caller, Library, RemoteHost};
use tokio_util::sync::CancellationToken;
use transfer::store::FsStore;
use transfer::{
    BlobSource, ConfigDigest, Image, ImageSource, ImageSummary, LayerForm, Reference, SourceError,
};

use super::admin::NoAdmin;
use super::peer::Job;
use super::route::{Receiver, Transport};

/// A host agent's data path, ready to serve; says where.
pub(super) async fn listen(
    job: &Job,
    store: &Path,
    socket: &Path,
) -> anyhow::Result<(Server, String)> {
    let blobs = FsStore::open(store).await.context("opening the store")?;
    let leases = blobs.leases().clone();
    let images = OneImage { image: image_of(job)?, blobs: Arc::new(blobs) };
    let library = Library::new(Arc::new(images), Arc::new(AllImages), leases, Terms::default());
    let health = Health::not_serving(&HOST_SERVICES).await;
    let caller = Caller::Range("bench".parse()?);
    let services = Services::of_host(caller, Arc::new(library), Arc::new(NoAdmin), &health);
    let listener = match job.route.transport {
        Transport::Tcp => Listener::tcp(([127, 0, 0, 1], 0).into()).await?,
        Transport::Unix => Listener::unix(socket, 0o600)?,
    };
    let endpoint = listener.to_string();
    health.set(true).await;
    Ok((Server::new(listener, services, Caps::default()), endpoint))
}

/// Serves until `end`.
pub(super) async fn serve(server: Server, end: CancellationToken) -> anyhow::Result<()> {
    Ok(server.run(end).await?)
}

/// Takes the blob as a dind agent does; says how many bytes came.
///
/// A receiver that discards reads from byte 1 on, as after a broken connection: neither end can
/// verify a piece, so neither hashes it.
pub(super) async fn fetch(from: &str, job: &Job) -> anyhow::Result<u64> {
    let host = RemoteHost::new(from.parse()?, Manners::default());
    let config_digest = image_of(job)?.config_digest;
    host.image(&config_digest, LayerForm::AsStored).await?;
    let offset = match job.route.receiver {
        Receiver::Discards => 1,
        Receiver::Verifies => 0,
    };
    let mut stream = host.blobs(&config_digest).open(&job.digest, offset).await?;
    let mut seen = 0;
    while let Some(frame) = stream.next().await {
        seen += frame?.len() as u64;
    }
    ensure!(offset + seen == job.size, "{seen} of {} bytes came", job.size);
    Ok(seen)
}

/// The image whose only layer is the blob: both ends make the same.
fn image_of(job: &Job) -> anyhow::Result<Image> {
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [job.digest] },
    });
    Ok(Image::from_layers(Bytes::from(config.to_string()), &[job.size])?)
}

/// A host with one image.
struct OneImage {
    image: Image,
    blobs: Arc<FsStore>,
}

#[async_trait]
impl ImageSource for OneImage {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(vec![ImageSummary {
            config_digest: self.image.config_digest,
            references: Vec::new(),
            diff_ids: self.image.diff_ids().collect(),
            unpacked_size: 0,
            platform: self.image.platform.clone(),
        }])
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        Err(SourceError::NotFound { image: reference.to_string() })
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        _: LayerForm,
    ) -> Result<Image, SourceError> {
        if *config_digest == self.image.config_digest {
            return Ok(self.image.clone());
        }
        Err(SourceError::NotFound { image: config_digest.to_string() })
    }

    fn blobs(&self, _: &ConfigDigest) -> Arc<dyn BlobSource> {
        self.blobs.clone()
    }
}
