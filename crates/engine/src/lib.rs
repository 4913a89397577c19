//! Container engines as image sources and image sinks.
//!
//! An engine is an adaptor: it implements the traits of `transfer` and knows no protocol. One
//! folder per engine; the first is [`docker`].

pub mod docker;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

pub use docker::{Docker, DockerSink, EngineError, Export, ExportStats, HeldImage};
