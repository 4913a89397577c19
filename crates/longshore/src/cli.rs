//! The command line, parsed into types and carried out.

use std::ffi::OsString;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use process::completions::Completions;
use process::exit::Exit;
use process::manual::Manual;

use crate::config::Config;
use crate::host;
use crate::range;
use crate::site::{Site, SiteFlags, Surroundings};
use crate::version;

/// Docker-in-Docker ranges with the images of a host.
#[derive(Debug, Parser)]
#[command(
    name = "longshore",
    version,
    about = "Brings a host's images into Docker-in-Docker ranges, and keeps them in step.",
    after_help = "Exit codes: 0 done, 1 failure, 2 usage, 3 some ranges or images failed, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    site: SiteFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, fill, look into and remove ranges.
    #[command(subcommand, after_help = range::EXAMPLES)]
    Range(range::Command),
    /// Look after a host agent: its ranges, its store, and the blobs that it sends.
    #[command(subcommand, after_help = host::EXAMPLES)]
    Host(host::Command),
    /// Print where the command works, and where each setting came from.
    Config(Config),
    /// Print the script with which a shell completes this command line.
    Completions(Completions),
    /// Write the manual pages.
    #[command(hide = true)]
    Manual(Manual),
    /// Print the version of this program and of the host agent.
    Version,
}

/// Carries a command line out. A command line that makes no sense, and `--help`, end the process as
/// clap does.
///
/// # Errors
/// When it could not be done at all; the exit code tells of ranges and images that failed.
pub fn run(
    program: &'static str,
    arguments: Vec<OsString>,
    surroundings: &Surroundings,
) -> Result<Exit> {
    let matches = Cli::command().bin_name(program).get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let site = || Site::find(&cli.site, surroundings, program);
    match cli.command {
        Command::Range(command) => range::run(&command, &site()?),
        Command::Host(command) => host::run(&command, &site()?),
        Command::Config(config) => crate::config::run(config, &site()?),
        Command::Completions(completions) => completions.print::<Cli>(),
        Command::Manual(manual) => manual.write::<Cli>(),
        Command::Version => version::run(&site()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
