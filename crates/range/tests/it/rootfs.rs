//! A container's root, file by file, so that two engines can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use transfer::Hasher;

/// Files that an engine puts into every container of any image, and the folder that shows the root.
const OF_THE_ENGINE: [&str; 9] = [
    "etc",
    "etc/hosts",
    "etc/hostname",
    "etc/mtab",
    "etc/resolv.conf",
    ".dockerenv",
    "dev",
    "proc",
    "sys",
];

/// Everything about one file that an image decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `file`, `folder`, `link`, `char`, `block`, `fifo`, `socket`.
    pub(crate) kind: &'static str,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds; engines drop the fraction.
    pub(crate) modified: i64,
    /// Digest of a file's bytes, target of a link, number of a device; else empty.
    pub(crate) content: String,
    /// Hard links to the same file; 1 for folders.
    pub(crate) links: u64,
    /// Extended attributes by name, POSIX ACLs and `trusted.overlay.*` left out.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The root of a running container, by path.
pub(crate) fn read(root: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let device = fs::metadata(root)?.dev();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root).map_err(io::Error::other)?.to_path_buf();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() && meta.dev() == device {
                folders.push(path.clone());
            }
            if OF_THE_ENGINE.iter().any(|own| name == Path::new(own)) {
                continue;
            }
            found.insert(name, describe(&path, &meta)?);
        }
    }
    Ok(found)
}

fn describe(path: &Path, meta: &fs::Metadata) -> io::Result<Entry> {
    let kind = meta.file_type();
    let (kind, content) = match () {
        () if kind.is_symlink() => {
            ("link", String::from_utf8_lossy(fs::read_link(path)?.as_os_str().as_bytes()).into())
        }
        () if kind.is_dir() => ("folder", String::new()),
        () if kind.is_char_device() => ("char", meta.rdev().to_string()),
        () if kind.is_block_device() => ("block", meta.rdev().to_string()),
        () if kind.is_fifo() => ("fifo", String::new()),
        () if kind.is_socket() => ("socket", String::new()),
        () => ("file", digest(path)?),
    };
    Ok(Entry {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        modified: meta.mtime(),
        content,
        links: if meta.is_dir() { 1 } else { meta.nlink() },
        xattrs: xattrs(path)?,
    })
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Hasher::default();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.digest().to_string()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let size = rustix::fs::llistxattr(path, &mut names)?;
    let mut found = BTreeMap::new();
    for name in names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"system.posix_acl") {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let size = rustix::fs::lgetxattr(path, name, &mut value)?;
        found.insert(name.to_vec(), value[..size].to_vec());
    }
    Ok(found)
}

/// The first few differences between two roots, in words; empty when they are the same.
pub(crate) fn differences(
    left: &BTreeMap<PathBuf, Entry>,
    right: &BTreeMap<PathBuf, Entry>,
) -> Vec<String> {
    let mut paths: Vec<_> = left.keys().chain(right.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let differs = paths.into_iter().filter(|path| left.get(*path) != right.get(*path));
    differs
        .take(10)
        .map(|path| format!("{}: {:?} / {:?}", path.display(), left.get(path), right.get(path)))
        .collect()
}
