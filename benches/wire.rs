//! `cargo bench -p benches --bench wire`: a gRPC read beside a raw socket, in the same run.

use std::io::Write as _;
use std::path::PathBuf;

use benches::wire::{self, Options, parse_size};
use clap::{Parser, ValueEnum};

/// Reads one blob over gRPC and over bare sockets, and compares speed, CPU time and memory.
#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the blob, in KiB, MiB or GiB; the raw servers hold it in memory.
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// How often each route is taken; the figures are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only routes whose name has this in it: `unix`, `x 16`, `raw tcp`.
    #[arg(long, default_value = "")]
    only: String,
    /// One round of 64 MiB: shows that it works, measures little.
    #[arg(long, conflicts_with_all = ["size", "rounds"])]
    quick: bool,
    /// Where the blob is stored meanwhile; the system's temporary folder unless given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A table for people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// What `cargo bench` passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (size, rounds) =
        if arguments.quick { (64 << 20, 1) } else { (arguments.size, arguments.rounds) };
    let options = Options {
        peer: env!("CARGO_BIN_EXE_wire-peer").into(),
        folder: arguments.folder.unwrap_or_else(std::env::temp_dir),
        size,
        rounds,
        only: arguments.only,
    };
    let mut stderr = std::io::stderr();
    let report = wire::run(&options, |progress| {
        // Progress is for whoever waits; a closed stderr is no reason to stop.
        writeln!(stderr, "round {} of {rounds}: {}", progress.round, progress.route).ok();
    })?;
    let text = match arguments.format {
        Format::Table => report.to_string(),
        Format::Json => report.json_lines()?,
    };
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}
