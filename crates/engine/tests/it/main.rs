//! The engine crate against a Docker engine: the fixture's everywhere, real ones where named.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod export;
mod sink;

use transfer::{Image, Layer};

/// An image of layers that other images have too; its config is made from their diff IDs.
fn image_of(layers: &[Layer]) -> Image {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let sizes: Vec<_> = layers.iter().map(|layer| layer.blob.size).collect();
    Image::from_layers(config.to_string().into(), &sizes).unwrap()
}
