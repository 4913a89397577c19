//! Reads of an engine's images, compared with `docker save` to `/dev/null` in the same run. Prints one
//! JSON object per line for `cargo xtask bench`.
//!
//! ```text
//! export-peer --docker unix:///run/docker.sock --image python:3.13 --rounds 3
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use benches::export::{Cache, Options, run};
use clap::Parser;

/// The agents' allocator; with glibc's, buffers of 1 MiB cause page faults.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read an engine's images by Longshore and by `docker save` in turn, and print one JSON object per
/// measure.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address of the engine, such as `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`.
    #[arg(long)]
    docker: String,
    /// Image of the engine to measure; repeatable.
    #[arg(long, required = true)]
    image: Vec<String>,
    /// Number of rounds for each measure; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Path to the engine's data-root [default: the path that the engine reports].
    #[arg(long)]
    data_root: Option<PathBuf>,
    /// Socket of the engine's containerd [default: its usual path].
    #[arg(long)]
    containerd_socket: Option<PathBuf>,
    /// State of the page cache before each read, for both sides. `cold` needs root and empties the
    /// cache of the whole machine.
    #[arg(long, default_value = "warm", value_parser = ["warm", "cold"])]
    cache: String,
    /// Measure every export method of the engine, not only the default one.
    #[arg(long)]
    all: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cache = if arguments.cache == "cold" { Cache::Cold } else { Cache::Warm };
    for image in arguments.image {
        let options = Options {
            docker: arguments.docker.clone(),
            image: image.parse().with_context(|| format!("{image:?} is not an image name"))?,
            rounds: arguments.rounds,
            places: engine::docker::way::Places {
                data_root: arguments.data_root.clone(),
                containerd_socket: arguments.containerd_socket.clone(),
            },
            cache,
            all: arguments.all,
        };
        run(&options, |line| emit(&line.to_json())).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the JSON lines are this program's output")]
fn emit(line: &str) {
    println!("{line}");
}
