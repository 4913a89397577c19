//! The demo's images: an OCI layout with the same bytes each time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use range::Reference;
use serde_json::{Value, json};
use transfer::image::Manifest;
use transfer::{Descriptor, Digest, MediaType};

/// The version of the images: before or after a change of the program in `longshore-demo/web:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edition {
    First,
    Second,
}

/// The content of the layout.
#[derive(Debug)]
pub(super) struct Layout {
    /// The images' names.
    pub(super) references: Vec<Reference>,
    /// All distinct layers.
    pub(super) layers: Vec<Descriptor>,
    /// The layer that all images share.
    pub(super) base: Descriptor,
    /// The layer that differs between editions.
    pub(super) app: Descriptor,
}

/// A layer as stored.
struct Layer {
    blob: Descriptor,
    bytes: Vec<u8>,
    diff_id: Digest,
}

/// Writes the layout to `folder`, or changes it to another edition.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn make(folder: &Path, edition: Edition) -> Result<Layout> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
    let base = layer(&[
        ("etc/os-release", b"NAME=\"Longshore demo\"\nID=longshore\n".to_vec()),
        ("usr/lib/libc.so.6", program(1, 6 << 20)),
        ("usr/bin/busybox", program(2, 2 << 20)),
    ])?;
    let runtime = gzipped(layer(&[
        ("usr/lib/runtime/core.so", program(3, 4 << 20)),
        ("usr/share/doc/runtime/README", "Of the runtime, many words.\n".repeat(40_000).into()),
    ])?)?;
    let (seed, version) = match edition {
        Edition::First => (4, "1.0\n"),
        Edition::Second => (5, "1.1\n"),
    };
    let app =
        layer(&[("srv/web/app", program(seed, 300_000)), ("srv/web/VERSION", version.into())])?;
    let worker = layer(&[("srv/worker/app", program(6, 900_000))])?;
    let database = layer(&[
        ("usr/lib/db/engine", program(7, 5 << 20)),
        ("var/lib/db/seed", program(8, 1 << 20)),
    ])?;

    let images: [(&str, Vec<&Layer>, &str); 3] = [
        ("longshore-demo/web:1", vec![&base, &runtime, &app], "/srv/web/app"),
        ("longshore-demo/worker:1", vec![&base, &runtime, &worker], "/srv/worker/app"),
        ("longshore-demo/db:1", vec![&base, &database], "/usr/lib/db/engine"),
    ];
    let mut children = Vec::new();
    let mut references = Vec::new();
    let mut layers = BTreeMap::new();
    for (name, parts, command) in images {
        let reference: Reference = name.parse().context("parsing an image's name")?;
        for part in &parts {
            write_blob(&blobs, &part.bytes)?;
            layers.insert(part.blob.digest, part.blob.clone());
        }
        children.push(image(&blobs, &reference, &parts, command)?);
        references.push(reference);
    }
    write(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": children });
    write(&folder.join("index.json"), &serde_json::to_vec(&index)?)?;
    let (base, app) = (base.blob, app.blob);
    Ok(Layout { references, layers: layers.into_values().collect(), base, app })
}

/// Writes config and manifest, and returns the image's entry for `index.json`.
fn image(blobs: &Path, reference: &Reference, parts: &[&Layer], command: &str) -> Result<Value> {
    let platform = transfer::Platform::host();
    let diff_ids: Vec<Digest> = parts.iter().map(|part| part.diff_id).collect();
    let config = serde_json::to_vec(&json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Cmd": [command] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))?;
    let manifest = Manifest {
        config: Descriptor::of(MediaType::CONFIG, &config),
        layers: parts.iter().map(|part| part.blob.clone()).collect(),
    };
    let manifest = manifest.encode();
    write_blob(blobs, &config)?;
    write_blob(blobs, manifest.as_bytes())?;
    Ok(json!({
        "mediaType": MediaType::MANIFEST,
        "digest": Digest::of(manifest.as_bytes()),
        "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": reference.canonical() },
    }))
}

/// An uncompressed layer with these files.
fn layer(files: &[(&str, Vec<u8>)]) -> Result<Layer> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content.as_slice()).context("making a layer")?;
    }
    let bytes = tar.into_inner().context("making a layer")?;
    let blob = Descriptor::of(MediaType::LAYER, &bytes);
    Ok(Layer { diff_id: blob.digest, blob, bytes })
}

/// The same layer compressed with gzip, as in registries.
fn gzipped(layer: Layer) -> Result<Layer> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer.bytes).context("compressing a layer")?;
    let bytes = gzip.finish().context("compressing a layer")?;
    let media_type = format!("{}+gzip", MediaType::LAYER);
    Ok(Layer { blob: Descriptor::of(&media_type, &bytes), bytes, diff_id: layer.diff_id })
}

/// Bytes that compress as little as a program does, the same for each seed.
fn program(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; size];
    for word in bytes.chunks_mut(8) {
        // xorshift64*: any generator works, as long as it never changes.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        word.copy_from_slice(&random[..word.len()]);
    }
    bytes
}

fn write_blob(blobs: &Path, bytes: &[u8]) -> Result<()> {
    let path = blobs.join(Digest::of(bytes).hex());
    if path.exists() { Ok(()) } else { write(&path, bytes) }
}

/// Replaces a file atomically, since the host agent may read the folder at the same time.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editions_differ_in_one_layer_and_are_reproducible() {
        let folder = tempfile::tempdir().unwrap();
        let first = make(folder.path(), Edition::First).unwrap();
        let second = make(folder.path(), Edition::Second).unwrap();
        let changed = second.layers.iter().filter(|layer| !first.layers.contains(layer));
        assert_eq!(changed.collect::<Vec<_>>(), [&second.app]);
        assert_eq!(first.base, second.base);
        let again = make(folder.path(), Edition::First).unwrap();
        assert_eq!(again.layers, first.layers);
        for entry in folder.path().join("blobs/sha256").read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name);
        }
    }
}
