//! The blobs that `index.json` reaches. None of them may be discarded.

use std::collections::HashSet;

use bytes::Bytes;
use transfer::image::{MAX_MANIFEST, Manifest, parse_index};
use transfer::{Digest, explain};

use super::catalog::Documents;
use super::index;

/// Maximum depth of indexes, as for choosing a platform.
const MAX_DEPTH: usize = 4;

/// Most documents that are read; a folder with more is left as it is.
const MAX_DOCUMENTS: usize = 100_000;

/// Every blob that can be reached from `index`.
///
/// # Errors
/// Why that cannot be told: then nothing may be discarded.
pub(super) fn reachable(
    index: &[u8],
    documents: &dyn Documents,
) -> Result<HashSet<Digest>, String> {
    let mut reached = HashSet::new();
    let children = index::children(index).map_err(|error| explain(&error))?;
    let mut level: Vec<_> = children.into_iter().map(|child| child.entry).collect();
    for _ in 0..=MAX_DEPTH {
        let mut below = Vec::new();
        for entry in level {
            let digest = entry.descriptor.digest;
            if !reached.insert(digest) {
                continue;
            }
            if MAX_DOCUMENTS < reached.len() {
                return Err(format!("it has more than {MAX_DOCUMENTS} blobs"));
            }
            // A child that is not there reaches nothing here; indexes are often kept without the
            // images of other platforms.
            let Some(bytes) = read(documents, &digest)? else { continue };
            if entry.is_index() {
                below.extend(parse_index(&bytes).map_err(|error| explain(&error))?);
            } else {
                let manifest = Manifest::parse(&bytes).map_err(|error| explain(&error))?;
                reached.insert(manifest.config.digest);
                reached.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        if below.is_empty() {
            return Ok(reached);
        }
        level = below;
    }
    Err(format!("its indexes nest deeper than {MAX_DEPTH}"))
}

fn read(documents: &dyn Documents, digest: &Digest) -> Result<Option<Bytes>, String> {
    let read = documents.read(digest, MAX_MANIFEST);
    read.map_err(|error| format!("blob {digest} could not be read: {error}"))
}
