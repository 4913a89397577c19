//! Contents of a seed: every entry below its root, as the file system reports it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Path of the seal below the root; it is no entry of the tree.
pub(super) const SEAL: &str = "agent/seal";

/// Its name until it is whole.
pub(super) const SEAL_TEMPORARY: &str = "agent/seal.tmp";

/// The folders below the root: each may be a volume's own, whose time of change is not ours.
const ROOTS: [&str; 2] = ["agent", "data"];

/// Files of an engine that must not be shared or that are useless once it has stopped: the engine's
/// ID, interrupted downloads and loads, and the supervisor's note.
const LEFTOVERS: [&str; 4] =
    ["data/engine-id", "data/tmp", "data/containerd/daemon/tmpmounts", "agent/supervisor.json"];

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below the root, without a leading slash.
    pub(super) path: PathBuf,
    /// Kind and permissions, as `st_mode` has them.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of a file, length of a link's target; 0 for all else, where it means nothing.
    pub(super) size: u64,
    /// Time of the last change of content, as seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// Time of the last change of any kind, by the kernel's clock; zero for the two roots.
    pub(super) changed: (i64, i64),
    /// Device number of a device file.
    pub(super) device: u64,
    /// The number of the file, of which hard links have the same.
    pub(super) inode: u64,
}

impl Entry {
    fn of(path: PathBuf, meta: &Metadata) -> Self {
        let kind = meta.file_type();
        let is_root = ROOTS.iter().any(|root| Path::new(root) == path);
        Self {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            size: if kind.is_file() || kind.is_symlink() { meta.size() } else { 0 },
            modified: if is_root { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) },
            changed: if is_root { (0, 0) } else { (meta.ctime(), meta.ctime_nsec()) },
            device: if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 },
            inode: if meta.nlink() > 1 && kind.is_file() { meta.ino() } else { 0 },
            path,
        }
    }

    pub(super) fn kind(&self) -> rustix::fs::FileType {
        rustix::fs::FileType::from_raw_mode(self.mode)
    }
}

/// Lists every entry below `root`, folders before their contents, sorted by name. Sockets and the
/// seal are left out.
pub(super) fn walk(root: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in ROOTS {
        walk_below(root, Path::new(name), &mut entries)?;
    }
    Ok(entries)
}

fn walk_below(root: &Path, path: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full)?;
    if meta.file_type().is_socket()
        || [SEAL, SEAL_TEMPORARY].iter().any(|seal| Path::new(seal) == path)
    {
        return Ok(());
    }
    let is_folder = meta.is_dir();
    entries.push(Entry::of(path.to_owned(), &meta));
    if is_folder {
        let names = fs::read_dir(&full)?.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        for name in names {
            walk_below(root, &path.join(name), entries)?;
        }
    }
    Ok(())
}

/// Has all that was written below `root` on the disk. The two roots may be two file systems.
pub(super) fn flush(root: &Path) -> io::Result<()> {
    for name in ROOTS {
        rustix::fs::syncfs(fs::File::open(root.join(name))?)?;
    }
    Ok(())
}

/// Removes what a clone must not have.
pub(super) fn clear_leftovers(root: &Path) -> io::Result<()> {
    for path in LEFTOVERS {
        let path = root.join(path);
        let removed = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the path of these bytes.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}
