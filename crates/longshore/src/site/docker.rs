//! Docker's own word on which engine is meant: `DOCKER_HOST`, else the current context.
//!
//! ```text
//!   $DOCKER_CONFIG or ~/.docker
//!     config.json                       {"currentContext": "NAME"}; DOCKER_CONTEXT is over it
//!     contexts/meta/<hash>/meta.json    {"Name": "NAME", "Endpoints": {"docker": {"Host": "unix:///…"}}}
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use process::exit::Usage;
use serde_json::Value as Json;

use super::setting::{Origin, Value};
use super::surroundings::Surroundings;

/// The context that stands for no context.
const DEFAULT: &str = "default";

/// The engine that Docker's client would use; `None` when nobody told it.
///
/// # Errors
/// [`Usage`] when the current context is not there, or its file makes no sense.
pub(super) fn engine(surroundings: &Surroundings) -> Result<Option<Value>> {
    const HOST: &str = "DOCKER_HOST";
    if let Some(host) = surroundings.variable(HOST) {
        return Ok(Some(Value { text: host.to_owned(), origin: Origin::Variable(HOST) }));
    }
    let folder = surroundings.variable("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(surroundings.home()?.join(".docker")));
    let Some(folder) = folder else { return Ok(None) };
    let (name, from) = match surroundings.variable("DOCKER_CONTEXT") {
        Some(name) => (name.to_owned(), "DOCKER_CONTEXT".to_owned()),
        None => {
            let file = folder.join("config.json");
            let Some(config) = read(&file)? else { return Ok(None) };
            let name = config["currentContext"].as_str().unwrap_or(DEFAULT);
            (name.to_owned(), file.display().to_string())
        }
    };
    if name == DEFAULT || name.is_empty() {
        return Ok(None);
    }
    match host_of(&folder, &name)? {
        Some(text) => Ok(Some(Value { text, origin: Origin::Context(name) })),
        None => {
            let text = format!(
                "docker context {name:?} ({from}) does not exist or names no engine; `docker context ls` \
                 lists the contexts, and --engine and --runner name engines without one"
            );
            Err(Usage(text).into())
        }
    }
}

/// The engine's address in the context of this name.
fn host_of(folder: &Path, name: &str) -> Result<Option<String>> {
    let Ok(entries) = std::fs::read_dir(folder.join("contexts/meta")) else { return Ok(None) };
    for entry in entries.filter_map(Result::ok) {
        let Some(meta) = read(&entry.path().join("meta.json"))? else { continue };
        if meta["Name"] == name {
            return Ok(meta["Endpoints"]["docker"]["Host"].as_str().map(str::to_owned));
        }
    }
    Ok(None)
}

/// The file's content; `None` when there is no such file.
fn read(file: &Path) -> Result<Option<Json>> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("reading {}", file.display()));
        }
    };
    let json = serde_json::from_slice(&text);
    let json = json.map_err(|error| Usage(format!("{} is not JSON: {error}", file.display())))?;
    Ok(Some(json))
}
