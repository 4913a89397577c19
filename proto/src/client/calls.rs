//! The connections to one host agent, and the calls over them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::lending::Loan;
use tonic::Request;
use tonic::transport::Channel;
use transfer::{Digest, Image, ImageKey, ImageSummary, LayerForm, Reference, SourceError};

use super::retry::{BRIEFLY, until_answered};
use crate::channel::Endpoint;
use crate::convert::{inventory, status};
use crate::failure::Failure;
use crate::speed::Speed;
use crate::wire::{BlobClient, InventoryClient, MAX_RESPONSE, PROGRESS_TIMEOUT};

/// Most doubts that wait for the next read of their blob; more are forgotten.
const MAX_DOUBTS: usize = 1024;

/// Timeouts for a remote host.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Deadline of one request for an image: the host may have to export it first.
    pub image_deadline: Duration,
    /// Maximum time to retry a broken stream without a new byte, or a request for an image without
    /// an answer.
    pub patience: Duration,
    /// Maximum time without a byte before a stream counts as broken.
    pub stall: Duration,
    /// Connections for blobs, at least one, beside one for everything else. A stream takes the one
    /// that has the fewest.
    pub connections: usize,
}

impl Default for Manners {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            image_deadline: Duration::from_secs(30 * 60),
            patience: PROGRESS_TIMEOUT,
            stall: PROGRESS_TIMEOUT / 2,
            connections: cores.clamp(1, 4),
        }
    }
}

/// The connections to one host, and the calls over them.
#[derive(Debug)]
pub(super) struct Calls {
    endpoint: Endpoint,
    pub(super) manners: Manners,
    control: Channel,
    /// Blobs have connections of their own, so that a list does not wait behind a layer.
    bulk: Vec<Connection>,
    /// Speed at which blobs arrive from the host.
    pub(super) link: Arc<Speed>,
    /// Blobs whose bytes were wrong. The next read of each reports it to the host first.
    doubted: Mutex<HashSet<Digest>>,
}

/// A connection for blobs. Each clone but the first is a stream of it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    channel: Channel,
    streams: Arc<()>,
}

impl Connection {
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

impl Calls {
    /// Connects to `endpoint` when the first call is made. Must be called within a runtime.
    pub(super) fn new(endpoint: Endpoint, manners: Manners) -> Self {
        let connection = || Connection { channel: endpoint.channel(), streams: Arc::default() };
        let bulk = std::iter::repeat_with(connection).take(manners.connections.max(1)).collect();
        Self {
            control: endpoint.channel(),
            endpoint,
            manners,
            bulk,
            link: Arc::default(),
            doubted: Mutex::default(),
        }
    }

    /// The host's endpoint.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The failure of a call that ended with this status.
    pub(super) fn failure(&self, status: tonic::Status) -> Failure {
        Failure::new(&self.endpoint.to_string(), status)
    }

    /// The client for questions about images.
    pub(super) fn inventory(&self) -> InventoryClient {
        InventoryClient::new(self.control.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    /// For quick questions about blobs.
    pub(super) fn blobs(&self) -> BlobClient {
        BlobClient::new(self.control.clone())
    }

    /// For a stream of a blob: the connection that has the fewest. A connection is one task at
    /// either end, so that a stream with one of its own has a core of its own.
    pub(super) fn bulk(&self) -> Connection {
        let idlest =
            self.bulk.iter().min_by_key(|connection| Arc::strong_count(&connection.streams));
        idlest.expect("invariant: there is at least one connection").clone()
    }

    /// Speed at which blobs arrive from another host, in bytes per second. `None` until it is
    /// known, and within one host, where nothing is compressed.
    pub(super) fn slow_link(&self) -> Option<u64> {
        if self.endpoint.is_within_host() { None } else { self.link.bytes_per_second() }
    }

    /// Requests the image, with retries, and the lease under which its blobs are read. Reports to
    /// the host if the caller doubts the blob that it is about to read.
    pub(super) async fn image(
        &self,
        key: &ImageKey,
        form: LayerForm,
        doubted: Option<&Digest>,
    ) -> Result<(Image, Loan), SourceError> {
        let given = until_answered(self.manners.patience, || async {
            let mut request = Request::new(inventory::image_wanted(key, form, doubted));
            request.set_timeout(self.manners.image_deadline);
            self.inventory().get_image(request).await
        });
        let given = given
            .await
            .map_err(|status| status::to_source_error(&key.to_string(), self.failure(status)))?;
        let (image, lease) = inventory::image_given(&key.config_digest, given)
            .map_err(|malformed| SourceError::unavailable(key, malformed))?;
        let loan = Loan { config_digest: key.config_digest, lease_id: lease.id };
        Ok((image, loan))
    }

    /// Asks what references name, in one request.
    pub(super) async fn resolve(
        &self,
        references: &[Reference],
        deadline: Duration,
    ) -> Result<Vec<Result<ImageSummary, SourceError>>, SourceError> {
        let answer = until_answered(BRIEFLY, || async {
            let mut request = Request::new(inventory::resolve_wanted(references));
            request.set_timeout(deadline);
            self.inventory().resolve_images(request).await
        });
        let answer = answer.await.map_err(|status| {
            let image = references.iter().map(ToString::to_string).next().unwrap_or_default();
            status::to_source_error(&image, self.failure(status))
        })?;
        Ok(inventory::resolved(&self.endpoint.to_string(), references, answer))
    }

    /// Takes note that bytes of a blob were found to be wrong.
    pub(super) fn doubt(&self, digest: &Digest) {
        let mut doubted = self.doubted();
        if doubted.len() < MAX_DOUBTS {
            doubted.insert(*digest);
        }
    }

    /// Takes the doubt about a blob: true if one was raised since the last call.
    pub(super) fn take_doubt(&self, digest: &Digest) -> bool {
        self.doubted().remove(digest)
    }

    fn doubted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
