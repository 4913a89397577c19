//! A host with one image, whose only layer is the blob that is moved.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use transfer::image::InvalidImage;
use transfer::{
    BlobSource, ConfigDigest, Digest, Image, ImageSource, ImageSummary, LayerForm, Reference,
    SourceError,
};

/// The image whose only layer is a blob: the same at both ends, and in every process.
///
/// # Errors
/// Never in practice: the config is made here.
pub fn image_of(digest: Digest, size: u64) -> Result<Image, InvalidImage> {
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    Image::from_layers(Bytes::from(config.to_string()), &[size])
}

/// A host with one image, which has no name.
#[derive(Debug)]
pub struct OneImage<S> {
    /// The image.
    pub image: Image,
    /// Where its blobs are.
    pub blobs: Arc<S>,
}

#[async_trait]
impl<S: BlobSource + 'static> ImageSource for OneImage<S> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(vec![ImageSummary {
            config_digest: self.image.config_digest,
            target_digest: Some(self.image.target_digest()),
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
