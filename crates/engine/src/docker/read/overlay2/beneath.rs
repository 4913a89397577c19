//! Opens a layer's files and never what lies outside of its folder.
//!
//! What was unpacked there came from an image: symlinks to anywhere, devices, pipes. So no symlink
//! is followed, wherever it stands in a path, and nothing but a regular file is opened: opening a
//! device alone can do harm.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const FOLDER: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A folder whose files may be opened. Clones are the same folder.
pub(super) struct Folder {
    root: Arc<OwnedFd>,
    /// Where the last file was: files of a folder mostly follow each other.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// Why a name leads to no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It leads out of the folder, or names no file at all.
    #[error("the name leads out of its folder")]
    Outside,
    /// A folder, a device, a symlink.
    #[error("it is no regular file")]
    NotAFile,
    /// The system's answer.
    #[error("it cannot be opened")]
    System(#[source] io::Error),
}

impl Clone for Folder {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), last: None }
    }
}

impl Folder {
    /// Opens `path`, which the caller trusts but for its last component.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, FOLDER, Mode::empty())?;
        Ok(Self { root: Arc::new(root), last: None })
    }

    /// Opens the regular file that `name` leads to in this folder, and tells its size in bytes.
    pub(super) fn file(&mut self, name: &[u8]) -> Result<(File, u64), Refused> {
        let path = clean(name).ok_or(Refused::Outside)?;
        let (parent, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], &path[..]),
        };
        let folder = self.folder(parent).map_err(system)?;
        let found = rustix::fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
        if !FileType::from_raw_mode(found.st_mode).is_file() {
            return Err(Refused::NotAFile);
        }
        let file = rustix::fs::openat(folder, last, FILE, Mode::empty()).map_err(system)?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(Refused::System)?;
        if !metadata.is_file() {
            return Err(Refused::NotAFile);
        }
        Ok((file, metadata.len()))
    }

    fn folder(&mut self, path: &[u8]) -> Result<&OwnedFd, Errno> {
        if path.is_empty() {
            return Ok(&self.root);
        }
        let known = self.last.take().filter(|(known, _)| known == path);
        let last = match known {
            Some(last) => last,
            None => (path.to_vec(), beneath(&self.root, path)?),
        };
        Ok(&self.last.insert(last).1)
    }
}

fn system(error: Errno) -> Refused {
    match error {
        Errno::LOOP | Errno::NOTDIR => Refused::NotAFile,
        Errno::XDEV => Refused::Outside,
        error => Refused::System(error.into()),
    }
}

/// The path as the engine unpacked to it: without empty parts, `.` and `..`, by the letters alone.
/// `None` where it leads out, or has a NUL, or names nothing.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part if part.contains(&0) => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}

/// Opens a folder below `root` without following a symlink.
fn beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, FOLDER, Mode::empty(), resolve) {
        // Kernels before 5.6 lack the call, and containers' filters of that time forbid it.
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path),
        opened => opened,
    }
}

/// The same, part by part.
fn walk(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut parts = path.split(|byte| *byte == b'/');
    let open = |folder: &OwnedFd, part: &[u8]| match part {
        b"" | b"." | b".." => Err(Errno::XDEV),
        part => rustix::fs::openat(folder, part, FOLDER, Mode::empty()),
    };
    let first = open(root, parts.next().unwrap_or_default())?;
    parts.try_fold(first, |folder, part| open(&folder, part))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_are_cleaned_as_the_engine_does() {
        let table: [(&[u8], Option<&[u8]>); 14] = [
            (b"a", Some(b"a")),
            (b"./a", Some(b"a")),
            (b"/etc/passwd", Some(b"etc/passwd")),
            (b"a//b/./c", Some(b"a/b/c")),
            (b"a/../b", Some(b"b")),
            (b"a/b/", Some(b"a/b")),
            (b"a\nb/\xff", Some(b"a\nb/\xff")),
            (b"..a/b..", Some(b"..a/b..")),
            (b"..", None),
            (b"../a", None),
            (b"a/../../a", None),
            (b"/", None),
            (b"", None),
            (b"a\0b", None),
        ];
        for (name, expected) in table {
            assert_eq!(clean(name).as_deref(), expected, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn no_symlink_is_followed_and_nothing_but_files_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [inside, outside] = ["inside", "outside"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("a/b/file"), b"mine").unwrap();
        std::fs::write(outside.join("secret"), b"not mine").unwrap();
        symlink("../outside/secret", inside.join("link")).unwrap();
        symlink("../outside", inside.join("out")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        symlink("b", inside.join("a/c")).unwrap();
        let pipe = rustix::fs::CWD;
        rustix::fs::mkfifoat(pipe, inside.join("pipe"), Mode::RUSR).unwrap();

        let mut folder = Folder::open(&inside).unwrap();
        for name in ["a/b/file", "./a/b/file", "/a/b/file", "a/../a/b//file"] {
            let (mut file, size) = folder.file(name.as_bytes()).unwrap();
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!((content.as_str(), size), ("mine", 4), "{name}");
        }
        for name in ["link", "out/secret", "root/etc/passwd", "a/c/file", "pipe", "a", "a/b/file/x"]
        {
            let refused = folder.file(name.as_bytes());
            assert!(matches!(refused, Err(Refused::NotAFile)), "{name}: {refused:?}");
        }
        for name in ["../outside/secret", "a/../../outside/secret", "", "."] {
            let refused = folder.file(name.as_bytes());
            assert!(matches!(refused, Err(Refused::Outside)), "{name}: {refused:?}");
        }
        let gone = folder.file(b"a/gone");
        assert!(matches!(gone, Err(Refused::System(_))), "{gone:?}");
    }

    #[test]
    fn both_ways_to_a_folder_refuse_the_same() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        symlink("b", folder.path().join("a/c")).unwrap();
        symlink("a", folder.path().join("d")).unwrap();
        let root = Folder::open(folder.path()).unwrap().root;
        for (path, good) in [
            ("a", true),
            ("a/b", true),
            ("a/c", false),
            ("d/b", false),
            ("x", false),
            ("..", false),
        ] {
            for way in [beneath, walk] {
                assert_eq!(way(&root, path.as_bytes()).is_ok(), good, "{path}");
            }
        }
    }
}
