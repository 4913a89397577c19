//! What can be set, and where a value came from.

use std::fmt;
use std::path::{Path, PathBuf};

use proto::Endpoint;

/// One thing that a command needs to know of the place where it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Engine that has the images.
    Engine,
    /// Engine that runs the ranges.
    Runner,
    /// Administrator's socket of the host agent.
    HostAgent,
    /// File of the dind agent, on the machine of the runner.
    AgentBinary,
    /// Image that ranges are made from.
    RangeImage,
    /// Folder of the locks by which commands for the same ranges wait for each other.
    Locks,
    /// Owner of the ranges, where several share an engine.
    Project,
}

impl Setting {
    /// All of them, in the order in which they are decided and printed.
    pub const ALL: [Self; 7] = [
        Self::Engine,
        Self::Runner,
        Self::HostAgent,
        Self::AgentBinary,
        Self::RangeImage,
        Self::Locks,
        Self::Project,
    ];

    /// Its place in [`Setting::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Its key in `longshore.toml`; with `--` before it, its flag.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Runner => "runner",
            Self::HostAgent => "host-agent",
            Self::AgentBinary => "agent-binary",
            Self::RangeImage => "range-image",
            Self::Locks => "locks",
            Self::Project => "project",
        }
    }

    /// Its variable in the environment.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Engine => "LONGSHORE_ENGINE",
            Self::Runner => "LONGSHORE_RUNNER",
            Self::HostAgent => "LONGSHORE_HOST_AGENT",
            Self::AgentBinary => "LONGSHORE_AGENT_BINARY",
            Self::RangeImage => "LONGSHORE_RANGE_IMAGE",
            Self::Locks => "LONGSHORE_LOCKS",
            Self::Project => "LONGSHORE_PROJECT",
        }
    }

    /// Its default where that is the same everywhere; empty where it is not.
    pub(super) fn fixed_default(self) -> &'static str {
        match self {
            Self::Engine => "unix:///var/run/docker.sock",
            Self::HostAgent => "unix:///var/lib/longshore/admin.sock",
            Self::RangeImage => "docker:28-dind",
            Self::Project => "longshore",
            Self::Runner | Self::AgentBinary | Self::Locks => "",
        }
    }

    /// The text as a value of this setting; a relative path begins in `folder`.
    pub(super) fn placed(self, text: String, folder: &Path) -> String {
        match self {
            Self::AgentBinary | Self::Locks if !text.is_empty() => {
                folder.join(text).display().to_string()
            }
            _ => text,
        }
    }

    /// What was expected instead of `text`; `None` when it is a value of this setting.
    pub(super) fn mistake(self, text: &str) -> Option<&'static str> {
        let is_address = text.contains("://") || text.contains(':') && self == Self::Engine;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let (fits, expected) = match self {
            Self::Engine | Self::Runner => {
                (is_address, "an address such as unix:///var/run/docker.sock")
            }
            Self::HostAgent => (
                text.parse::<Endpoint>().is_ok(),
                "an address such as unix:///var/lib/longshore/admin.sock",
            ),
            Self::AgentBinary => (!text.is_empty(), "the path of longshore-dind-agent"),
            Self::Locks => (!text.is_empty(), "the path of a folder"),
            Self::RangeImage => (!text.is_empty(), "an image such as docker:28-dind"),
            Self::Project => {
                (!text.is_empty() && text.chars().all(is_name), "lower-case letters, digits and -")
            }
        };
        (!fits).then_some(expected)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.key())
    }
}

/// A setting's value, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub text: String,
    /// Origin of the value.
    pub origin: Origin,
}

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(Setting),
    /// A variable of the environment.
    Variable(&'static str),
    /// A docker context, by name.
    Context(String),
    /// A file, and the line in it.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Set-up, which made the place.
    SetUp,
    /// Another setting: nobody said anything of this one.
    Same(Setting),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(setting) => write!(f, "--{setting}"),
            Self::Variable(name) => f.write_str(name),
            Self::Context(name) => write!(f, "docker context {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::SetUp => f.write_str("set-up"),
            Self::Same(setting) => write!(f, "as {setting}"),
            Self::Default => f.write_str("default"),
        }
    }
}
