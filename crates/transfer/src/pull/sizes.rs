//! The sizes of images, remembered for those that are not opened again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::image::Image;
use crate::source::{ImageKey, ImageSummary};

/// Most images whose size is remembered.
const MAX_SIZES: usize = 4096;

/// Bytes of images' layers.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<ImageKey, u64>>);

impl Sizes {
    pub(super) fn remember(&self, key: ImageKey, image: &Image) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if MAX_SIZES <= sizes.len() {
            sizes.clear();
        }
        sizes.insert(key, size(image));
    }

    /// Bytes of an image's layers: as counted when it was opened, else as the source says.
    pub(super) fn of(&self, summary: &ImageSummary) -> u64 {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(&summary.key()).copied().unwrap_or(summary.unpacked_size)
    }
}

/// Bytes of an image's layers.
pub(super) fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.blob.size).sum()
}
