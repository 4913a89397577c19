//! The seal: what a tree is to be, written last, and compared before anything of the tree is used.
//!
//! A line of JSON with the format's version, the key and the digest of all that follows it; then the
//! listing, an entry after the other in little-endian numbers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use transfer::Digest;

use super::copy::checksum;
use super::error::SeedError;
use super::tree::{self, Entry, SEAL, SEAL_TEMPORARY, path_of, walk};

/// The format of seals and of the trees below them; others are not read.
const VERSION: u32 = 1;

/// Largest seal that is read, in bytes: some millions of entries.
const MAX_SEAL: u64 = 1 << 30;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    key: String,
    entries: u64,
    /// Of the bytes after this line.
    listing: Digest,
}

/// A tree with the checksum of each file in it.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) entries: Vec<Entry>,
    /// Checksum of each entry, in their order; 0 for entries that are not files.
    pub(super) checksums: Vec<u32>,
}

impl Sealed {
    /// Bytes of all files; a file with several names counts once.
    pub(super) fn bytes(&self) -> u64 {
        let files = self.entries.iter().filter(|entry| entry.kind() == FileType::RegularFile);
        let mut seen = HashSet::new();
        let counts = |entry: &&Entry| entry.inode == 0 || seen.insert(entry.inode);
        files.filter(counts).map(|entry| entry.size).sum()
    }
}

/// Seals the tree below `root` under `key`.
///
/// All of it is on the disk before the seal is.
pub(super) fn seal(root: &Path, key: &str) -> io::Result<Sealed> {
    match fs::remove_file(root.join(SEAL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tree::flush(root)?;
    let entries = walk(root)?;
    let checksums = entries.iter().map(|entry| match entry.kind() {
        FileType::RegularFile => checksum(&root.join(&entry.path)),
        _ => Ok(0),
    });
    let checksums = checksums.collect::<io::Result<Vec<u32>>>()?;
    let sealed = Sealed { entries, checksums };
    let listing = encode(&sealed);
    let head = Head {
        version: VERSION,
        key: key.to_owned(),
        entries: sealed.entries.len() as u64,
        listing: Digest::of(&listing),
    };
    let temporary = root.join(SEAL_TEMPORARY);
    let mut file = File::create(&temporary)?;
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    file.write_all(&listing)?;
    file.sync_all()?;
    fs::rename(&temporary, root.join(SEAL))?;
    File::open(root.join("agent"))?.sync_all()?;
    Ok(sealed)
}

/// Opens the tree below `root`, if it matches its seal and was sealed for `key`.
pub(super) fn open(root: &Path, key: &str) -> Result<Sealed, SeedError> {
    let path = root.join(SEAL);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SeedError::unusable("it was never sealed"));
        }
        Err(error) => return Err(SeedError::at(&path)(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_SEAL).read_to_end(&mut text).map_err(SeedError::at(&path))?;
    let sealed = read(&text, key).map_err(SeedError::unusable)?;
    let found = walk(root).map_err(SeedError::at(root))?;
    match difference(&sealed.entries, &found) {
        None => Ok(sealed),
        Some(reason) => Err(SeedError::unusable(reason)),
    }
}

/// The seal in `text`, or why it is none for `key`.
fn read(text: &[u8], key: &str) -> Result<Sealed, String> {
    let unreadable = || "its seal is unreadable".to_owned();
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(unreadable)?;
    let (head, listing) = (&text[..end], &text[end + 1..]);
    let head: Head = serde_json::from_slice(head).map_err(|_| unreadable())?;
    if head.version != VERSION {
        return Err(format!("its seal has format {}, and this is {VERSION}", head.version));
    }
    if head.key != key {
        return Err(format!("it was sealed for {}", head.key));
    }
    if Digest::of(listing) != head.listing {
        return Err("its seal is damaged".to_owned());
    }
    let sealed = decode(listing).ok_or_else(unreadable)?;
    if sealed.entries.len() as u64 == head.entries { Ok(sealed) } else { Err(unreadable()) }
}

/// The first thing in which a tree is not what it should be.
fn difference(expected: &[Entry], found: &[Entry]) -> Option<String> {
    let pairs = expected.iter().zip(found);
    for (expected, found) in pairs {
        if expected.path != found.path {
            // Both are sorted, so the lesser of the two has no partner.
            return Some(if expected.path < found.path {
                format!("{} is missing", expected.path.display())
            } else {
                format!("{} was added", found.path.display())
            });
        }
        if expected != found {
            return Some(format!("{} was changed", expected.path.display()));
        }
    }
    let (expected, found) = (expected.get(found.len()), found.get(expected.len()));
    let missing = expected.map(|entry| format!("{} is missing", entry.path.display()));
    missing.or_else(|| found.map(|entry| format!("{} was added", entry.path.display())))
}

fn encode(sealed: &Sealed) -> Vec<u8> {
    let mut text = Vec::new();
    for (entry, checksum) in sealed.entries.iter().zip(&sealed.checksums) {
        let path = entry.path.as_os_str().as_bytes();
        text.extend((path.len() as u64).to_le_bytes());
        text.extend(path);
        for number in [entry.mode, entry.uid, entry.gid, *checksum] {
            text.extend(number.to_le_bytes());
        }
        for number in [entry.size, entry.device, entry.inode] {
            text.extend(number.to_le_bytes());
        }
        let times = [entry.modified.0, entry.modified.1, entry.changed.0, entry.changed.1];
        for number in times {
            text.extend(number.to_le_bytes());
        }
    }
    text
}

fn decode(mut text: &[u8]) -> Option<Sealed> {
    let mut sealed = Sealed { entries: Vec::new(), checksums: Vec::new() };
    while !text.is_empty() {
        let length = usize::try_from(long(&mut text)?).ok()?;
        let path = path_of(text.split_off(..length)?);
        let [mode, uid, gid, checksum] =
            [short(&mut text)?, short(&mut text)?, short(&mut text)?, short(&mut text)?];
        let [size, device, inode] = [long(&mut text)?, long(&mut text)?, long(&mut text)?];
        let modified = (long(&mut text)?.cast_signed(), long(&mut text)?.cast_signed());
        let changed = (long(&mut text)?.cast_signed(), long(&mut text)?.cast_signed());
        let entry = Entry { path, mode, uid, gid, size, modified, changed, device, inode };
        sealed.entries.push(entry);
        sealed.checksums.push(checksum);
    }
    Some(sealed)
}

fn short(text: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(text.split_off(..4)?.try_into().ok()?))
}

fn long(text: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(text.split_off(..8)?.try_into().ok()?))
}
