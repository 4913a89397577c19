//! One end of a socket in `benches/wire`: started by the rig, of no use to people.

use anyhow::Context as _;

/// As in the agents: 1 MiB buffers fault pages under glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let job =
        std::env::args().nth(1).context("started by `cargo bench -p benches --bench wire`")?;
    benches::wire::peer::run(&job).await
}
