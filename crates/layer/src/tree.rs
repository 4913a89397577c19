//! The root of an image: a record for each path, built layer by layer.
//!
//! Layers are applied as engines do it. Whiteouts remove paths of lower layers, a file in a folder's
//! place removes the folder's content, and paths follow the links that are there.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#applying-changesets>.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::mem::size_of;

use transfer::{Digest, digest::Hasher};

use crate::tar::{Entry, Kind, Path, Reader, Rules, TarError, clean};

/// Most bytes that the records of one image may take in memory: some two million files.
const MAX_BYTES: usize = 512 << 20;

/// Most links that a path may lead through, as Linux has it.
const MAX_LINKS: usize = 40;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File {
        /// Bytes of content.
        size: u64,
        /// The content's digest.
        digest: Digest,
    },
    /// A file whose content is not compared; see [`Kind::Sparse`].
    Sparse,
    /// A folder.
    Folder,
    /// A symbolic link to this path.
    Symlink(Path),
    /// The same file as at this other path. Only layers have it.
    HardLink(Path),
    /// A device, a pipe or something rarer.
    Other {
        /// Its type flag.
        flag: u8,
        /// Major and minor number of a device.
        device: (u64, u64),
    },
}

/// An entry of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub what: What,
    /// Permission bits, set-uid and the like included.
    pub mode: u16,
    /// User and group.
    pub owner: (u64, u64),
}

/// The records of one layer in their order, whiteouts included.
pub type Layer = Vec<(Path, Record)>;

/// Why a layer cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its archive cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Its entries make no root.
    #[error("{0}")]
    Entry(String),
    /// The image has more files than this host keeps records of.
    #[error("it has more files than can be checked")]
    TooManyFiles,
}

impl From<std::io::Error> for LayerError {
    fn from(error: std::io::Error) -> Self {
        Self::Tar(error.into())
    }
}

impl LayerError {
    fn entry(reason: &str) -> Self {
        Self::Entry(reason.to_owned())
    }
}

/// Bytes of records that may still be kept.
#[derive(Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_BYTES)
    }
}

impl Budget {
    fn take(&mut self, path: &[u8], record: &Record) -> Result<(), LayerError> {
        let left = self.0.checked_sub(cost(path, record));
        self.0 = left.ok_or(LayerError::TooManyFiles)?;
        Ok(())
    }

    /// Gives back the bytes of a layer that is not needed.
    pub fn forget(&mut self, layer: &Layer) {
        self.0 += layer.iter().map(|(path, record)| cost(path, record)).sum::<usize>();
    }
}

/// A record in a layer and in the tree, and its path once more while the layer is applied.
fn cost(path: &[u8], record: &Record) -> usize {
    let link = match &record.what {
        What::Symlink(target) | What::HardLink(target) => target.len(),
        _ => 0,
    };
    2 * (size_of::<(Path, Record)>() + path.len() + link) + size_of::<Path>() + path.len()
}

/// Reads a layer's archive to its end.
///
/// # Errors
/// Any [`LayerError`].
pub fn read_layer(archive: impl Read, budget: &mut Budget) -> Result<Layer, LayerError> {
    let mut reader = Reader::new(archive, Rules::Lenient);
    let mut layer = Layer::new();
    while let Some(entry) = reader.next_entry()? {
        let Some(path) = clean(&entry.path).map_err(LayerError::Entry)? else { continue };
        let record = record(&entry, &mut reader)?;
        budget.take(&path, &record)?;
        layer.push((path, record));
    }
    Ok(layer)
}

/// The record of an entry, whose content is read and hashed.
///
/// # Errors
/// Any [`LayerError`].
pub fn record(entry: &Entry, content: &mut impl Read) -> Result<Record, LayerError> {
    let what = match entry.kind {
        Kind::File => What::File { size: entry.size, digest: hash(content)? },
        Kind::Sparse => What::Sparse,
        Kind::Folder => What::Folder,
        Kind::Symlink => What::Symlink(entry.link.clone().into()),
        Kind::HardLink => {
            let target = clean(&entry.link).map_err(LayerError::Entry)?;
            What::HardLink(target.ok_or_else(|| LayerError::entry("a hard link to the root"))?)
        }
        Kind::Other(flag) => What::Other { flag, device: entry.device },
    };
    Ok(Record { what, mode: entry.mode, owner: (entry.uid, entry.gid) })
}

fn hash(content: &mut impl Read) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = [0; 32 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hasher.digest()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The root of a stack of layers.
#[derive(Debug, Default)]
pub struct Tree {
    records: BTreeMap<Path, Record>,
}

impl Tree {
    /// The record of a path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Record> {
        self.records.get(path)
    }

    /// All records, in the order of paths.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Record)> {
        self.records.iter()
    }

    /// Applies a layer on top of those before.
    ///
    /// # Errors
    /// [`LayerError::Entry`].
    pub fn apply(&mut self, layer: Layer) -> Result<(), LayerError> {
        // A whiteout is about lower layers only, wherever in its layer it stands.
        let mut own = HashSet::new();
        for (path, record) in layer {
            match name(&path).strip_prefix(WHITEOUT) {
                Some(hidden) => self.white_out(parent(&path), hidden, &own)?,
                None => drop(own.insert(self.put(&path, record)?)),
            }
        }
        Ok(())
    }

    fn white_out(
        &mut self,
        folder: &[u8],
        hidden: &[u8],
        own: &HashSet<Path>,
    ) -> Result<(), LayerError> {
        let folder = self.resolve(folder)?;
        if hidden == OPAQUE {
            self.remove_beneath(&folder, own);
        } else if !hidden.starts_with(WHITEOUT) && !hidden.is_empty() {
            let path = join(&folder, hidden);
            self.remove_beneath(&path, own);
            if !own.contains(&path) {
                self.records.remove(&path);
            }
        }
        Ok(())
    }

    /// Puts a record at its path, links followed. Returns the real path.
    fn put(&mut self, path: &[u8], mut record: Record) -> Result<Path, LayerError> {
        let folder = self.resolve(parent(path))?;
        let path = join(&folder, name(path));
        if let What::HardLink(target) = &record.what {
            let target = join(&self.resolve(parent(target))?, name(target));
            let known = self.records.get(&target);
            record = known.ok_or_else(|| LayerError::entry("a hard link to nothing"))?.clone();
        }
        if record.what != What::Folder {
            self.remove_beneath(&path, &HashSet::new());
        }
        self.records.insert(path.clone(), record);
        Ok(path)
    }

    /// Removes all that lies in `folder`, except what is to be kept.
    fn remove_beneath(&mut self, folder: &[u8], kept: &HashSet<Path>) {
        let first = if folder.is_empty() { Path::default() } else { join(folder, b"") };
        let beneath: Vec<Path> = self
            .records
            .range(first.clone()..)
            .take_while(|(path, _)| path.starts_with(&first))
            .filter(|(path, _)| !kept.contains(*path))
            .map(|(path, _)| path.clone())
            .collect();
        for path in beneath {
            self.records.remove(&path);
        }
    }

    /// The real path of `folder`, links followed; empty for the root.
    fn resolve(&self, folder: &[u8]) -> Result<Path, LayerError> {
        let mut links = 0;
        let mut found: Vec<u8> = Vec::new();
        let mut rest: Vec<Vec<u8>> = parts(folder);
        while let Some(part) = rest.pop() {
            if part == b".." {
                found.truncate(parent(&found).len());
                continue;
            }
            let next = join(&found, &part);
            let Some(Record { what: What::Symlink(target), .. }) = self.records.get(&next) else {
                found = next.into();
                continue;
            };
            links += 1;
            if MAX_LINKS < links {
                return Err(LayerError::entry("a path leads through too many links"));
            }
            if target.starts_with(b"/") {
                found.clear();
            }
            rest.extend(parts(target));
        }
        Ok(found.into())
    }
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..opq";

/// The parts of a path, the last first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').rev();
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn parent(path: &[u8]) -> &[u8] {
    split(path).0
}

fn name(path: &[u8]) -> &[u8] {
    split(path).1
}

fn join(folder: &[u8], name: &[u8]) -> Path {
    if folder.is_empty() {
        return name.into();
    }
    [folder, b"/", name].concat().into()
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
