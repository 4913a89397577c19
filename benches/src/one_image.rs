//! An image source with one image, whose only layer is the benched blob.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use transfer::image::InvalidImage;
use transfer::{
    BlobSource, Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage,
    Reference, SourceError,
};

/// Builds the image whose only layer is the blob `digest`, identical in every process.
///
/// # Errors
/// Never in practice, since the config is valid.
pub fn image_of(digest: Digest, size: u64) -> Result<Image, InvalidImage> {
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    Image::from_layers(Bytes::from(config.to_string()), &[size])
}

/// A source with one image without a name.
#[derive(Debug)]
pub struct OneImage<S> {
    /// The image.
    pub image: Image,
    /// The source of its blobs.
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

    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let image = &self.image;
        match key.names(&image.config_digest, &image.target_digest()) {
            true => Ok(OpenImage { image: image.clone(), blobs: self.blobs.clone() }),
            false => Err(key.not_found()),
        }
    }
}
