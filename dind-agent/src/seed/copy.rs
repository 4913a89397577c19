//! One entry copied: by reflink where the file system has it, else byte by byte with its checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::tree::Entry;

/// Bytes read at once: they stay in a core's own cache until they are written.
const PIECE: usize = 256 << 10;

/// Room for the names of one file's extended attributes, which the kernel limits to this.
const MAX_NAMES: usize = 64 << 10;

/// Unit of `st_blocks`, in bytes.
const BLOCK: u64 = 512;

/// State of reflinks: available until an attempt fails.
#[derive(Debug)]
pub(super) struct Reflinks(AtomicBool);

impl Default for Reflinks {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

/// Method by which a file's bytes were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// Both files share them.
    Reflinked,
    /// They were copied, and have this checksum.
    Bytes(u32),
}

impl Reflinks {
    /// Tries to share all of `from` with `to`; false if that is unavailable.
    fn share(&self, from: &File, to: &File) -> io::Result<bool> {
        if !self.0.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => Ok(true),
            // Another file system, one that cannot, or a kernel before 5.18 between two mounts.
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                self.0.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The checksum of a file's bytes, holes included.
pub(super) fn checksum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&piece[..count]),
        }
    }
}

/// Copies the bytes of a file into a new one.
pub(super) fn file(
    from: &Path,
    to: &Path,
    reflinks: &Reflinks,
    piece: &mut Vec<u8>,
) -> io::Result<Copied> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let meta = source.metadata()?;
    if meta.len() == 0 {
        return Ok(Copied::Bytes(0));
    }
    if reflinks.share(&source, &target)? {
        return Ok(Copied::Reflinked);
    }
    piece.resize(PIECE, 0);
    let is_sparse = meta.blocks().saturating_mul(BLOCK) < meta.len();
    bytes(source, target, meta.len(), is_sparse, piece).map(Copied::Bytes)
}

fn bytes(
    mut from: File,
    mut to: File,
    size: u64,
    is_sparse: bool,
    piece: &mut [u8],
) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    if is_sparse {
        // Unwritten parts stay holes.
        to.set_len(size)?;
    }
    loop {
        let count = from.read(piece)?;
        let read = &piece[..count];
        if count == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(read);
        if is_sparse && read.iter().all(|byte| *byte == 0) {
            rustix::fs::seek(&to, SeekFrom::Current(count as i64))?;
        } else {
            to.write_all(read)?;
        }
    }
}

/// Creates a special file: neither a file nor a folder.
pub(super) fn special(from: &Path, to: &Path, entry: &Entry) -> io::Result<()> {
    match entry.kind() {
        FileType::Symlink => std::os::unix::fs::symlink(std::fs::read_link(from)?, to),
        kind => Ok(rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), entry.device)?),
    }
}

/// Gives `to` the owner, the permissions, the extended attributes and the times of an entry.
pub(super) fn attributes(from: &Path, to: &Path, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    // In this order: a change of owner takes set-user-ID bits and file capabilities away.
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind() != FileType::Symlink {
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(entry.mode & 0o7777))?;
    }
    extended(from, to)?;
    let time =
        |(seconds, nanoseconds): (i64, i64)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times =
        Timestamps { last_access: time(entry.modified), last_modification: time(entry.modified) };
    Ok(rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn extended(from: &Path, to: &Path) -> io::Result<()> {
    let length = match rustix::fs::llistxattr_query(from) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut names = vec![0; length.clamp(1, MAX_NAMES)];
    let length = rustix::fs::llistxattr(from, &mut names[..])?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let size = rustix::fs::lgetxattr_query(from, name)?;
        let mut value = vec![0; size.max(1)];
        let size = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        rustix::fs::lsetxattr(to, name, &value[..size], XattrFlags::empty())?;
    }
    Ok(())
}
