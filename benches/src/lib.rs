//! Benchmarks over the way of a layer: what `wire.rs` and `hot_path.rs` drive, as a library, so that a
//! test can run them too.

pub mod blob;
pub mod export;
pub mod figures;
pub mod fleet;
pub mod one_image;
pub mod wire;
