//! The benchmarks run, so that they never rot.

mod fleet;
mod wire;
