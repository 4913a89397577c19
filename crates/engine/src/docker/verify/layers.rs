//! An image's layers out of the engine's save: each hashed to its diff ID, its files recorded.
//!
//! The save's own documents are not believed: a layer is whatever hashes to a diff ID that the image
//! has. So it does not matter which of its forms a save has, nor in which order the layers come.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead as _, BufReader, Read};

use flate2::read::MultiGzDecoder;
use layer::tar::{Kind, Reader, Rules, TarError};
use layer::tree::{Budget, Layer, Tree, read_layer};
use transfer::{DiffId, digest::Hasher};

use super::feed::BROKEN;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A layer's files, or why they could not be read.
type Outcome = Result<Layer, String>;

/// Layers that were read.
type Layers = HashMap<DiffId, Outcome>;

/// The root that a save's layers make up, and what is wrong with them. No root where a layer is not
/// there.
pub(super) fn root(save: impl Read, diff_ids: &[DiffId]) -> (Option<Tree>, Vec<String>) {
    let wanted: HashSet<DiffId> = diff_ids.iter().copied().collect();
    let mut layers = Layers::new();
    let mut problems = Vec::new();
    if let Err(error) = read_save(save, &wanted, &mut layers) {
        problems.push(format!("the engine's save of the image broke off: {error}"));
    }
    let tree = stack(layers, diff_ids, &mut problems);
    (tree, problems)
}

/// Puts the layers on top of each other, the base first.
fn stack(mut layers: Layers, diff_ids: &[DiffId], problems: &mut Vec<String>) -> Option<Tree> {
    let mut tree = Tree::default();
    let mut whole = true;
    for (position, diff_id) in diff_ids.iter().enumerate() {
        // The same layer may stand in several places.
        let last = !diff_ids[position + 1..].contains(diff_id);
        let layer = if last { layers.remove(diff_id) } else { layers.get(diff_id).cloned() };
        let applied = match layer {
            None => Err("the engine has it no more, or with other bytes".to_owned()),
            Some(layer) => layer.and_then(|layer| tree.apply(layer).map_err(|e| e.to_string())),
        };
        if let Err(reason) = applied {
            whole = false;
            let (number, of) = (position + 1, diff_ids.len());
            problems.push(format!("layer {number} of {of}, {diff_id}: {reason}"));
        }
    }
    whole.then_some(tree)
}

fn read_save(
    save: impl Read,
    wanted: &HashSet<DiffId>,
    layers: &mut Layers,
) -> Result<(), TarError> {
    let mut budget = Budget::default();
    let mut save = Reader::new(save, Rules::Lenient);
    while let Some(entry) = save.next_entry()? {
        if entry.kind != Kind::File || !may_be_layer(&entry.path) {
            continue;
        }
        let Some((diff_id, layer)) = read_blob(&mut save, &mut budget)? else { continue };
        let is_new = wanted.contains(&diff_id) && !layers.contains_key(&diff_id);
        match layer {
            Ok(layer) if !is_new => budget.forget(&layer),
            layer if is_new => drop(layers.insert(diff_id, layer)),
            _ => {}
        }
    }
    Ok(())
}

/// `blobs/<algorithm>/<hex>` of an OCI layout, or `<id>/layer.tar` of the older form.
fn may_be_layer(path: &[u8]) -> bool {
    path.starts_with(b"blobs/") || path.ends_with(b"/layer.tar")
}

/// What a blob is when it is uncompressed, and its files; `None` where it is a document.
fn read_blob(
    blob: &mut impl Read,
    budget: &mut Budget,
) -> Result<Option<(DiffId, Outcome)>, TarError> {
    let mut blob = BufReader::with_capacity(64 << 10, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(b"{") {
        return Ok(None);
    }
    let mut hashing = Hashing { input: decoder(blob)?, hasher: Hasher::default(), failed: None };
    let layer = read_layer(&mut hashing, budget).map_err(|error| error.to_string());
    // What follows an archive's end belongs to the layer's digest too.
    let rest = io::copy(&mut hashing, &mut io::sink());
    let layer = layer.and_then(|layer| rest.map(|_| layer).map_err(|error| error.to_string()));
    match hashing.failed {
        None => {}
        // The stream from the engine broke.
        Some((kind @ BROKEN, text)) => return Err(io::Error::new(kind, text).into()),
        // It cannot be decompressed, so it is no layer; one that should be is told as missing.
        Some(_) => return Ok(None),
    }
    Ok(Some((DiffId(hashing.hasher.digest()), layer)))
}

/// Decompresses what its first bytes say is compressed.
fn decoder<'a>(mut blob: BufReader<impl Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let start = blob.fill_buf()?;
    if start.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(blob)));
    }
    if start.starts_with(ZSTD) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(blob)?));
    }
    Ok(Box::new(blob))
}

/// Hashes what is read, and remembers why it could not be.
struct Hashing<R> {
    input: R,
    hasher: Hasher,
    failed: Option<(io::ErrorKind, String)>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer);
        let read =
            read.inspect_err(|error| self.failed = Some((error.kind(), error.to_string())))?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
#[path = "layers/tests.rs"]
mod tests;
