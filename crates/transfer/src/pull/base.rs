//! What several images have in common, as an image of its own: so that it goes into an engine first.
//!
//! An engine sees a load's layers only when the load is done, and takes one only as part of an
//! image. So the common base is made into one: a config with the first diff IDs and nothing else.
//! It never gets a name, carries a label by which it is known, and is removed when all is in.

use bytes::Bytes;
use serde_json::json;

use crate::descriptor::{Descriptor, MediaType};
use crate::image::{Image, InvalidImage, Manifest};

/// The label of images that were made up here. One that is found in an engine while nothing is being
/// loaded was left by a pull that was killed.
pub const BASE_LABEL: &str = "dev.longshore.base";

/// The first `depth` layers of `image` as an image.
///
/// # Errors
/// [`InvalidImage`]: never for a depth that the image has.
pub(super) fn base_of(image: &Image, depth: usize) -> Result<Image, InvalidImage> {
    let layers = &image.layers[..depth.min(image.layers.len())];
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    let mut config = json!({
        "architecture": image.platform.architecture,
        "os": image.platform.os,
        "config": { "Labels": { BASE_LABEL: "1" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    if let Some(variant) = &image.platform.variant {
        config["variant"] = json!(variant);
    }
    let config = Bytes::from(config.to_string());
    let manifest = Manifest {
        config: Descriptor::of(MediaType::CONFIG, &config),
        layers: layers.iter().map(|layer| layer.blob.clone()).collect(),
    };
    Image::parse(manifest.encode().into(), config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_base_has_the_first_layers_and_is_the_same_for_all_who_share_them() {
        let (first, _) = fixture::image(1, &[10, 20, 30]);
        let (second, _) = fixture::image(1, &[10, 20, 40, 50]);
        let base = base_of(&first, 2).unwrap();
        assert_eq!(base.layers, first.layers[..2]);
        assert_eq!(base, base_of(&second, 2).unwrap());
        assert_ne!(base.config_digest, base_of(&first, 1).unwrap().config_digest);
        assert!(std::str::from_utf8(&base.config).unwrap().contains(BASE_LABEL));
    }
}
