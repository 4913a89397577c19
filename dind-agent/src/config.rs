//! The dind agent's command line: every flag with its unit, default and environment name.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use engine::docker::LoadWay;
use process::completions::Completions;
use process::inspect::{Inspect, InspectError, InspectFlags};
use process::manual::Manual;
use process::telemetry::Telemetry;
use process::units;
use proto::channel::Endpoint;
use transfer::Reference;

use crate::registry::RegistryFlags;
use crate::seed::Seed;

/// Keeps the Docker engine of one range in step with the wanted images.
///
/// Takes images from a Longshore host agent, moves only the layers that the range's engine lacks,
/// and has the engine confirm every layer before an image gets its name.
#[derive(Clone, Debug, Parser)]
#[command(name = "longshore-dind-agent", version, after_help = EXAMPLES)]
pub struct Config {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub telemetry: Telemetry,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub command: Command,
}

/// Default address of a range's engine.
const ENGINE: &str = "unix:///var/run/docker.sock";

/// Mount point of the host agent's socket in a range.
const HOST: &str = "unix:///run/longshore/host/host.sock";

/// Default socket of the agent of a range.
const LISTEN: &str = "/run/longshore/agent/agent.sock";

const EXAMPLES: &str = "\
Examples:
  As entry point of a range, around the image's own:
    longshore-dind-agent run -- dockerd-entrypoint.sh dockerd
  Beside an engine, as a sidecar that shares its socket:
    longshore-dind-agent serve --engine unix:///var/run/docker.sock
  Once, and done:
    longshore-dind-agent sync postgres:16 python:3.12
Exit codes: 0 done, 1 failure, 2 usage, 3 some images failed, 130 interrupted.";

/// Command of the process.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Be PID 1 of a range: start the engine's entry point and the agent, reap, stop both in order.
    Run(Run),
    /// Serve the range's agent beside an engine that somebody else runs.
    Serve(Serve),
    /// Bring images in once, print how it went, and end.
    Sync(Sync),
    /// Ask a running agent whether it is well: exit 0 when it is.
    Healthcheck(Healthcheck),
    /// Seal or copy the data of a stopped range.
    #[command(hide = true, subcommand)]
    Seed(Seed),
    /// Print the script with which a shell completes this command line.
    Completions(Completions),
    /// Write the manual pages.
    #[command(hide = true)]
    Manual(Manual),
}

/// Source and destination of images.
#[derive(Clone, Debug, Args)]
pub struct Path {
    /// The range's engine: `unix:///path`, `tcp://host:port`, or a folder in an engine's place,
    /// `oci:PATH`.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "LONGSHORE_ENGINE",
        default_value = ENGINE
    )]
    pub engine: String,

    /// The host agent: `unix:///path` or `http://host:port`.
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "LONGSHORE_HOST",
        default_value = HOST
    )]
    pub host: Endpoint,

    /// Images under way at once.
    #[arg(
        long,
        value_name = "COUNT",
        env = "LONGSHORE_CONCURRENCY",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub concurrency: u16,

    /// Load method for images: `archive` (the engine's own `load`, works everywhere), `containerd`
    /// (straight into the containerd beneath it, on the containerd store) or `registry` (the engine
    /// pulls from an endpoint on its own loopback address). `auto` takes the fastest that the
    /// engine's store allows, and another where that is unavailable.
    #[arg(long, value_name = "WAY", env = "LONGSHORE_LOAD_WAY", default_value = "auto")]
    pub load_way: LoadWay,

    /// The socket of the containerd beneath the engine, when not in one of the usual places.
    #[arg(long, value_name = "SOCKET", env = "LONGSHORE_CONTAINERD_SOCKET")]
    pub containerd_socket: Option<PathBuf>,

    /// A folder that outlives the process, for the record of the engine's blobs. Losing it costs
    /// bytes on the next sync, nothing else.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "LONGSHORE_STATE_DIR",
        default_value = "/var/lib/longshore"
    )]
    pub state_dir: PathBuf,

    /// The range's name, in logs, spans and results.
    #[arg(long, value_name = "NAME", env = "LONGSHORE_NAME", default_value_t = host_name())]
    pub name: String,
}

/// A served agent.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub path: Path,

    /// The socket to serve on; its folder is made if need be.
    #[arg(
        long,
        value_name = "PATH",
        env = "LONGSHORE_LISTEN",
        default_value = LISTEN
    )]
    pub listen: PathBuf,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub inspect: InspectFlags,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub registry: RegistryFlags,

    /// An image that is wanted from the start; may be given several times.
    #[arg(
        long = "image",
        value_name = "REFERENCE",
        env = "LONGSHORE_IMAGES",
        value_delimiter = ','
    )]
    pub images: Vec<Reference>,

    /// Time for syncs under way to finish once the agent is asked to end.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_DRAIN_TIMEOUT",
        default_value = "5s",
        value_parser = units::duration
    )]
    pub drain_timeout: Duration,
}

/// The supervisor of a range.
#[derive(Clone, Debug, Args)]
pub struct Run {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub serve: Serve,

    /// Let the engine ask the registry beside it first on pulls from docker.io. This adds one
    /// argument to dockerd. It has no effect on other programs, on an engine with mirrors of its
    /// own, or while another program listens at the registry's address.
    #[arg(
        long,
        value_name = "BOOL",
        env = "LONGSHORE_REGISTRY_MIRROR",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub registry_mirror: bool,

    /// Time for the engine to stop before it is killed.
    #[arg(
        long,
        value_name = "TIME",
        env = "LONGSHORE_ENGINE_STOP_TIMEOUT",
        default_value = "20s",
        value_parser = units::duration
    )]
    pub engine_stop_timeout: Duration,

    /// A pid file to remove before the engine starts, if it is stale; may be given several times.
    #[arg(
        long = "pid-file",
        value_name = "PATH",
        env = "LONGSHORE_PID_FILES",
        value_delimiter = ',',
        default_values = ["/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"]
    )]
    pub pid_files: Vec<PathBuf>,

    /// Set by the supervisor for the agent that it starts from its own command line.
    #[arg(long, hide = true)]
    pub supervised: bool,

    /// The engine's entry point with its arguments.
    #[arg(last = true, required = true, value_name = "ENTRY POINT")]
    pub entry_point: Vec<OsString>,
}

/// One sync.
#[derive(Clone, Debug, Args)]
pub struct Sync {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the command's own")]
    pub path: Path,

    /// Socket of an agent that may be served beside the engine already. If one answers there, it is
    /// asked to do the sync, with its own engine and host.
    #[arg(
        long,
        value_name = "PATH",
        env = "LONGSHORE_LISTEN",
        default_value = LISTEN
    )]
    pub listen: PathBuf,

    /// Ask no served agent. So it is with an --engine or a --host other than the usual, unless an
    /// agent is named with --listen: the served agent has an engine and a host of its own.
    #[arg(long)]
    pub alone: bool,

    /// Format of results on stdout.
    #[arg(long, value_name = "FORM", env = "LONGSHORE_FORMAT", default_value = "table")]
    pub format: Format,

    /// The images, as one would give them to `docker run`.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<Reference>,
}

/// Format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object a line, one line per image.
    Json,
}

/// One question to a running agent.
#[derive(Clone, Debug, Args)]
pub struct Healthcheck {
    /// The socket that the agent serves on.
    #[arg(
        long,
        value_name = "PATH",
        env = "LONGSHORE_LISTEN",
        default_value = LISTEN
    )]
    pub listen: PathBuf,

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
    fn check(&self) -> Result<(), InspectError> {
        match &self.command {
            Command::Run(run) => run.serve.inspect_address().map(|_| ()),
            Command::Serve(serve) => serve.inspect_address().map(|_| ()),
            Command::Sync(_)
            | Command::Healthcheck(_)
            | Command::Seed(_)
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
        self.inspect.address(Inspect::Off)
    }
}

impl Sync {
    /// True if a served agent may be asked: one that was named, or the usual one if engine and host
    /// are the usual ones too.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        let named = self.listen.as_os_str() != LISTEN;
        let usual = self.path.engine == ENGINE && self.path.host.to_string() == HOST;
        !self.alone && (named || usual)
    }
}

/// A container's host name is what its people know it by.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
