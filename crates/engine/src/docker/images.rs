//! The image calls of the engine's API, as this crate needs them.
