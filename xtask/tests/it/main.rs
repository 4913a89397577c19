//! The house's own rules, held by tests: who may depend on whom, and who may name what.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the workspace should stop")]

mod circles;
mod edges;
mod rooms;
mod sources;
