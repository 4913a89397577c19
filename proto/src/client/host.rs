//! A host agent as a source of images: what it lists, resolves and lends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::timeout;
use tonic::Request;
use transfer::{ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage, Reference, SourceError};

use super::calls::Calls;
pub use super::calls::Manners;
use super::paging::Pages;
use super::reading::{Asked, RemoteBlobs};
use super::retry::{BRIEFLY, until_answered};
use crate::channel::Endpoint;
use crate::convert::{inventory, status};
use crate::wire::UNARY_DEADLINE;

/// Deadline for resolving many references in one call. A host that has to export an image to
/// resolve it takes longer; that image is then resolved in its own call, so that the others need
/// not wait.
const TOGETHER_DEADLINE: Duration = Duration::from_millis(500);

/// The host behind an endpoint. Connects when it is first asked, and again by itself.
#[derive(Clone, Debug)]
pub struct RemoteHost {
    calls: Arc<Calls>,
}

impl RemoteHost {
    /// The host agent at `endpoint`; nothing is connected yet. Must be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint, manners: Manners) -> Self {
        Self { calls: Arc::new(Calls::new(endpoint, manners)) }
    }

    /// Endpoint of the host agent.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.calls.endpoint()
    }
}

#[async_trait]
impl ImageSource for RemoteHost {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        let calls = &self.calls;
        let (mut images, mut pages) = (Vec::new(), Pages::new());
        while let Some(page_token) = pages.token() {
            let page = until_answered(BRIEFLY, || async {
                let mut request = Request::new(inventory::next_page(page_token.clone()));
                request.set_timeout(UNARY_DEADLINE);
                calls.inventory().list_images(request).await
            });
            let page =
                page.await.map_err(|status| status::to_source_error("*", calls.failure(status)))?;
            let (piece, next) = inventory::listed(page)
                .map_err(|malformed| SourceError::unavailable("*", malformed))?;
            pages.read(next).map_err(|endless| SourceError::unavailable("*", endless))?;
            images.extend(piece);
        }
        Ok(images)
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let references = std::slice::from_ref(reference);
        // A host that reads a containerd store by `save` knows an image's config only then.
        let mut resolved =
            self.calls.resolve(references, self.calls.manners.image_deadline).await?;
        let only = resolved.pop();
        only.unwrap_or_else(|| Err(SourceError::NotFound { image: reference.to_string() }))
    }

    async fn resolve_all(
        &self,
        references: &[Reference],
    ) -> Vec<Result<ImageSummary, SourceError>> {
        if 1 < references.len() {
            let together = self.calls.resolve(references, TOGETHER_DEADLINE);
            if let Ok(Ok(resolved)) = timeout(TOGETHER_DEADLINE, together).await {
                return resolved;
            }
        }
        join_all(references.iter().map(|reference| self.resolve(reference))).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let (image, loan) = self.calls.image(key, form, None).await?;
        let blobs = RemoteBlobs::new(self.calls.clone(), Asked { key: *key, form }, &image, loan);
        Ok(OpenImage { image, blobs: Arc::new(blobs) })
    }
}
