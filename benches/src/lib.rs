//! Benchmarks over the transfer hot path.
