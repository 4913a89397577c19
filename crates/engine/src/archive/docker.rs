//! `manifest.json`, the table of contents of what `docker save` writes.
//!
//! ```text
//! [{"Config":"<hex>.json", "RepoTags":["python:3"], "Layers":["<id>/layer.tar", …]}, …]
//! ```
//! A layer is the file at its place in `Layers`, or a blob that is named by the diff ID at that
//! place of the config, where there is one (engine 25.0 wrote wrong places). It is uncompressed, and
//! then its digest is that diff ID; or it is gzip or zstd, and then its digest shows once it was
//! hashed. Whoever reads it verifies it. Spec: Docker's image specification v1.3.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use layer::tar::Index;
use serde::Deserialize;
use transfer::image::{ConfigFile, MAX_CONFIG, MAX_MANIFEST, Manifest};
use transfer::{ConfigDigest, Descriptor, DiffId, Digest, Image, MediaType, Reference, explain};

use crate::file_blob::FileBlob;

/// The name of the table of contents.
pub(super) const MANIFEST: &str = "manifest.json";

/// Most images of one file.
const MAX_IMAGES: usize = 10_000;

/// The compression of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer in its place.
#[derive(Clone, Debug)]
pub(super) struct SavedLayer {
    pub(super) diff_id: DiffId,
    pub(super) packing: Packing,
    pub(super) span: FileBlob,
}

/// An image as `manifest.json` tells of it.
#[derive(Clone, Debug)]
pub(super) struct SavedImage {
    pub(super) config: Bytes,
    pub(super) file: ConfigFile,
    pub(super) layers: Vec<SavedLayer>,
    pub(super) references: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Every image of a save.
///
/// # Errors
/// A text that says what is wrong with the table of contents, or with an image of it.
pub(super) fn images(archive: &FileBlob, entries: &Index) -> Result<Vec<SavedImage>, String> {
    let bytes = document(archive, entries, MANIFEST, MAX_MANIFEST)?;
    let items: Vec<Item> = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{MANIFEST} cannot be read: {error}"))?;
    if MAX_IMAGES < items.len() {
        return Err(format!("{MANIFEST} has {} images", items.len()));
    }
    items.into_iter().map(|item| image(archive, entries, item)).collect()
}

fn image(archive: &FileBlob, entries: &Index, item: Item) -> Result<SavedImage, String> {
    let config = document(archive, entries, &item.config, MAX_CONFIG)?;
    if let Some(named) = named_digest(&item.config)
        && named != Digest::of(&config)
    {
        return Err(format!("config {named} has other content"));
    }
    let file = ConfigFile::parse(&config).map_err(|error| explain(&error))?;
    let layers = item.layers.unwrap_or_default();
    if layers.len() != file.diff_ids.len() {
        return Err(format!(
            "{MANIFEST} has {} layers for the {} diff IDs of {}",
            layers.len(),
            file.diff_ids.len(),
            shown(&item.config)
        ));
    }
    let layers = file.diff_ids.iter().zip(&layers);
    let layers = layers.map(|(diff_id, path)| layer(archive, entries, *diff_id, path));
    let layers = layers.collect::<Result<_, _>>()?;
    let references =
        item.repo_tags.unwrap_or_default().iter().filter_map(|tag| reference(tag)).collect();
    Ok(SavedImage { config, file, layers, references })
}

fn layer(
    archive: &FileBlob,
    entries: &Index,
    diff_id: DiffId,
    path: &str,
) -> Result<SavedLayer, String> {
    let by_diff_id = entries.file(&format!("blobs/sha256/{}", diff_id.0.hex()));
    let (start, size) = by_diff_id
        .or_else(|| entries.file(path))
        .ok_or_else(|| format!("layer {} is not in the file", shown(path)))?;
    let span = FileBlob { file: archive.file.clone(), start, size };
    let packing = packing(&span).map_err(|error| format!("layer {}: {error}", shown(path)))?;
    Ok(SavedLayer { diff_id, packing, span })
}

/// The name of a `RepoTags` entry. One that is no name is left out: the image is there without it.
fn reference(tag: &str) -> Option<Reference> {
    let parsed: Result<Reference, _> = tag.parse();
    match parsed {
        // `docker save` always writes the tag; what has none is a guess.
        Ok(reference) if tag.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            Some(reference)
        }
        _ => {
            tracing::warn!(name = shown(tag), "a name in the archive is no full image name");
            None
        }
    }
}

/// The digest in a config's path, as engines write it; other tools write other paths.
fn named_digest(path: &str) -> Option<Digest> {
    let name = path.strip_prefix("blobs/sha256/").unwrap_or(path);
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)).ok()
}

fn document(
    archive: &FileBlob,
    entries: &Index,
    path: &str,
    limit: usize,
) -> Result<Bytes, String> {
    let (start, size) =
        entries.file(path).ok_or_else(|| format!("{} is not in the file", shown(path)))?;
    if (limit as u64) < size {
        return Err(format!("{} has {size} bytes, at most {limit} are read", shown(path)));
    }
    let span = FileBlob { file: archive.file.clone(), start, size };
    span.read_all().map_err(|error| format!("{} could not be read: {error}", shown(path)))
}

fn packing(span: &FileBlob) -> io::Result<Packing> {
    let mut magic = [0; 6];
    let len = usize::try_from(span.size).unwrap_or(6).min(6);
    span.file.read_exact_at(&mut magic[..len], span.start)?;
    match magic {
        [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Packing::Zstd),
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is compressed by bzip2 or xz, which no manifest can tell",
        )),
        _ => Ok(Packing::Plain),
    }
}

impl SavedImage {
    /// The image's name across engines.
    pub(super) fn config_digest(&self) -> ConfigDigest {
        ConfigDigest(Digest::of(&self.config))
    }

    /// Whether every layer's digest is known without reading it.
    pub(super) fn is_plain(&self) -> bool {
        self.layers.iter().all(|layer| layer.packing == Packing::Plain)
    }

    /// The image with a synthesised manifest, and its layers by digest. Compressed layers are read once
    /// to the end for that.
    ///
    /// # Errors
    /// A text that says what is wrong with it, or the system's own message.
    pub(super) fn whole(&self) -> Result<(Image, Vec<(Digest, FileBlob)>), String> {
        let mut spans = Vec::new();
        let mut layers = Vec::new();
        for layer in &self.layers {
            let (media_type, digest) = match layer.packing {
                Packing::Plain => (MediaType::LAYER.to_owned(), layer.diff_id.0),
                Packing::Gzip => (format!("{}+gzip", MediaType::LAYER), hash(&layer.span)?),
                Packing::Zstd => (format!("{}+zstd", MediaType::LAYER), hash(&layer.span)?),
            };
            let media_type = MediaType::new(media_type);
            layers.push(Descriptor { media_type, digest, size: layer.span.size });
            spans.push((digest, layer.span.clone()));
        }
        // The same bytes as `Image::from_layers` makes where every layer is plain.
        let manifest = Manifest { config: Descriptor::of(MediaType::CONFIG, &self.config), layers };
        let image = Image::parse(manifest.encode().into(), self.config.clone());
        Ok((image.map_err(|error| explain(&error))?, spans))
    }

    /// Bytes of the unpacked layers; 0 where some are compressed.
    pub(super) fn unpacked_size(&self) -> u64 {
        let size = self.layers.iter().map(|layer| layer.span.size).fold(0, u64::saturating_add);
        if self.is_plain() { size } else { 0 }
    }
}

fn hash(span: &FileBlob) -> Result<Digest, String> {
    span.digest().map_err(|error| format!("a compressed layer could not be read: {error}"))
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// The file of a save as one blob, for its parts to share.
pub(super) fn whole_file(file: std::fs::File, size: u64) -> FileBlob {
    FileBlob { file: Arc::new(file), start: 0, size }
}
