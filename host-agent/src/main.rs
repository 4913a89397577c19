//! The host agent's process.

use std::process::ExitCode;

use agent::process;
use host_agent::config::Config;

/// Frames of 1 MiB cross glibc's mmap threshold and fault their pages in anew each time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = Config::read();
    let threads = host_agent::threads(&config.command);
    process::run("longshore-host-agent", &config.telemetry, threads, |shutdown| {
        host_agent::run(config.command, shutdown)
    })
}
