//! Where in a tar file each entry lies: headers alone are read, once, and contents skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::header::{self, BLOCK, Extensions, Header, Kind, MAX_PATH};

/// Most entries; a save of a thousand images has some ten thousand.
const MAX_ENTRIES: usize = 100_000;

/// Most bytes of paths and link targets together: bounds what a hostile file makes us remember.
const MAX_PATHS: usize = 16 << 20;

/// Largest PAX header, in bytes; real ones have a few hundred.
const MAX_PAX: u64 = 64 << 10;

/// An entry under its path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File {
        start: u64,
        size: u64,
    },
    Folder,
    /// Another entry, by its path.
    Link(String),
}

/// The entries of a tar file by path.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(BTreeMap<String, Entry>);

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    /// What is wrong, and at which byte.
    Malformed {
        at: u64,
        reason: String,
    },
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Entries {
    /// Reads every header of a file of `size` bytes.
    pub(super) fn read(file: &File, size: u64) -> Result<Self, Unreadable> {
        let mut walk = Walk { file, size, at: 0, paths: 0, extensions: Extensions::default() };
        let mut entries = Self::default();
        loop {
            let at = walk.at;
            let malformed = |reason| Unreadable::Malformed { at, reason };
            let Some((path, entry)) = walk.next()? else { return Ok(entries) };
            if MAX_ENTRIES <= entries.0.len() {
                return Err(malformed(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let is_folder = entry == Entry::Folder;
            match entries.0.insert(path.clone(), entry) {
                None => {}
                // A folder may be told of again; which of two files is meant, no one can know.
                Some(Entry::Folder) if is_folder => {}
                Some(_) => {
                    let path = header::shown(path.as_bytes());
                    return Err(malformed(format!("path {path:?} occurs twice")));
                }
            }
        }
    }

    /// Where the file at `path` lies: its first byte and its size. A link is followed once, as far
    /// as `docker save` goes with layers that several images share.
    pub(super) fn file(&self, path: &str) -> Option<(u64, u64)> {
        let entry = match self.0.get(path)? {
            Entry::Link(target) => self.0.get(target)?,
            entry => entry,
        };
        match entry {
            Entry::File { start, size } => Some((*start, *size)),
            Entry::Folder | Entry::Link(_) => None,
        }
    }
}

struct Walk<'a> {
    file: &'a File,
    /// Bytes of the file.
    size: u64,
    /// Where the next header begins.
    at: u64,
    /// Bytes of paths so far.
    paths: usize,
    extensions: Extensions,
}

impl Walk<'_> {
    /// The next entry; `None` at the end marker.
    fn next(&mut self) -> Result<Option<(String, Entry)>, Unreadable> {
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let header = Header::parse(&block).map_err(|reason| self.malformed(reason))?;
            let content = self.at + BLOCK as u64;
            if let Some(known) = self.extension(&header, content)? {
                self.extensions = known;
                self.skip(content, header.size)?;
                continue;
            }
            let extensions = std::mem::take(&mut self.extensions);
            let header = header.extended(extensions).map_err(|reason| self.malformed(reason))?;
            let entry = self.entry(&header, content).map_err(|reason| self.malformed(reason))?;
            self.paths += header.path.len() + header.link.len();
            if MAX_PATHS < self.paths {
                return Err(self.malformed(format!("its paths have more than {MAX_PATHS} bytes")));
            }
            self.skip(content, header.size)?;
            return Ok(Some(entry));
        }
    }

    /// The next header's block; `None` at the two blocks of zeros that end a tar file.
    fn header(&self) -> Result<Option<[u8; BLOCK]>, Unreadable> {
        let block = self.block(self.at)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        if self.block(self.at + BLOCK as u64)?.iter().any(|byte| *byte != 0) {
            return Err(self.malformed("an empty header is followed by another".into()));
        }
        match self.extensions == Extensions::default() {
            true => Ok(None),
            false => Err(self.malformed("it ends after an extension of an entry".into())),
        }
    }

    fn block(&self, at: u64) -> Result<[u8; BLOCK], Unreadable> {
        if self.size.saturating_sub(at) < BLOCK as u64 {
            let reason = "it ends without its end marker: the file was cut off";
            return Err(self.malformed(reason.into()));
        }
        let mut block = [0; BLOCK];
        self.file.read_exact_at(&mut block, at)?;
        Ok(block)
    }

    /// What is known of the next entry once `header` is an extension; `None` when it is an entry.
    fn extension(&self, header: &Header, content: u64) -> Result<Option<Extensions>, Unreadable> {
        let twice = |there: bool| match there {
            true => Err(self.malformed("it has two extensions of one kind".into())),
            false => Ok(()),
        };
        let mut known = self.extensions.clone();
        match header.kind {
            Kind::Pax => {
                twice(known.pax.is_some())?;
                let bytes = self.content(content, header.size, MAX_PAX)?;
                let records = header::pax_records(&bytes);
                known.pax = Some(records.map_err(|reason| self.malformed(reason))?);
            }
            Kind::PaxGlobal => {
                let bytes = self.content(content, header.size, MAX_PAX)?;
                let records = header::pax_records(&bytes);
                let records = records.map_err(|reason| self.malformed(reason))?;
                if let Some(key) =
                    ["path", "linkpath", "size"].iter().find(|key| records.contains_key(**key))
                {
                    return Err(self.malformed(format!("it sets {key:?} for all entries at once")));
                }
            }
            Kind::LongName => {
                twice(known.long_name.is_some())?;
                known.long_name = Some(self.long(content, header.size)?);
            }
            Kind::LongLink => {
                twice(known.long_link.is_some())?;
                known.long_link = Some(self.long(content, header.size)?);
            }
            _ => return Ok(None),
        }
        Ok(Some(known))
    }

    /// GNU's long text, which ends with a NUL.
    fn long(&self, content: u64, size: u64) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = self.content(content, size, MAX_PATH as u64 + 1)?;
        match bytes.pop() {
            Some(0) if !bytes.contains(&0) => Ok(bytes),
            _ => Err(self.malformed("its long name is malformed".into())),
        }
    }

    /// A small content whole.
    fn content(&self, content: u64, size: u64, limit: u64) -> Result<Vec<u8>, Unreadable> {
        if limit < size {
            let reason = format!("an extension has {size} bytes, at most {limit} are read");
            return Err(self.malformed(reason));
        }
        self.fits(content, size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, content)?;
        Ok(bytes)
    }

    fn entry(&self, header: &Header, content: u64) -> Result<(String, Entry), String> {
        let path = header::inside(&header.path)?;
        let entry = match header.kind {
            // The archive's own folder, or what nobody can ask for.
            Kind::Folder => Entry::Folder,
            _ if path.is_empty() => return Err("an entry has no name".into()),
            Kind::Symlink => Entry::Link(header::link_target(&path, &header.link)?),
            Kind::HardLink => Entry::Link(header::inside(&header.link)?),
            _ => Entry::File { start: content, size: header.size },
        };
        Ok((path, entry))
    }

    fn fits(&self, content: u64, size: u64) -> Result<u64, Unreadable> {
        let end = content.checked_add(size).filter(|end| *end <= self.size);
        end.ok_or_else(|| {
            let reason = format!(
                "an entry of {size} bytes goes beyond the file's end: the file was cut off"
            );
            self.malformed(reason)
        })
    }

    fn skip(&mut self, content: u64, size: u64) -> Result<(), Unreadable> {
        let end = self.fits(content, size)?;
        let next = end.checked_next_multiple_of(BLOCK as u64);
        self.at = next.ok_or_else(|| self.malformed("its offsets overflow".into()))?;
        Ok(())
    }

    fn malformed(&self, reason: String) -> Unreadable {
        Unreadable::Malformed { at: self.at, reason }
    }
}
