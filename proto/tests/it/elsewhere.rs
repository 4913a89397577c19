//! A host with one image, whose blobs come from anywhere.

use std::sync::Arc;

use async_trait::async_trait;
use transfer::{
    BlobSource, Image, ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage, Reference,
    SourceError,
};

/// An image whose blobs come from any source.
pub(crate) struct Elsewhere<S> {
    pub(crate) image: Image,
    pub(crate) blobs: Arc<S>,
}

#[async_trait]
impl<S: BlobSource + 'static> ImageSource for Elsewhere<S> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(Vec::new())
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        Err(SourceError::NotFound { image: reference.to_string() })
    }

    async fn open(&self, _: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        Ok(OpenImage { image: self.image.clone(), blobs: self.blobs.clone() })
    }
}
