//! What an image's root consists of: a record for each path, put together layer by layer.
//!
//! A layer is applied as engines do it: whiteouts take away what lower layers have, a file in a
//! folder's place takes the folder's content away, and a path leads through the links that are there.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#applying-changesets>.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::mem::size_of;

use transfer::{Digest, digest::Hasher};

use super::tar::{Entry, Kind, TarError, TarReader};

/// A path relative to the root: no slash at either end, no `.` and no `..` in it.
pub(super) type Path = Box<[u8]>;

/// Most bytes that the records of one image may take in memory: some two million files.
const MAX_BYTES: usize = 512 << 20;

/// Most links that a path may lead through, as Linux has it.
const MAX_LINKS: usize = 40;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File {
        size: u64,
        digest: Digest,
    },
    /// A file that is not compared; see [`Kind::Sparse`].
    Sparse,
    Folder,
    Symlink(Path),
    /// In a layer only: the same file as at another path.
    HardLink(Path),
    Other {
        flag: u8,
        device: (u64, u64),
    },
}

/// One thing in a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) what: What,
    pub(super) mode: u16,
    pub(super) owner: (u64, u64),
}

/// The records of one layer in their order, whiteouts included.
pub(super) type Layer = Vec<(Path, Record)>;

/// How much more may be remembered.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_BYTES)
    }
}

impl Budget {
    fn take(&mut self, path: &[u8], record: &Record) -> Result<(), TarError> {
        let left = self.0.checked_sub(cost(path, record));
        self.0 = left.ok_or(TarError::Rule("it has more files than can be checked"))?;
        Ok(())
    }

    /// Gives back what a layer took that is not needed.
    pub(super) fn forget(&mut self, layer: &Layer) {
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
pub(super) fn read_layer(archive: impl Read, budget: &mut Budget) -> Result<Layer, TarError> {
    let mut reader = TarReader::new(archive);
    let mut layer = Layer::new();
    while let Some(entry) = reader.next()? {
        let Some(path) = clean(&entry.path)? else { continue };
        let record = record(&entry, &mut reader)?;
        budget.take(&path, &record)?;
        layer.push((path, record));
    }
    Ok(layer)
}

/// What an entry puts at its path; reads its content.
pub(super) fn record(entry: &Entry, content: &mut impl Read) -> Result<Record, TarError> {
    let what = match entry.kind {
        Kind::File => What::File { size: entry.size, digest: hash(content)? },
        Kind::Sparse => What::Sparse,
        Kind::Folder => What::Folder,
        Kind::Symlink => What::Symlink(entry.link.clone().into()),
        Kind::HardLink => {
            let target = clean(&entry.link)?;
            What::HardLink(target.ok_or(TarError::Rule("a hard link to the root"))?)
        }
        Kind::Other(flag) => What::Other { flag, device: entry.device },
    };
    Ok(Record { what, mode: entry.mode, owner: (entry.uid, entry.gid) })
}

fn hash(content: &mut impl Read) -> Result<Digest, TarError> {
    let mut hasher = Hasher::default();
    let mut buffer = [0; 32 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hasher.digest()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The path without what does not matter; `None` for the root itself.
pub(super) fn clean(path: &[u8]) -> Result<Option<Path>, TarError> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TarError::Rule("a path leads upwards")),
            part => parts.push(part),
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join(&b'/').into()))
}

/// A root with what its layers put there.
#[derive(Debug, Default)]
pub(super) struct Tree {
    records: BTreeMap<Path, Record>,
}

impl Tree {
    /// What is at a path.
    pub(super) fn get(&self, path: &[u8]) -> Option<&Record> {
        self.records.get(path)
    }

    /// All there is, in the order of paths.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &Record)> {
        self.records.iter()
    }

    /// Takes a layer on top of those before.
    pub(super) fn apply(&mut self, layer: Layer) -> Result<(), TarError> {
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
    ) -> Result<(), TarError> {
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

    /// Puts a record at its path, and says where that really is.
    fn put(&mut self, path: &[u8], mut record: Record) -> Result<Path, TarError> {
        let folder = self.resolve(parent(path))?;
        let path = join(&folder, name(path));
        if let What::HardLink(target) = &record.what {
            let target = join(&self.resolve(parent(target))?, name(target));
            let known = self.records.get(&target);
            record = known.ok_or(TarError::Rule("a hard link to nothing"))?.clone();
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

    /// Where `folder` really is, links followed; empty for the root.
    fn resolve(&self, folder: &[u8]) -> Result<Path, TarError> {
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
                return Err(TarError::Rule("a path leads through too many links"));
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
