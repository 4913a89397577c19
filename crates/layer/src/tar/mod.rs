//! Tar files: one parser, and three ways to feed it.
//!
//! ```text
//!   Reader       a blocking stream ─┐
//!   AsyncReader  an async stream ───┼─► Parser ─► Entry
//!   Index        a file, by path ───┘   no I/O
//! ```
//! The parser reads ustar, GNU's long names and large numbers, and PAX records. [`Rules`] says what
//! it refuses.
//!
//! Formats: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html> and
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>.

mod extension;
mod field;
mod header;
mod index;
mod parser;
mod path;
mod read;
mod write;

use std::io;

pub use self::header::{Entry, Kind};
pub use self::index::Index;
pub use self::path::{Path, clean};
pub use self::read::{AsyncReader, Reader};
pub use self::write::{END, header, padding};

/// Size of a block in bytes. Headers have this size, and contents are padded to it.
pub const BLOCK: usize = 512;

/// Longest path of an entry or a link, in bytes. Linux accepts no longer one.
pub const MAX_PATH: usize = 4096;

/// Which archives the parser accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// All archives that engines accept.
    ///
    /// For contents that are hashed or compared: a second reading of their headers gains an attacker
    /// nothing.
    Lenient,
    /// Only archives that all readers read alike.
    ///
    /// For archives whose entries are found by path. Readers are known to disagree on numbers that
    /// are negative or in base 256, on PAX records that contradict a header (CVE-2025-62518), on
    /// sparse files, and on entries after an empty header.
    Strict,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The file or stream failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The archive is malformed, or [`Rules`] refuse it.
    #[error("the archive is malformed at byte {at}: {reason}")]
    Malformed {
        /// Offset of the header in question.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
}
