//! An engine's images read by Longshore beside `docker save` to `/dev/null`, in the same run: one JSON
//! object a line, run by `cargo xtask bench`.
//!
//! ```text
//! export-peer --docker unix:///run/docker.sock --image python:3.13 --rounds 3
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use benches::export::{Cache, Options, run};
use clap::Parser;

/// As in the agents: 1 MiB buffers fault pages under glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reads an engine's images by Longshore and by `docker save`, interleaved, and prints a JSON object
/// for each measure.
#[derive(Debug, Parser)]
struct Arguments {
    /// The engine: `unix:///run/docker.sock`, `tcp://127.0.0.1:2375`.
    #[arg(long)]
    docker: String,
    /// An image of the engine; may be given several times, each is measured.
    #[arg(long, required = true)]
    image: Vec<String>,
    /// How often each measure is taken; medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the engine's data-root can be read, when not where the engine says.
    #[arg(long)]
    data_root: Option<PathBuf>,
    /// The socket of the containerd beneath the engine, when not where it usually is.
    #[arg(long)]
    containerd_socket: Option<PathBuf>,
    /// What the page cache has before each read, of ours and of save alike. `cold` needs root, and
    /// empties it for the whole machine.
    #[arg(long, default_value = "warm", value_parser = ["warm", "cold"])]
    cache: String,
    /// Measure all ways of reading that the engine has, not only those with a goal.
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
            image: image.parse().with_context(|| format!("{image:?} names no image"))?,
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

#[expect(clippy::print_stdout, reason = "the lines are what this program is for")]
fn emit(line: &str) {
    println!("{line}");
}
