//! The flags that say where a command works.

use std::path::PathBuf;

use clap::Args;

use super::setting::{Origin, Setting, Value};
use super::surroundings::Surroundings;

/// The flags that say where a command works.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Where it works (see `longshore config`)")]
pub struct SiteFlags {
    /// File with settings, in place of those that are looked for. Environment: `LONGSHORE_CONFIG`.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Engine that has the images, for advice on starting a host agent. Environment:
    /// `LONGSHORE_ENGINE`, `DOCKER_HOST`, or the current docker context.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub engine: Option<String>,
    /// Engine that runs the ranges, on the machine of the host agent; the same unless said.
    /// Environment: `LONGSHORE_RUNNER`.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub runner: Option<String>,
    /// Administrator's socket of the host agent. Environment: `LONGSHORE_HOST_AGENT`.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub host_agent: Option<String>,
    /// File of the dind agent, statically linked: it is mounted into each range. Environment:
    /// `LONGSHORE_AGENT_BINARY`.
    #[arg(long, global = true, value_name = "FILE")]
    pub agent_binary: Option<String>,
    /// Folder of the locks by which commands for the same ranges wait for each other; the same for all
    /// commands of one project. Environment: `LONGSHORE_LOCKS`.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub locks: Option<String>,
    /// Owner of the ranges: their containers' names begin with it, and ranges of other owners on the
    /// same engine are left alone. Environment: `LONGSHORE_PROJECT`.
    #[arg(long, global = true, value_name = "NAME")]
    pub project: Option<String>,
}

impl SiteFlags {
    /// The value that the command line gives a setting.
    pub(super) fn value(&self, setting: Setting, surroundings: &Surroundings) -> Option<Value> {
        let text = match setting {
            Setting::Engine => &self.engine,
            Setting::Runner => &self.runner,
            Setting::HostAgent => &self.host_agent,
            Setting::AgentBinary => &self.agent_binary,
            Setting::Locks => &self.locks,
            Setting::Project => &self.project,
            // A flag of the one command that makes ranges.
            Setting::RangeImage => &None,
        };
        let text = setting.placed(text.clone()?, &surroundings.folder);
        Some(Value { text, origin: Origin::Flag(setting) })
    }
}
