//! Everything of this process's environment that decides where a command works, as values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::setting::{Origin, Setting, Value};

/// Surroundings of a process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables of the environment; one that is set and empty means the same as one that is not.
    pub variables: BTreeMap<String, String>,
    /// The working folder.
    pub folder: PathBuf,
    /// The program's own file, links resolved.
    pub program: PathBuf,
    /// Whether the person is root.
    pub is_root: bool,
    /// The machine's folder of settings: `/etc`.
    pub settings: PathBuf,
}

impl Surroundings {
    /// Those of this process. What cannot be found out is absent.
    #[must_use]
    pub fn of_this_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            folder: std::env::current_dir().unwrap_or_default(),
            program: std::env::current_exe().unwrap_or_default(),
            is_root: rustix::process::geteuid().is_root(),
            settings: PathBuf::from("/etc"),
        }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value that a variable of ours gives a setting.
    pub(super) fn value(&self, setting: Setting) -> Option<Value> {
        let name = setting.variable();
        let text = setting.placed(self.variable(name)?.to_owned(), &self.folder);
        Some(Value { text, origin: Origin::Variable(name) })
    }

    /// The person's home folder.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }
}
