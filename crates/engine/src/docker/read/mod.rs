//! Images out of an engine: `method.rs` lists how their layers are read.
//!
//! ```text
//!   overlay2   the files of a graphdriver, through tar-split
//!   content    the content service of containerd, or its files
//!   export     whole images by `save`, split as they stream (split, save, flight, assemble)
//! ```
//! All give the same image. `catalogue`, `documents` and `target` find out which image a name means.

mod assemble;
mod catalogue;
pub(in crate::docker) mod content;
mod documents;
mod export;
mod flight;
pub mod method;
mod overlay2;
mod save;
mod split;
mod target;

pub use self::content::{ContainerdContent, ContentStats, ContentWay};
pub use self::export::Export;
pub use self::overlay2::{FilesStats, Overlay2Files};
