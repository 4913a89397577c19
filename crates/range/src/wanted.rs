//! Which images each range should have, remembered between commands.
//!
//! One file per range, named as the range, one reference a line. Written whole or not at all, so
//! that a command that was killed leaves either the old set or the new one, and the next `sync`
//! without images completes it.

use std::io;
use std::path::{Path, PathBuf};

use proto::identity::RangeName;
use transfer::Reference;

/// A wanted set that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// The file could not be read or written.
    #[error("the images that range {range} should have could not be kept in {}", path.display())]
    Io {
        /// Whose set.
        range: RangeName,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder of all sets could not be read.
    #[error("the images that ranges should have could not be read from {}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has a line that is not an image name.
    #[error("{} says which images range {range} should have, and line {line} is not an image name", path.display())]
    Malformed {
        /// Whose set.
        range: RangeName,
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: transfer::reference::InvalidReference,
    },
}

/// The wanted sets in one folder.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    folder: PathBuf,
}

impl Wanted {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The set of `range`, in the order it was given; empty when none was ever set.
    pub(crate) fn get(&self, range: &RangeName) -> Result<Vec<Reference>, WantedError> {
        let path = self.path(range);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(WantedError::Io { range: range.clone(), path, source }),
        };
        let parse = |(position, line): (usize, &str)| {
            line.parse().map_err(|source| WantedError::Malformed {
                range: range.clone(),
                path: path.clone(),
                line: position + 1,
                source,
            })
        };
        text.lines().enumerate().map(parse).collect()
    }

    /// Replaces the set of `range`.
    pub(crate) fn set(&self, range: &RangeName, images: &[Reference]) -> Result<(), WantedError> {
        let path = self.path(range);
        let text: String = images.iter().map(|image| format!("{image}\n")).collect();
        let partial = self.folder.join(format!("{range}.partial"));
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&partial, text))
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|source| WantedError::Io { range: range.clone(), path, source })
    }

    /// Forgets the set of `range`, and says whether there was one.
    pub(crate) fn forget(&self, range: &RangeName) -> Result<bool, WantedError> {
        let path = self.path(range);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(WantedError::Io { range: range.clone(), path, source }),
        }
    }

    /// The ranges that have a set, in no order.
    pub(crate) fn ranges(&self) -> Result<Vec<RangeName>, WantedError> {
        let unread = |source| WantedError::Folder { path: self.folder.clone(), source };
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(unread(source)),
        };
        let mut ranges = Vec::new();
        for entry in entries {
            // What is not a range's name is a `.partial` of a command that was killed.
            ranges.extend(
                entry.map_err(unread)?.file_name().to_str().and_then(|name| name.parse().ok()),
            );
        }
        Ok(ranges)
    }

    /// A range's name has no dot, so no range's file is another's `.partial`.
    fn path(&self, range: &RangeName) -> PathBuf {
        self.folder.join(range.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RangeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_is_read_as_it_was_written_and_a_range_without_one_wants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = Wanted::new(&folder.path().join("not/there/yet"));
        assert_eq!(wanted.get(&name("a")).unwrap(), []);
        let images: Vec<Reference> =
            ["python:3", "localhost:5000/x:1"].map(|text| text.parse().unwrap()).into();
        wanted.set(&name("a"), &images).unwrap();
        assert_eq!(wanted.get(&name("a")).unwrap(), images);
        wanted.set(&name("a"), &images[..1]).unwrap();
        assert_eq!(wanted.get(&name("a")).unwrap(), images[..1]);
        assert_eq!(wanted.get(&name("b")).unwrap(), []);
        assert_eq!(wanted.ranges().unwrap(), [name("a")]);
        assert!(wanted.forget(&name("a")).unwrap());
        assert!(!wanted.forget(&name("a")).unwrap());
        assert_eq!(wanted.ranges().unwrap(), []);
        assert_eq!(wanted.get(&name("a")).unwrap(), []);
    }

    #[test]
    fn a_line_that_is_not_an_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "python:3\nNot An Image\n").unwrap();
        let error = Wanted::new(folder.path()).get(&name("a")).unwrap_err();
        assert!(matches!(error, WantedError::Malformed { line: 2, .. }), "{error}");
    }
}
