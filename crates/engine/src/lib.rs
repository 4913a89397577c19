//! Container engines as image sources and image sinks.
//!
//! An engine is an adaptor: it implements the traits of `transfer` and knows no protocol. One
//! folder per engine; the first is [`docker`]. A folder of files ([`oci_layout`]) is an engine too,
//! and a tar file a source. [`registry`] shows any source to engines that pull.

pub mod address;
pub mod archive;
pub mod docker;
mod document;
mod file_blob;
pub mod oci_layout;
mod read_ahead;
pub mod registry;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

pub use address::{Address, InvalidAddress};
pub use archive::{Archive, ArchiveError};
pub use docker::{
    Docker, DockerSink, EngineError, Export, ExportStats, FilesStats, HeldImage, ImageEvents,
    Overlay2Files,
};
pub use oci_layout::{LayoutError, OciLayout, OciLayoutSink};
pub use registry::{InvalidLoopback, Loopback, Registry};
