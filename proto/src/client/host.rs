//! A host agent as a source of images: what it lists, resolves and lends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::BoxStream;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Channel;
use transfer::{
    Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage, Reference,
    SourceError,
};

use super::failure::{Failure, RemoteError};
use super::reading::{Asked, RemoteBlobs};
use super::retry::{BRIEFLY, until_answered};
use super::stream::events;
use crate::channel::Endpoint;
use crate::convert::{inventory, status, wanted};
use crate::speed::Speed;
use crate::wire::{BlobClient, InventoryClient, MAX_RESPONSE, PROGRESS_TIMEOUT, UNARY_DEADLINE};
use control::lending::Loan;
use control::wanted::WantedSet;

/// Most doubts that wait for the next read of their blob; more are forgotten.
const MAX_DOUBTS: usize = 1024;

/// How long a host may take to say what many references name. One that has to export an image to know
/// takes longer for it, and is asked for each by itself: so the others do not wait for it.
const TOGETHER_DEADLINE: Duration = Duration::from_millis(500);

/// The sets that a range is to have, one after the other. Ends only with an error.
pub type WantedSets = BoxStream<'static, Result<WantedSet, RemoteError>>;

/// How a remote host is treated.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// How long one request for an image may take: the host may have to export it first.
    pub image_deadline: Duration,
    /// How long a stream that broke is asked for again without a new byte, and a request for an
    /// image without an answer.
    pub patience: Duration,
    /// How long a stream may stand still before it counts as broken.
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

/// The host behind an endpoint. Connects when it is first asked, and again by itself.
#[derive(Clone, Debug)]
pub struct RemoteHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    endpoint: Endpoint,
    pub(super) manners: Manners,
    control: Channel,
    /// Blobs have connections of their own, so that a list does not wait behind a layer.
    bulk: Vec<Connection>,
    /// How fast blobs come from there.
    pub(super) link: Arc<Speed>,
    /// Blobs whose bytes were wrong. The host is told before the next read of each.
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

impl RemoteHost {
    /// The host agent at `endpoint`; nothing is connected yet. Must be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint, manners: Manners) -> Self {
        let connection = || Connection { channel: endpoint.channel(), streams: Arc::default() };
        let bulk = std::iter::repeat_with(connection).take(manners.connections.max(1)).collect();
        Self {
            inner: Arc::new(Inner {
                control: endpoint.channel(),
                endpoint,
                manners,
                bulk,
                link: Arc::default(),
                doubted: Mutex::default(),
            }),
        }
    }

    /// Where the host agent listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// What the range that this process is in is to have: the set as it is now, at once, and again
    /// after each change. Ends with an error when the host agent ends or the connection is lost:
    /// whoever wants to go on watching asks again.
    ///
    /// # Errors
    /// Any [`RemoteError`]; refused with the reason `NOT_ALLOWED` where the listener is no range's.
    pub async fn watch_wanted(&self) -> Result<WantedSets, RemoteError> {
        let endpoint = self.inner.endpoint.to_string();
        let error = move |status| {
            RemoteError::new("watching what is wanted", Failure::new(&endpoint, status))
        };
        let watch = || async { self.inner.inventory().watch_wanted(wanted::watch_request()).await };
        let messages = until_answered(BRIEFLY, watch).await.map_err(&error)?;
        Ok(events(messages, |message| wanted::watched(message).map(Some), error))
    }
}

impl Inner {
    pub(super) fn failure(&self, status: tonic::Status) -> Failure {
        Failure::new(&self.endpoint.to_string(), status)
    }

    fn inventory(&self) -> InventoryClient {
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

    /// How fast blobs come from another host, in bytes per second; `None` when that is not known
    /// yet, and within one host, where nothing is compressed.
    pub(super) fn slow_link(&self) -> Option<u64> {
        if self.endpoint.is_within_host() { None } else { self.link.bytes_per_second() }
    }

    /// Asks for the image, as often as it takes; also the lease under which its blobs are read. The
    /// host is told when the caller doubts the blob that it is about to read.
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
    async fn resolve(
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

    /// Whether the blob was doubted since it was last asked so.
    pub(super) fn take_doubt(&self, digest: &Digest) -> bool {
        self.doubted().remove(digest)
    }

    fn doubted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ImageSource for RemoteHost {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        let inner = &self.inner;
        let (mut images, mut token) = (Vec::new(), Some(String::new()));
        while let Some(page_token) = token {
            let page = until_answered(BRIEFLY, || async {
                let mut request = Request::new(inventory::next_page(page_token.clone()));
                request.set_timeout(UNARY_DEADLINE);
                inner.inventory().list_images(request).await
            });
            let page =
                page.await.map_err(|status| status::to_source_error("*", inner.failure(status)))?;
            let (piece, next) = inventory::listed(page)
                .map_err(|malformed| SourceError::unavailable("*", malformed))?;
            // A host that repeats itself would keep us here for ever.
            token = next.filter(|next| *next != page_token);
            images.extend(piece);
        }
        Ok(images)
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let references = std::slice::from_ref(reference);
        // A host that reads a containerd store by `save` knows an image's config only then.
        let mut resolved =
            self.inner.resolve(references, self.inner.manners.image_deadline).await?;
        let only = resolved.pop();
        only.unwrap_or_else(|| Err(SourceError::NotFound { image: reference.to_string() }))
    }

    async fn resolve_all(
        &self,
        references: &[Reference],
    ) -> Vec<Result<ImageSummary, SourceError>> {
        if 1 < references.len() {
            let together = self.inner.resolve(references, TOGETHER_DEADLINE);
            if let Ok(Ok(resolved)) = timeout(TOGETHER_DEADLINE, together).await {
                return resolved;
            }
        }
        join_all(references.iter().map(|reference| self.resolve(reference))).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let (image, loan) = self.inner.image(key, form, None).await?;
        let blobs = RemoteBlobs::new(self.inner.clone(), Asked { key: *key, form }, &image, loan);
        Ok(OpenImage { image, blobs: Arc::new(blobs) })
    }
}
