//! The place that a command works on: which engines, which host agent, which files.
//!
//! ```text
//!   flag ─► environment ─► longshore.toml ─► default          the first that says something wins
//!            LONGSHORE_…        --config, or: working folder,
//!            DOCKER_HOST        $XDG_CONFIG_HOME/longshore/,
//!            docker context     /etc/longshore/
//! ```
//! Each value keeps its [`Origin`], for `longshore config` and for errors.

mod docker;
mod file;
mod flags;
mod setting;
mod surroundings;
#[cfg(test)]
mod tests;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Result;
use process::exit::Usage;
use range::{RangeError, Settings};

pub use flags::SiteFlags;
pub use setting::{Origin, Setting, Value};
pub use surroundings::Surroundings;

use setting::Setting::{AgentBinary, Engine, HostAgent, Locks, Project, RangeImage, Runner};

/// What set-up made: one engine for images and ranges, and what belongs to it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The engine.
    pub engine: String,
    /// The administrator's socket of the host agent.
    pub host_agent: String,
    /// File of the dind agent.
    pub agent_binary: PathBuf,
    /// Image that ranges are made from; empty where none are made.
    pub range_image: String,
    /// Folder of the locks.
    pub locks: PathBuf,
}

/// The place that a command works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Name of the program in messages: `longshore`, `docker longshore`, `cargo xtask`.
    pub program: &'static str,
    values: [Value; Setting::ALL.len()],
}

impl Site {
    /// Decides each setting from the command line, the environment, files and defaults.
    ///
    /// # Errors
    /// [`Usage`] for a file that cannot be read or contains a mistake, a docker context that does
    /// not exist, and a value that makes no sense, each with its place.
    pub fn find(
        flags: &SiteFlags,
        surroundings: &Surroundings,
        program: &'static str,
    ) -> Result<Self> {
        let files = file::read_all(flags.config.as_deref(), surroundings)?;
        let mut values: Vec<Value> = Vec::new();
        for setting in Setting::ALL {
            let said = flags.value(setting, surroundings);
            let said = said.or_else(|| surroundings.value(setting));
            let said = match said {
                None if setting == Engine => docker::engine(surroundings)?,
                said => said,
            };
            let said = said.or_else(|| file::value(&files, setting));
            // The default of the runner is the engine, which stands before it.
            let value = said.unwrap_or_else(|| default(setting, &values, surroundings));
            values.push(checked(setting, value)?);
        }
        let values = values.try_into().map_err(|_| Usage("a setting is missing".to_owned()))?;
        Ok(Self { program, values })
    }

    /// A site that set-up made.
    #[must_use]
    pub fn made(program: &'static str, made: &Made) -> Self {
        let values = Setting::ALL.map(|setting| {
            let text = match setting {
                Engine | Runner => made.engine.clone(),
                HostAgent => made.host_agent.clone(),
                AgentBinary => made.agent_binary.display().to_string(),
                RangeImage => made.range_image.clone(),
                Locks => made.locks.display().to_string(),
                Project => setting.fixed_default().to_owned(),
            };
            Value { text, origin: Origin::SetUp }
        });
        Self { program, values }
    }

    /// The value of a setting.
    #[must_use]
    pub fn value(&self, setting: Setting) -> &Value {
        &self.values[setting.index()]
    }

    /// The text of a setting's value.
    #[must_use]
    pub fn text(&self, setting: Setting) -> &str {
        &self.value(setting).text
    }

    /// Settings of the library `range` for this site, with at most `concurrency` ranges at once.
    #[must_use]
    pub fn settings(&self, concurrency: Option<usize>) -> Settings {
        let [runner, host_agent, agent] =
            [Runner, HostAgent, AgentBinary].map(|setting| self.text(setting));
        let settings = Settings::new(runner, host_agent, agent);
        Settings {
            project: self.text(Project).to_owned(),
            locks: self.text(Locks).into(),
            concurrency: concurrency.unwrap_or(settings.concurrency),
            ..settings
        }
    }

    /// An error of the library `range` with its next step on this site.
    #[must_use]
    pub fn explain(&self, error: &RangeError) -> anyhow::Error {
        let text = match error {
            RangeError::HostAgent { .. } => match self.why_silent() {
                Some(why) => format!("{}; {why}", transfer::explain(error)),
                None => error.explain(),
            },
            RangeError::AgentBinary { .. } => format!(
                "{}; install the dind agent there, or name its file with --agent-binary ({})",
                transfer::explain(error),
                self.value(AgentBinary).origin
            ),
            RangeError::NoRangeImage { image } => format!(
                "{}; `docker pull {image}`, or name another one with --range-image",
                transfer::explain(error)
            ),
            RangeError::Unknown { .. } => {
                format!(
                    "{}; `{} range ls` lists the ranges",
                    transfer::explain(error),
                    self.program
                )
            }
            _ => error.explain(),
        };
        anyhow::anyhow!(text)
    }

    /// Prints on stderr why the host agent does not answer; nothing when it does.
    pub fn print_why_silent(&self) {
        if let Some(why) = self.why_silent() {
            eprintln!("{why}");
        }
    }

    /// Why the host agent does not answer, and what to do; `None` when its socket takes connections,
    /// or the agent is not on this machine.
    #[must_use]
    pub fn why_silent(&self) -> Option<String> {
        let Value { text, origin } = self.value(HostAgent);
        let socket = Path::new(text.strip_prefix("unix://")?);
        let error = UnixStream::connect(socket).err()?;
        let socket = socket.display();
        Some(match error.kind() {
            std::io::ErrorKind::PermissionDenied => format!(
                "you may not open {socket}: run the command as the socket's owner (`ls -l {socket}`), \
                 for root's with sudo"
            ),
            _ => format!(
                "no host agent listens on {socket} ({origin}): start one with `systemctl start \
                 longshore-host-agent`, with docker compose, or by hand with \
                 `longshore-host-agent run --engine {}`; if it runs elsewhere, name its admin.sock \
                 with --host-agent",
                self.text(Engine)
            ),
        })
    }
}

/// What a setting is when nobody says.
fn default(setting: Setting, before: &[Value], surroundings: &Surroundings) -> Value {
    match setting {
        Runner => {
            let engine = before.first().map_or("", |engine| engine.text.as_str());
            Value { text: engine.to_owned(), origin: Origin::Same(Engine) }
        }
        AgentBinary => {
            let path = agent_binary(surroundings);
            Value { text: path.display().to_string(), origin: Origin::Default }
        }
        Locks => {
            let text = locks(surroundings).display().to_string();
            Value { text, origin: Origin::Default }
        }
        _ => Value { text: setting.fixed_default().to_owned(), origin: Origin::Default },
    }
}

/// The library's folder for root; others cannot make that one.
fn locks(surroundings: &Surroundings) -> PathBuf {
    let own = surroundings.variable("XDG_RUNTIME_DIR").filter(|_| !surroundings.is_root);
    own.map_or_else(|| range::LOCKS.into(), |folder| Path::new(folder).join("longshore/locks"))
}

/// The dind agent beside this program, else in the usual places; beside this program when there is
/// none, for the error that says so.
fn agent_binary(surroundings: &Surroundings) -> PathBuf {
    const NAME: &str = "longshore-dind-agent";
    let beside = surroundings.program.with_file_name(NAME);
    let usual = ["/usr/local/bin", "/usr/bin"].map(|folder| Path::new(folder).join(NAME));
    let found = std::iter::once(&beside).chain(&usual).find(|path| path.exists());
    found.unwrap_or(&beside).clone()
}

/// The value, when it makes sense.
fn checked(setting: Setting, value: Value) -> Result<Value> {
    match setting.mistake(&value.text) {
        None => Ok(value),
        Some(expected) => {
            let Value { text, origin } = value;
            let text =
                format!("{setting} = {text:?} ({origin}) makes no sense: expected {expected}");
            Err(Usage(text).into())
        }
    }
}
