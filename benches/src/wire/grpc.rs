//! Longshore's read: a library over the file store behind a listener, and a remote host's blobs.
//!
//! Both ends are `proto`'s, composed as in the agents, with the same frames and windows. All receivers
//! count as one range here, so the host's limits on reads, bytes in flight and connections grow with
//! their number, and none waits for another. Each receiver reads over a single connection.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use control::lending::{AllImages, Terms};
use control::{Caller, Library};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::RemoteHost;
use proto::client::Manners;
use proto::server::{Caps, HOST_SERVICES, Health, Listener, Server, Services};
use tokio_util::sync::CancellationToken;
use transfer::store::FsStore;
use transfer::{BlobSource as _, BlobStore as _, BlobStream, ImageSource as _, Ingest, LayerForm};

use super::admin::NoAdmin;
use super::job::Job;
use super::route::Transport;
use crate::one_image::{OneImage, image_of};

/// Builds a host agent's data path; returns the server and its address.
pub(super) async fn listen(
    job: &Job,
    store: &Path,
    socket: &Path,
) -> anyhow::Result<(Server, String)> {
    let blobs = open(job, store).await?;
    let leases = blobs.leases().clone();
    let images = OneImage { image: image_of(job.digest, job.size)?, blobs: Arc::new(blobs) };
    // In production each receiver is a range of its own.
    let receivers = job.route.receivers.max(8);
    let in_flight = u64::from(receivers) * transfer::limited::WINDOW as u64;
    let terms = Terms {
        reads: receivers as usize,
        reads_per_caller: receivers as usize,
        bytes_in_flight: in_flight,
        bytes_in_flight_per_caller: in_flight,
        ..Terms::default()
    };
    let library = Library::new(Arc::new(images), Arc::new(AllImages), leases, terms);
    let health = Health::not_serving(&HOST_SERVICES).await;
    let caller = Caller::Range("bench".parse()?);
    let services =
        Services::of_host(caller, Arc::new(library), Arc::new(NoAdmin), Arc::new(NoAdmin), &health);
    let listener = match job.route.transport {
        Transport::Tcp => Listener::tcp(([127, 0, 0, 1], 0).into()).await?,
        Transport::Unix => Listener::unix(socket, 0o600)?,
    };
    let endpoint = listener.to_string();
    health.set(true).await;
    let caps = Caps { connections: 2 * receivers, ..Caps::default() };
    Ok((Server::new(listener, services, caps), endpoint))
}

/// Opens the store and reads the blob once, so that it counts as hashed, as in a host agent that
/// ingested it.
pub(super) async fn open(job: &Job, store: &Path) -> anyhow::Result<FsStore> {
    let blobs = FsStore::open(store).await.context("opening the store")?;
    let mut read = blobs.open(&job.digest, 0).await?;
    while read.try_next().await?.is_some() {}
    Ok(blobs)
}

/// Serves until `end`.
pub(super) async fn serve(server: Server, end: CancellationToken) -> anyhow::Result<()> {
    Ok(server.run(end).await?)
}

/// Receives the blob as a dind agent does, and ingests it into `kept` if given. Returns the number of
/// bytes.
pub(super) async fn fetch(from: &str, job: &Job, kept: Option<FsStore>) -> anyhow::Result<u64> {
    let host = RemoteHost::new(from.parse()?, Manners { connections: 1, ..Manners::default() });
    let config_digest = image_of(job.digest, job.size)?.config_digest;
    let opened = host.open(&config_digest.into(), LayerForm::AsStored).await?;
    let stream = opened.blobs.open(&job.digest, job.offset()).await?;
    let ingest = match &kept {
        Some(store) => Some(store.ingest_verified(&job.blob()).await?),
        None => None,
    };
    take(stream, ingest, job).await
}

/// Reads a stream to its end into `ingest` if given. Returns the number of bytes.
pub(super) async fn take(
    mut stream: BlobStream,
    mut ingest: Option<Box<dyn Ingest>>,
    job: &Job,
) -> anyhow::Result<u64> {
    let mut seen = 0;
    while let Some(frame) = stream.next().await {
        let frame = frame?;
        seen += frame.len() as u64;
        if let Some(ingest) = &mut ingest {
            ingest.write(frame).await?;
        }
    }
    ensure!(seen == job.expected(), "received {seen} of {} bytes", job.expected());
    if let Some(ingest) = ingest {
        ingest.commit(&job.blob()).await?;
    }
    Ok(seen)
}
