//! Short runs of the benchmarks, which keep them working.

mod fleet;
mod wire;
