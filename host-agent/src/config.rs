//! The host agent's command line: every flag with its unit, default and environment name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent::inspect::{Inspect, InspectError};
use agent::telemetry::Telemetry;
use agent::units;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// Serves the images of this host's Docker engine to its ranges.
///
/// Each layer is taken from the engine once, kept in a store of its own, and streamed to any range
/// that lacks it.
#[derive(Clone, Debug, Parser)]
#[command(name = "longshore-host-agent", version, after_help = EXAMPLES)]
pub struct Config {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub telemetry: Telemetry,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Serve the engine of this machine:
    longshore-host-agent serve
  Look at what it serves:
    grpcurl -plaintext 127.0.0.1:7070 longshore.v1.InventoryService/ListImages
    grpcurl -plaintext -unix /var/lib/longshore/admin.sock longshore.v1.AdminService/GetStats
Exit codes: 0 done, 1 failure, 2 usage, 130 interrupted.";

/// What the process is to be.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop.
    Serve(Serve),
    /// Serve, and start again when that is killed: for machines where no unit does it.
    Run(Run),
    /// Ask a running agent whether it is well: exit 0 when it is.
    Healthcheck(Healthcheck),
}

/// A served agent.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// The engine whose images are served: `unix:///path` or `tcp://host:port`. `DOCKER_HOST` is the
    /// default where it is set.
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_ENGINE", default_value_t = docker_host())]
    pub engine: String,

    /// Where the agent keeps its layers and makes its sockets.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = STATE_DIR
    )]
    pub state_dir: PathBuf,

    /// Serve on this TCP address as well, for grpcurl and its like; `off` for none. Whoever can
    /// reach it sees what there is, and can read no layer and change nothing.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "LONGSHORE_INSPECT",
        default_value = "127.0.0.1:7070"
    )]
    pub inspect: Inspect,

    /// Allow an inspection address that other machines can reach.
    #[arg(long, env = "LONGSHORE_INSPECT_ANY")]
    pub inspect_any: bool,

    /// Allow remote ranges to be served on TCP addresses that other machines can reach; whoever
    /// reaches such an address is taken for that range, and may read the images of this host.
    #[arg(long, env = "LONGSHORE_REMOTE_ANY")]
    pub remote_any: bool,

    /// Layers read at once, by all ranges together. Each takes about 3 MiB of memory.
    #[arg(
        long,
        value_name = "COUNT",
        env = "LONGSHORE_READS",
        default_value_t = 24,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub reads: u16,

    /// Layers read at once by one range.
    #[arg(
        long,
        value_name = "COUNT",
        env = "LONGSHORE_READS_PER_RANGE",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub reads_per_range: u16,

    /// How long a range may leave an image unread before it has to ask for it again.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_LEASE",
        default_value = "10m",
        value_parser = units::duration
    )]
    pub lease: Duration,

    /// How long streams under way may still take once the end was asked for.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_DRAIN_TIMEOUT",
        default_value = "30s",
        value_parser = units::duration
    )]
    pub drain_timeout: Duration,
}

/// A served agent with a supervisor.
#[derive(Clone, Debug, Args)]
pub struct Run {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub serve: Serve,

    /// Set by the supervisor for the agent that it starts from its own command line.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// One question to a running agent.
#[derive(Clone, Debug, Args)]
pub struct Healthcheck {
    /// Where the agent keeps its state.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = STATE_DIR
    )]
    pub state_dir: PathBuf,

    /// How long to wait for the answer.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_HEALTHCHECK_TIMEOUT",
        default_value = "5s",
        value_parser = units::duration
    )]
    pub timeout: Duration,
}

/// The default state folder.
const STATE_DIR: &str = "/var/lib/longshore";

impl Config {
    /// Reads the process's command line and environment; ends the process with 2 where they make
    /// no sense.
    #[must_use]
    pub fn read() -> Self {
        let config = Self::parse();
        match config.check() {
            Ok(()) => config,
            Err(error) => Self::command().error(ErrorKind::ValueValidation, error).exit(),
        }
    }

    /// What the flags must agree on.
    fn check(&self) -> Result<(), InspectError> {
        match &self.command {
            Command::Serve(serve) | Command::Run(Run { serve, .. }) => {
                serve.inspect_address().map(|_| ())
            }
            Command::Healthcheck(_) => Ok(()),
        }
    }
}

impl Serve {
    /// Where to listen for inspection; `None` where it is switched off.
    ///
    /// # Errors
    /// An address that other machines can reach, without [`inspect_any`](Self::inspect_any).
    pub fn inspect_address(&self) -> Result<Option<SocketAddr>, InspectError> {
        self.inspect.address(self.inspect_any)
    }
}

fn docker_host() -> String {
    let address = std::env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty());
    address.unwrap_or_else(|| "unix:///var/run/docker.sock".into())
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
