//! The streaming core of Longshore: the words of the field as types, blobs as streams, and the way
//! of an image from a source to a sink.
//!
//! Nothing here knows that gRPC, HTTP, Docker, environment variables or log subscribers exist: the
//! network, the disk and the engines are adaptors that implement this crate's traits. Read the
//! modules in the order they are listed.
//!
//! ```text
//!   ImageSource ── what images there are          BlobSource ── bytes by digest, from any offset
//!        │                                             │
//!        └────────────► pull: resolve ► plan ► load ► prove ► tag ◄──┘
//!                                   │
//!                               ImageSink ── an engine that lacks some of it
//! ```

pub mod explain;
pub mod digest;
pub mod descriptor;
pub mod reference;
pub mod image;

pub mod blocking;
pub mod blob;
pub mod file;
pub mod frame;
pub mod verify;
pub mod store;

pub mod shared;
pub mod limited;
pub mod metered;
pub mod stored;
pub mod decompress;
pub mod uncompressed;
pub mod fallback;

pub mod source;
pub mod sink;
pub mod engine_info;
pub mod event;
pub mod plan;
pub mod pull;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

pub use blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest, MAX_FRAME};
pub use descriptor::{Descriptor, MediaType};
pub use digest::{ChainId, ConfigDigest, DiffId, Digest, EngineImageId, Hasher};
pub use engine_info::{EngineInfo, StoreKind};
pub use event::{Event, Observer, Outcome, Stage};
pub use explain::explain;
pub use fallback::Fallback;
pub use image::{Image, Layer, LayerForm, Platform};
pub use reference::Reference;
pub use sink::{ImageSink, Intake, LoadError, Missing, Overlap, Proof, Room, Sharing};
pub use source::{ImageKey, ImageSource, ImageSummary, OpenImage, SourceError};
pub use stored::Stored;
pub use uncompressed::Uncompressed;
