//! Plain files: identity, state and bytes.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::blob::MAX_FRAME;
use crate::digest::{Digest, Hasher};

/// Identity and state of a file, as far as the system shows them.
///
/// Two equal states have the same bytes, unless somebody wrote the file within one tick of the file
/// system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Time of the last change to the file or its metadata. Renames and new links set it too.
    changed: Option<(i64, i64)>,
}

impl FileState {
    /// The state that `metadata` describes.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: Some((metadata.ctime(), metadata.ctime_nsec())),
        }
    }

    /// The same state, equal before and after a rename.
    #[must_use]
    pub fn without_change_time(self) -> Self {
        Self { changed: None, ..self }
    }

    /// Whether both are states of one file.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Opens a regular file for reading.
///
/// Links, devices and pipes are refused, and this function never waits for one. A folder that
/// somebody else wrote could otherwise expose any file of this host.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for anything but a regular file, and the system's own errors.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => not_regular(),
        error => error.into(),
    })?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is a link or a device, not a plain file")
}

/// Reads at `offset` until `room` is full or the file ends. Returns the number of bytes.
///
/// # Errors
/// The system's own.
pub fn fill_at(file: &File, offset: u64, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() {
        match file.read_at(&mut room[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Hashes the bytes of `range`, or those up to the file's end. Returns their digest and number;
/// `None` once `go_on` says no.
///
/// # Errors
/// The system's own.
pub fn hash(
    file: &File,
    range: Range<u64>,
    go_on: impl Fn() -> bool,
) -> io::Result<Option<(Digest, u64)>> {
    let (mut hasher, mut offset) = (Hasher::default(), range.start);
    let mut buffer = vec![0; frame_len(range.end - range.start)];
    while go_on() {
        let len = frame_len(range.end - offset);
        let read = fill_at(file, offset, &mut buffer[..len])?;
        hasher.update(&buffer[..read]);
        offset += read as u64;
        if read < len || offset == range.end {
            return Ok(Some((hasher.digest(), offset - range.start)));
        }
    }
    Ok(None)
}

/// Length of the next frame when `left` bytes are left.
#[must_use]
pub fn frame_len(left: u64) -> usize {
    usize::try_from(left).unwrap_or(MAX_FRAME).min(MAX_FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_hashed_and_so_is_what_there_is_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = crate::fixture::bytes(1, 2 * MAX_FRAME + 5);
        std::fs::write(&path, &bytes).unwrap();
        let file = open_regular(&path).unwrap();
        let len = bytes.len() as u64;
        for (from, to) in [(0, 0), (0, len), (3, 5), (7, len), (0, u64::MAX), (len, u64::MAX)] {
            let at = |offset: u64| usize::try_from(offset.min(len)).unwrap();
            let part = &bytes[at(from)..at(to)];
            let expected = (Digest::of(part), part.len() as u64);
            assert_eq!(hash(&file, from..to, || true).unwrap(), Some(expected), "{from}..{to}");
        }
        assert_eq!(hash(&file, 0..len, || false).unwrap(), None);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&link, Path::new("/dev/zero"), folder.path()] {
            let error = open_regular(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        let absent = open_regular(&folder.path().join("absent")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_state_shows_writes_and_a_rename_only_by_its_change_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "a").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let state = || FileState::of(&file.metadata().unwrap());
        let before = state();
        std::fs::rename(&path, folder.path().join("other")).unwrap();
        assert_eq!(state().without_change_time(), before.without_change_time());
        file.set_len(2).unwrap();
        assert!(state() != before && state().is_same_file(&before));
        assert_eq!(state().size(), 2);
    }
}
