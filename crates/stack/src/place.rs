//! Where something is written: a file, a line and a column.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a file, written `compose.yaml:12:5`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: Arc<Path>,
    line: usize,
    column: usize,
}

/// A place in a file that is known already: line and column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Spot {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The same spot with its file.
    pub(crate) fn of(self, file: &Arc<Path>) -> Place {
        Place { file: Arc::clone(file), line: self.line, column: self.column }
    }
}

impl Place {
    /// The file, as it was named by the caller.
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
