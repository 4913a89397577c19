//! A data-root as an engine leaves it, in a temporary folder, beside an engine that knows its
//! images.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use transfer::{ChainId, ConfigDigest, Descriptor, DiffId, Digest, Image, StoreKind, fixture};

use crate::docker::read::overlay2::Overlay2Files;
use crate::fixture::FakeDocker;

/// A part of a layer's tar.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Headers and padding.
    Bytes(Bytes),
    /// A file by name, and its content.
    File(Vec<u8>, Bytes),
}

/// An engine and its files.
pub(super) struct Root {
    pub(super) docker: FakeDocker,
    folder: tempfile::TempDir,
}

impl Root {
    pub(super) fn new() -> Self {
        let root = Self {
            docker: FakeDocker::start(StoreKind::Graphdriver),
            folder: tempfile::tempdir().unwrap(),
        };
        for folder in
            ["image/overlay2/imagedb/content/sha256", "image/overlay2/layerdb", "overlay2"]
        {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        root
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) async fn open(&self) -> Overlay2Files {
        let docker = self.docker.connect().await;
        Overlay2Files::open(docker, self.path().to_owned()).await.unwrap()
    }

    /// Puts an image of these layers in, and gives its name.
    pub(super) fn add(&self, layers: &[Vec<Part>]) -> Image {
        let blobs: Vec<_> = layers.iter().map(|parts| tar(parts)).collect();
        let blobs: Vec<(Descriptor, Bytes)> =
            blobs.into_iter().map(|tar| (fixture::descriptor_of(&tar), tar)).collect();
        let diff_ids: Vec<_> = blobs.iter().map(|(blob, _)| DiffId(blob.digest)).collect();
        let config = config(&diff_ids);
        let sizes: Vec<_> = blobs.iter().map(|(blob, _)| blob.size).collect();
        let image = Image::from_layers(config.clone(), &sizes).unwrap();
        self.docker.add(&image, &blobs, &"app:1".parse().unwrap());
        self.keep_config(&config);
        for ((chain_id, diff_id), parts) in
            ChainId::chain(&diff_ids).iter().zip(&diff_ids).zip(layers)
        {
            self.keep_layer(chain_id, diff_id, parts);
        }
        image
    }

    pub(super) fn keep_config(&self, config: &[u8]) -> ConfigDigest {
        let digest = Digest::of(config);
        std::fs::write(self.config(&ConfigDigest(digest)), config).unwrap();
        ConfigDigest(digest)
    }

    pub(super) fn keep_layer(&self, chain_id: &ChainId, diff_id: &DiffId, parts: &[Part]) {
        let folder = self.layer(chain_id);
        std::fs::create_dir_all(&folder).unwrap();
        let cache_id = Digest::of(chain_id.to_string().as_bytes()).hex();
        std::fs::write(folder.join("cache-id"), &cache_id).unwrap();
        std::fs::write(folder.join("diff"), diff_id.to_string()).unwrap();
        self.keep_split(chain_id, &split(parts));
        let diff = self.diff(chain_id);
        std::fs::create_dir_all(&diff).unwrap();
        for part in parts {
            if let Part::File(name, content) = part {
                use std::os::unix::ffi::OsStrExt as _;
                let path = diff.join(std::ffi::OsStr::from_bytes(name));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
        }
    }

    /// Writes a layer's tar-split file.
    pub(super) fn keep_split(&self, chain_id: &ChainId, lines: &str) {
        std::fs::write(self.split(chain_id), gzip(lines.as_bytes())).unwrap();
    }

    pub(super) fn config(&self, config_digest: &ConfigDigest) -> PathBuf {
        let configs = self.path().join("image/overlay2/imagedb/content/sha256");
        configs.join(config_digest.0.hex())
    }

    pub(super) fn layer(&self, chain_id: &ChainId) -> PathBuf {
        self.path().join("image/overlay2/layerdb/sha256").join(chain_id.0.hex())
    }

    pub(super) fn split(&self, chain_id: &ChainId) -> PathBuf {
        self.layer(chain_id).join("tar-split.json.gz")
    }

    pub(super) fn diff(&self, chain_id: &ChainId) -> PathBuf {
        let cache_id = Digest::of(chain_id.to_string().as_bytes()).hex();
        self.path().join("overlay2").join(cache_id).join("diff")
    }
}

/// A config of that many layers.
pub(super) fn config(diff_ids: &[DiffId]) -> Bytes {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into()
}

/// The parts as the tar that they are of.
pub(super) fn tar(parts: &[Part]) -> Bytes {
    let bytes = parts.iter().map(|part| match part {
        Part::Bytes(bytes) | Part::File(_, bytes) => bytes.to_vec(),
    });
    bytes.collect::<Vec<_>>().concat().into()
}

/// The parts as the lines of a tar-split file.
pub(super) fn split(parts: &[Part]) -> String {
    let line = |(position, part): (usize, &Part)| {
        let entry = match part {
            Part::Bytes(bytes) => {
                serde_json::json!({ "type": 2, "payload": STANDARD.encode(bytes), "position": position })
            }
            Part::File(name, content) => {
                let key = if std::str::from_utf8(name).is_ok() { "name" } else { "name_raw" };
                let name =
                    String::from_utf8(name.clone()).unwrap_or_else(|_| STANDARD.encode(name));
                let sum = STANDARD.encode([1; 8]);
                serde_json::json!({
                    "type": 1, key: name, "size": content.len(), "payload": sum, "position": position,
                })
            }
        };
        format!("{entry}\n")
    };
    parts.iter().enumerate().map(line).collect()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
