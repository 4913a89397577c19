//! `cargo bench -p benches --bench wire`: a gRPC read compared with a raw socket in the same run.

use std::io::Write as _;
use std::path::PathBuf;

use benches::wire::{self, Options, parse_size};
use clap::{Parser, ValueEnum};

/// Read one blob over gRPC and over bare sockets, and compare speed, CPU time and memory.
#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the blob, with the unit KiB, MiB or GiB. The raw servers keep it in memory.
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// Number of rounds. Each runs every route once; figures are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Run only routes whose name contains this text, such as `unix`, `x 16` or `raw tcp`.
    #[arg(long, default_value = "")]
    only: String,
    /// Run one round with 64 MiB, to check that everything works.
    #[arg(long, conflicts_with_all = ["size", "rounds"])]
    quick: bool,
    /// Folder for the blob during the run [default: the system's temporary folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Output as a table, or as one JSON object per line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Ignored; `cargo bench` passes it to every bench.
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
        // A closed stderr must not stop the run.
        writeln!(stderr, "round {} of {rounds}: {}", progress.round, progress.route).ok();
    })?;
    let text = match arguments.format {
        Format::Table => report.to_string(),
        Format::Json => report.json_lines()?,
    };
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}
