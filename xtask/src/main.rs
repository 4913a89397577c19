//! `cargo xtask`: set-up, demo, tests, benchmarks and ranges.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: results go to stdout, progress to stderr"
)]

mod workspace;

mod bench;
mod build;
mod codegen;
mod demo;
mod dist;
mod host_agent;
mod range;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use process::completions::Completions;
use process::exit::{self, Exit};
use process::output;

use crate::setup::Ranges;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set up, demonstrate, test and measure Longshore.",
    after_help = "All files are in LONGSHORE_STATE (default for root: /var/lib/longshore-xtask). The commands use the engine of \
                  DOCKER_HOST, or this machine's engine, and label all objects that they make there. Without an engine, \
                  they start a private one."
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Demonstrate Longshore on a bare machine: set up what is missing, fill three ranges on both image
    /// stores, and run a program of each image in each range. Without an engine and without root, use
    /// folders instead of engines.
    Demo(demo::Options),
    /// Provision ranges: up, ls, status, sync, verify, exec, down.
    #[command(subcommand, after_help = range::ABOUT)]
    Range(longshore::range::Command),
    /// Set up what is missing, run all checks and tests, and count them.
    Test(test::Options),
    /// Measure provisioning, compared with `docker save | docker load`, a registry and skopeo.
    Bench(bench::Options),
    /// Regenerate the protocol's bindings from its .proto files.
    Codegen,
    /// Build both agents as static binaries, and an image with them for compose files and pods.
    Image,
    /// Build the command and both agents as static binaries, and pack them with completions, manual
    /// pages and a systemd unit as .tar.zst and .deb. Needs no engine and no root.
    Dist(dist::Options),
    /// Print a completion script for `xtask`, an alias of `cargo xtask`.
    Completions(Completions),
    /// Set up an engine, range images and the demo stack, as far as they are missing.
    Setup {
        /// Include the range image with the oldest supported engine, 20.10.
        #[arg(long)]
        all: bool,
    },
    /// Remove everything that the other commands made on this machine, and nothing else.
    Teardown,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Demo(options) => demo::run(&options).map(ExitCode::from),
        Task::Range(command) => range::run(command).map(ExitCode::from),
        Task::Test(options) => test::run(options),
        Task::Bench(options) => bench::run(&options).map(ExitCode::from),
        Task::Codegen => codegen::run().map(|()| Exit::Ok.into()),
        Task::Dist(options) => dist::run(&options).map(|()| Exit::Ok.into()),
        Task::Image => image().map(|()| Exit::Ok.into()),
        Task::Completions(shell) => completions(shell).map(|()| Exit::Ok.into()),
        Task::Setup { all: false } => setup::show(Ranges::Usual).map(|()| Exit::Ok.into()),
        Task::Setup { all: true } => setup::show(Ranges::All).map(|()| Exit::Ok.into()),
        Task::Teardown => setup::teardown().map(|()| Exit::Ok.into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        exit::of(&error)
    })
}

/// Builds the agents and the image with them, and prints their locations.
fn image() -> anyhow::Result<()> {
    let agents = build::agents()?;
    let binaries = [&agents.host_agent, &agents.dind_agent];
    let reference = setup::agents_image(&binaries.map(std::path::PathBuf::as_path))?;
    for path in binaries {
        println!("binary  {}", path.display());
    }
    println!("image   {reference}");
    Ok(())
}

/// Prints completions for the alias `xtask`, since a shell cannot complete `cargo xtask`.
fn completions(completions: Completions) -> anyhow::Result<()> {
    output::print(&completions.script(Cli::command().name("xtask").bin_name("xtask")))
}
