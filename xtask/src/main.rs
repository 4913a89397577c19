//! Set-up, tests, demo and bulk provisioning.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are commands for people: results go to stdout, progress to stderr"
)]

mod exit;
mod text;

mod bench;
mod build;
mod codegen;
mod demo;
mod host_agent;
mod range;
mod setup;
mod test;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::exit::{Exit, Usage};
use crate::setup::Ranges;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, tests, demo and bulk provisioning of Longshore.",
    after_help = "Everything lies in LONGSHORE_STATE (/var/lib/longshore-xtask for root). An engine that DOCKER_HOST names, \
                  or that this machine has, is used with labelled objects alone; else a private one is started."
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Shows the main job from a bare machine: sets up what is missing, fills three ranges on both
    /// image stores, and runs a program of each image in each. Without an engine and without root
    /// it shows the same between folders.
    Demo(demo::Options),
    /// Provisions ranges: up, ls, status, sync, verify, exec, down.
    #[command(subcommand, after_help = range::EXAMPLES)]
    Range(range::Command),
    /// Sets up what is missing, runs every check and every test, and counts them.
    Test(test::Options),
    /// Measures whole provisioning beside what a user would pick instead, in one run.
    Bench(bench::Options),
    /// Writes the protocol's bindings anew from its .proto files.
    Codegen,
    /// Builds both agents, statically linked, and an image with them for compose files and pods.
    Image,
    /// Prints the script with which a shell completes `xtask`, an alias of `cargo xtask`.
    Completions {
        /// The shell that will read the script.
        shell: clap_complete::Shell,
    },
    /// Makes an engine, range images and the demo stack, as far as they are missing.
    Setup {
        /// The range image with the oldest supported engine, 20.10, too.
        #[arg(long)]
        all: bool,
    },
    /// Removes all that the other commands made on this machine, and nothing else.
    Teardown,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Demo(options) => demo::run(&options).map(ExitCode::from),
        Task::Range(command) => range::run(&command).map(ExitCode::from),
        Task::Test(options) => test::run(options),
        Task::Bench(options) => bench::run(&options).map(ExitCode::from),
        Task::Codegen => codegen::run().map(|()| Exit::Ok.into()),
        Task::Image => image().map(|()| Exit::Ok.into()),
        Task::Completions { shell } => completions(shell).map(|()| Exit::Ok.into()),
        Task::Setup { all: false } => setup::show(Ranges::Usual).map(|()| Exit::Ok.into()),
        Task::Setup { all: true } => setup::show(Ranges::All).map(|()| Exit::Ok.into()),
        Task::Teardown => setup::teardown().map(|()| Exit::Ok.into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

/// Builds the agents and the image with them, and says where they are.
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

/// Prints completions for the one word that a shell can complete: an alias.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command().bin_name("xtask"), "xtask", &mut script);
    std::io::stdout().lock().write_all(&script).context("writing the completions")
}

/// The root of the workspace that this was built from.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
