//! A thin archive made from the archive of `docker save`: it lists all layers and contains the top one.
//!
//! It is the smallest archive that an engine's own `load` accepts. It has both layouts, and so loads
//! on either image store (docs/engines.md).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;
use transfer::Image;

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// An entry of an archive.
#[derive(Clone, Debug)]
enum Entry {
    /// A file with this size in bytes.
    File(u64),
    /// A link to another entry.
    Link(String),
}

/// Makes the archive `thin` of `image`, with only its top layer, from the complete archive `whole`.
///
/// # Errors
/// `whole` is not an archive of that one image.
pub(super) fn archive(whole: &Path, image: &str, thin: &Path) -> Result<()> {
    make(whole, image, thin)
        .with_context(|| format!("making a thin archive of {}", whole.display()))
}

fn make(whole: &Path, name: &str, thin: &Path) -> Result<()> {
    let entries = entries(whole)?;
    let saved: Vec<Saved> = serde_json::from_slice(&read(whole, "manifest.json")?)?;
    let saved = saved.first().context("its manifest.json lists no image")?;
    let config = read(whole, &saved.config)?;
    let places: Vec<(&str, u64)> = saved
        .layers
        .iter()
        .map(|layer| place(&entries, layer))
        .collect::<Option<_>>()
        .context("it lacks a layer")?;
    let sizes: Vec<u64> = places.iter().map(|(_, size)| *size).collect();
    let image = Image::from_layers(config.into(), &sizes)?;
    let blob = |digest: &transfer::Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<String> = image.diff_ids().map(|id| blob(&id.0)).collect();
    let manifest = json!([{
        "Config": blob(&image.config_digest.0), "RepoTags": [name], "Layers": layers,
    }]);
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest.to_string(),
        "size": image.manifest.len(),
        "annotations": {"io.containerd.image.name": format!("docker.io/{name}")},
    }]});
    let mut out = tar::Builder::new(File::create(thin)?);
    append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut out, "index.json", index.to_string().as_bytes())?;
    append(&mut out, "manifest.json", manifest.to_string().as_bytes())?;
    append(&mut out, &blob(&image.manifest_digest), &image.manifest)?;
    append(&mut out, &blob(&image.config_digest.0), &image.config)?;
    let (top, name) = places.last().zip(layers.last()).context("it has no layers")?;
    append(&mut out, name, &read(whole, top.0)?)?;
    Ok(out.into_inner()?.sync_all()?)
}

/// The entry with the bytes of `layer`, and its size. Engines before 25 save a repeated layer as a
/// link.
fn place<'a>(entries: &'a BTreeMap<String, Entry>, layer: &'a str) -> Option<(&'a str, u64)> {
    match entries.get(layer)? {
        Entry::File(size) => Some((layer, *size)),
        Entry::Link(target) => match entries.get_key_value(target)? {
            (name, Entry::File(size)) => Some((name, *size)),
            _ => None,
        },
    }
}

fn entries(archive: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for entry in tar::Archive::new(File::open(archive)?).entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let what = match entry.link_name_bytes() {
            Some(target) => Entry::Link(absolute(&name, &String::from_utf8_lossy(&target))),
            None => Entry::File(entry.size()),
        };
        entries.insert(name, what);
    }
    Ok(entries)
}

/// The target of a link at `name`, such as `../<id>/layer.tar` from one folder below the root.
fn absolute(name: &str, target: &str) -> String {
    match target.strip_prefix("../") {
        Some(rest) => rest.to_owned(),
        None => name
            .rsplit_once('/')
            .map_or_else(|| target.to_owned(), |(folder, _)| format!("{folder}/{target}")),
    }
}

fn read(archive: &Path, name: &str) -> Result<Vec<u8>> {
    for entry in tar::Archive::new(File::open(archive)?).entries_with_seek()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == name.as_bytes() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    anyhow::bail!("it has no {name}")
}

fn append(out: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(0o644);
    Ok(out.append_data(&mut header, name, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append_link(out: &mut tar::Builder<File>, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        out.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn only_the_top_layer_is_inside_and_all_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, thin) = (folder.path().join("whole.tar"), folder.path().join("thin.tar"));
        let digests = [transfer::Digest::of(b"base"), transfer::Digest::of(b"top")];
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digests[0], digests[0], digests[1]]},
        });
        let manifest = json!([{
            "Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
        }]);
        let mut out = tar::Builder::new(File::create(&whole).unwrap());
        append(&mut out, "a/layer.tar", b"base").unwrap();
        append_link(&mut out, "b/layer.tar", "../a/layer.tar");
        append(&mut out, "c/layer.tar", b"top").unwrap();
        append(&mut out, "c.json", config.to_string().as_bytes()).unwrap();
        append(&mut out, "manifest.json", manifest.to_string().as_bytes()).unwrap();
        out.into_inner().unwrap();
        archive(&whole, "x/y:1", &thin).unwrap();
        let names: Vec<String> = entries(&thin).unwrap().into_keys().collect();
        let blob = |digest: &transfer::Digest| format!("blobs/sha256/{}", digest.hex());
        assert!(names.contains(&blob(&digests[1])), "{names:?}");
        assert!(!names.contains(&blob(&digests[0])), "{names:?}");
        let saved: Vec<Saved> =
            serde_json::from_slice(&read(&thin, "manifest.json").unwrap()).unwrap();
        let named = [&digests[0], &digests[0], &digests[1]].map(blob);
        assert_eq!(saved[0].layers, named);
        assert_eq!(read(&thin, &blob(&digests[1])).unwrap(), b"top");
        assert!(archive(&thin, "x", &folder.path().join("no.tar")).is_err(), "a layer is missing");
    }
}
