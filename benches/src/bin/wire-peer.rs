//! One end of a socket in `benches/wire`, started by the rig only.

use anyhow::Context as _;

/// The agents' allocator; with glibc's, buffers of 1 MiB cause page faults.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let job = std::env::args()
        .nth(1)
        .context("no job given: run `cargo bench -p benches --bench wire` instead")?;
    benches::wire::peer::run(&job).await
}
