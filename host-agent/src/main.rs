//! The host agent's process.

use std::process::ExitCode;

/// Frames of 1 MiB cross glibc's mmap threshold and fault their pages in anew each time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    host_agent::main()
}
