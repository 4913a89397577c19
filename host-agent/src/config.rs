//! The host agent's command line: every flag with its unit, default and environment name.

mod source;
mod store;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use process::completions::Completions;
use process::inspect::{Inspect, InspectError, InspectFlags};
use process::manual::Manual;
use process::output::Format;
use process::telemetry::Telemetry;
use process::units::{self, ByteSize};

use control::{Pattern, RangeName};

pub use source::{ExportWay, Source};
pub use store::{Amount, AmountError, KeepLayers, StoreFlags};

/// One pattern of the images that a range may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeGrant {
    /// The range.
    pub range: RangeName,
    /// The pattern.
    pub pattern: Pattern,
}

impl FromStr for RangeGrant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (range, pattern) =
            text.split_once('=').ok_or("expected NAME=PATTERN, such as ci=team/*")?;
        let range = range.parse::<RangeName>().map_err(|error| error.to_string())?;
        let pattern = pattern.parse::<Pattern>().map_err(|error| error.to_string())?;
        Ok(Self { range, pattern })
    }
}

/// Serves the images of this host's Docker engine to its ranges.
///
/// Each layer is taken from the engine once for all ranges that want it, kept in a store of its own
/// while others may, and streamed to any range that lacks it.
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
  See how it is:
    longshore-host-agent status
Exit codes: 0 done, 1 failure, 2 usage, 3 it runs and does not serve, 130 interrupted.";

/// Command of the process.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop.
    Serve(Serve),
    /// Serve, and start again when that is killed: for machines where no unit does it.
    Run(Run),
    /// Ask a running agent whether it is well: exit 0 when it is.
    Healthcheck(Healthcheck),
    /// Print how a running agent is: exit 0 when it serves, 3 when it runs and does not.
    Status(Status),
    /// Print the script with which a shell completes this command line.
    Completions(Completions),
    /// Write the manual pages.
    #[command(hide = true)]
    Manual(Manual),
}

/// A served agent.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub source: Source,

    /// Folder of the agent's layers and sockets.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = STATE_DIR
    )]
    pub state_dir: PathBuf,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub inspect: InspectFlags,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub store: StoreFlags,

    /// Serve this range from the start, beside those that were added before; may be given several
    /// times, or with commas between. Its socket is `ranges/NAME/host/host.sock` in the state folder.
    #[arg(long = "range", value_name = "NAME", env = "LONGSHORE_RANGES", value_delimiter = ',')]
    pub ranges: Vec<RangeName>,

    /// Let a range of --range read only its wanted images and those that this pattern matches; may be
    /// given several times. A pattern is a glob over image names: `ci=team/*`, `ci=python:3.*`. In
    /// it, `*` stands for any characters but `/`, `:` and `@`, `**` for any characters; without a tag
    /// it means every tag. A range without patterns may read every image.
    #[arg(
        long = "grant",
        value_name = "NAME=PATTERN",
        env = "LONGSHORE_GRANTS",
        value_delimiter = ','
    )]
    pub grants: Vec<RangeGrant>,

    /// Allow remote ranges to be served on TCP addresses that other machines can reach. Every
    /// caller that reaches such an address is taken for that range, and may read its images.
    #[arg(long, env = "LONGSHORE_REMOTE_ANY")]
    pub remote_any: bool,

    /// Layers read at once, by all ranges together.
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

    /// Bytes of layers in memory on their way to all ranges together. A layer begins when there is
    /// room for the 6 MiB of it that may be under way at once.
    #[arg(
        long,
        value_name = "SIZE",
        env = "LONGSHORE_IN_FLIGHT",
        default_value = "96MiB",
        value_parser = units::byte_size
    )]
    pub in_flight: ByteSize,

    /// Bytes of layers in memory on their way to one range.
    #[arg(
        long,
        value_name = "SIZE",
        env = "LONGSHORE_IN_FLIGHT_PER_RANGE",
        default_value = "24MiB",
        value_parser = units::byte_size
    )]
    pub in_flight_per_range: ByteSize,

    /// Time that a range may leave an image unread before it has to ask for it again.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_LEASE",
        default_value = "10m",
        value_parser = units::duration
    )]
    pub lease: Duration,

    /// Time for streams under way to finish once the agent is asked to end.
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
    /// Folder of the agent's state.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = STATE_DIR
    )]
    pub state_dir: PathBuf,

    /// Maximum time to wait for the answer.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_HEALTHCHECK_TIMEOUT",
        default_value = "5s",
        value_parser = units::duration
    )]
    pub timeout: Duration,
}

/// Status of a running agent.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Folder of the agent's state.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = STATE_DIR
    )]
    pub state_dir: PathBuf,

    /// Format of the status on stdout.
    #[arg(long, value_name = "FORM", env = "LONGSHORE_FORMAT", default_value = "table")]
    pub format: Format,

    /// Maximum time to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    pub timeout: Duration,
}

/// Default address for inspection of a host agent.
const INSPECT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

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

    /// Checks that the flags agree.
    fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Serve(serve) | Command::Run(Run { serve, .. }) => {
                serve.inspect_address().map_err(|error| error.to_string())?;
                serve.store.check().map_err(|error| error.to_string())
            }
            Command::Healthcheck(_)
            | Command::Status(_)
            | Command::Completions(_)
            | Command::Manual(_) => Ok(()),
        }
    }
}

impl Serve {
    /// Returns the address for inspection; `None` when it is switched off.
    ///
    /// # Errors
    /// An address that other machines can reach, without `--inspect-any`.
    pub fn inspect_address(&self) -> Result<Option<SocketAddr>, InspectError> {
        self.inspect.address(Inspect::At(INSPECT))
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
