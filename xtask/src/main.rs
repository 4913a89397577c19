//! Set-up, tests, demo and bulk provisioning.

mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests, demo and bulk provisioning of Longshore.")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes an engine, range images and the demo stack, as far as they are missing.
    Setup,
    /// Removes all that the other commands made on this machine, and nothing else.
    Teardown,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Setup => setup::show(),
        Task::Teardown => setup::teardown(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn fail(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
