//! The entries of a tar file, by path. Opening reads each header once and skips the contents.

use std::collections::BTreeMap;
use std::fs::File;

use transfer::file::fill_at;

use super::field::shown;
use super::parser::{Parser, Step};
use super::path::{inside, link_target};
use super::{BLOCK, Entry, Kind, Rules, TarError};

/// Most entries; a save of a thousand images has some ten thousand.
const MAX_ENTRIES: usize = 100_000;

/// Most bytes of paths and link targets together. Bounds the memory that a hostile file costs.
const MAX_PATHS: usize = 16 << 20;

/// The entries of a tar file by path, read under [`Rules::Strict`].
#[derive(Clone, Debug, Default)]
pub struct Index(BTreeMap<String, Item>);

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File {
        start: u64,
        size: u64,
    },
    Folder,
    /// Another entry, by its path.
    Link(String),
}

impl Index {
    /// Reads every header of a file of `size` bytes.
    ///
    /// # Errors
    /// Any [`TarError`].
    pub fn read(file: &File, size: u64) -> Result<Self, TarError> {
        let mut walk = Walk { file, size, parser: Parser::new(Rules::Strict) };
        let mut index = Self::default();
        let mut paths = 0;
        while let Some(entry) = walk.next()? {
            paths += entry.path.len() + entry.link.len();
            let added = index.add(&entry, walk.parser.at());
            added.map_err(|reason| walk.parser.malformed(reason))?;
            if MAX_ENTRIES < index.0.len() {
                let reason = format!("it has more than {MAX_ENTRIES} entries");
                return Err(walk.parser.malformed(reason));
            }
            if MAX_PATHS < paths {
                let reason = format!("its paths have more than {MAX_PATHS} bytes");
                return Err(walk.parser.malformed(reason));
            }
        }
        Ok(index)
    }

    /// First byte and size of the file at `path`. A link is followed once, as far as `docker save`
    /// goes with layers that several images share.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<(u64, u64)> {
        let item = match self.0.get(path)? {
            Item::Link(target) => self.0.get(target)?,
            item => item,
        };
        match item {
            Item::File { start, size } => Some((*start, *size)),
            Item::Folder | Item::Link(_) => None,
        }
    }

    /// Adds an entry whose content begins at `start`.
    fn add(&mut self, entry: &Entry, start: u64) -> Result<(), String> {
        let path = inside(&entry.path)?;
        let item = match entry.kind {
            // The archive's own folder, or one that nobody can ask for.
            Kind::Folder => Item::Folder,
            _ if path.is_empty() => return Err("an entry has no name".into()),
            Kind::Symlink => Item::Link(link_target(&path, &entry.link)?),
            Kind::HardLink => Item::Link(inside(&entry.link)?),
            _ => Item::File { start, size: entry.size },
        };
        let is_folder = item == Item::Folder;
        match self.0.insert(path.clone(), item) {
            None => Ok(()),
            // Folders may occur again. Of two files nobody knows which one counts.
            Some(Item::Folder) if is_folder => Ok(()),
            Some(_) => Err(format!("path {:?} occurs twice", shown(path.as_bytes()))),
        }
    }
}

/// Feeds the parser from a file, by offset.
struct Walk<'a> {
    file: &'a File,
    /// Bytes of the file.
    size: u64,
    parser: Parser,
}

impl Walk<'_> {
    fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut block = [0; BLOCK];
        loop {
            self.parser.skip();
            let filled = fill_at(self.file, self.parser.at(), &mut block)?;
            match self.parser.block(&block[..filled])? {
                Step::Block => {}
                Step::Records(size) => {
                    let mut records = vec![0; size];
                    if fill_at(self.file, self.parser.at(), &mut records)? != size {
                        return Err(self.parser.cut_off());
                    }
                    self.parser.extend(&records)?;
                }
                Step::Entry(entry) => {
                    if self.size < self.parser.at().saturating_add(entry.size) {
                        let reason = format!(
                            "an entry of {} bytes goes beyond the file's end: the file was cut off",
                            entry.size
                        );
                        return Err(self.parser.malformed(reason));
                    }
                    return Ok(Some(entry));
                }
                Step::End => return Ok(None),
            }
        }
    }
}
