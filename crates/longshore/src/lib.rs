//! `longshore`: ranges from the command line, wherever their engines and their host agent are.
//!
//! ```text
//!   command line ─► plugin? ─► cli ─┬─► range   verbs over the library `range`
//!                               │   ├─► host    verbs over a host agent's AdminService
//!                               │   └─► config  where each value of the site came from
//!                               └─► site: flags, environment, longshore.toml, defaults
//! ```
//! A library too: `cargo xtask` runs the same verbs over a site that set-up made.

#![expect(clippy::print_stderr, reason = "progress and errors of a command for people")]

pub mod cli;
pub mod interrupt;
pub mod plugin;
pub mod range;
pub mod site;

mod config;
mod host;
mod version;

use std::process::ExitCode;

pub use site::Site;

use site::Surroundings;

/// The whole process, from its command line to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let mut surroundings = Surroundings::of_this_process();
    let arguments: Vec<_> = std::env::args_os().collect();
    let done = match plugin::called(&arguments, &mut surroundings) {
        Ok(plugin::Call::Metadata) => plugin::print_metadata(),
        Ok(plugin::Call::Command { program, arguments }) => {
            cli::run(program, arguments, &surroundings)
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            process::exit::of(&error)
        }
    }
}
