//! Container engines as image sources and image sinks.
//!
//! An engine is an adaptor: it implements [`Engine`] and the traits of `transfer`, and knows no
//! protocol. One folder per kind; [`open()`] chooses by address. A folder of files ([`oci_layout`]) is
//! an engine too, and a tar file ([`archive`]) one that takes nothing. [`registry`] shows any source
//! to engines that pull.

pub mod address;
pub mod archive;
pub mod docker;
mod document;
mod engine;
mod error;
mod file_blob;
pub mod oci_layout;
mod open;
mod read_ahead;
pub mod registry;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

pub use address::{Address, InvalidAddress};
pub use archive::{Archive, ArchiveError};
pub use docker::{Docker, DockerSink, Export, FilesStats, Overlay2Files};
pub use engine::{Engine, ExportStats, Exported, HeldImage, ImageEvents, Source, Verification};
pub use error::EngineError;
pub use oci_layout::{LayoutError, OciLayout, OciLayoutSink};
pub use open::{Options, open};
pub use registry::{InvalidLoopback, Loopback, Registry};
