//! The benchmarks run, so that they never rot.

mod wire;
