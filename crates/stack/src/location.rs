//! A location in a source file: file, line and column.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A location in a named file, displayed as `compose.yaml:12:5`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    file: Arc<Path>,
    line: usize,
    column: usize,
}

/// A line and a column in one file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The same position as a location in `file`.
    pub(crate) fn in_file(self, file: &Arc<Path>) -> Location {
        Location { file: Arc::clone(file), line: self.line, column: self.column }
    }
}

impl Location {
    /// The file, as the caller named it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
