//! Benchmarks of a layer's path, as a library that the bench programs and the tests share.

pub mod blob;
pub mod export;
pub mod figures;
pub mod fleet;
pub mod one_image;
pub mod wire;
