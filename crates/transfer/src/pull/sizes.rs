//! What images come to, remembered for those that are not asked for again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::digest::ConfigDigest;
use crate::image::Image;
use crate::source::ImageSummary;

/// Images of which the size is remembered.
const MAX_SIZES: usize = 4096;

/// Bytes of images' layers.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<ConfigDigest, u64>>);

impl Sizes {
    pub(super) fn remember(&self, image: &Image) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if MAX_SIZES <= sizes.len() {
            sizes.clear();
        }
        sizes.insert(image.config_digest, size(image));
    }

    /// What the layers of an image come to: as counted when it was asked for, else as the source
    /// says.
    pub(super) fn of(&self, summary: &ImageSummary) -> u64 {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(&summary.config_digest).copied().unwrap_or(summary.unpacked_size)
    }
}

/// Bytes of an image's layers.
pub(super) fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.blob.size).sum()
}
