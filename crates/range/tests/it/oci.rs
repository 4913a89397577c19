//! The same images as an OCI layout: compressed layers, under a manifest that is a registry's.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use transfer::Digest;

use crate::images::{Made, tar};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image as a registry would have it.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The image's own manifest.
    pub(crate) manifest: Digest,
    /// The blobs of the image: manifest, config, layers.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// Every file of the layout by its path.
    files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// The layout of one image, under its reference.
    pub(crate) fn of(image: &Made) -> Self {
        Self::with_padding(image, 0)
    }

    /// As [`of`](Self::of), with a manifest that is larger by so many bytes.
    pub(crate) fn with_padding(image: &Made, padding: usize) -> Self {
        let layers: Vec<Vec<u8>> = image.layers.iter().map(|layer| gzip(layer)).collect();
        let descriptors: Vec<Value> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &image.config),
            "layers": descriptors,
            // A made-up manifest would not have these: only the original is this one.
            "annotations": {"dev.longshore.test": "original", "padding": " ".repeat(padding)},
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut top = descriptor(MANIFEST, &manifest);
        let name = format!("docker.io/{}", image.reference);
        top["platform"] = json!({"os": "linux", "architecture": "amd64"});
        top["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
        let digest = Digest::of(&manifest);
        let blobs: Vec<Vec<u8>> =
            [manifest, image.config.clone()].into_iter().chain(layers).collect();
        let path = |blob: &Vec<u8>| format!("blobs/sha256/{}", Digest::of(blob).hex());
        let mut files: Vec<_> = blobs.iter().map(|blob| (path(blob), blob.clone())).collect();
        files.push(("oci-layout".into(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()));
        files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
        Self { manifest: digest, blobs, files }
    }

    /// Bytes of the layers, as they are stored.
    pub(crate) fn layers_size(&self) -> u64 {
        self.blobs[2..].iter().map(|layer| layer.len() as u64).sum()
    }

    /// Writes it as a folder.
    pub(crate) fn write(&self, folder: &Path) {
        for (path, content) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    /// It as a tar archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(path, content)| (path.as_str(), content.as_slice()));
        tar(&files.collect::<Vec<_>>())
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len()})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
