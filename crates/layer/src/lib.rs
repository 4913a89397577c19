//! A layer as a tar file.
//!
//! ```text
//!   tar         headers and contents, off a stream or by path in a file
//!   tar_split   a tar without the contents of its files, as an engine keeps it
//!   tree        the root that a stack of layers makes
//!   compare     a root as an engine shows it, against that tree
//! ```
//! Images may be hostile. So every reader here is strict, and bounds what it keeps in memory.

pub mod compare;
pub mod tar;
pub mod tar_split;
pub mod tree;
