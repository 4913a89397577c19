//! `longshore.toml`: settings as keys with a text each.
//!
//! ```toml
//! host-agent = "unix:///srv/longshore/admin.sock"
//! range-image = "docker:28-dind"
//! ```

use std::path::{Path, PathBuf};

use anyhow::Result;
use process::exit::Usage;
use toml::de::{DeTable, DeValue};

use super::setting::{Origin, Setting, Value};
use super::surroundings::Surroundings;

/// The file's name.
const NAME: &str = "longshore.toml";

/// The variable that names one, as `--config` does.
const VARIABLE: &str = "LONGSHORE_CONFIG";

/// Settings of one file, in its order.
pub(super) type Said = Vec<(Setting, Value)>;

/// The files that count, the one over all others first: the one that is `named`, or else those of
/// the usual places that exist.
///
/// # Errors
/// [`Usage`] for a named file that does not exist, and for one that cannot be read or contains a
/// mistake.
pub(super) fn read_all(named: Option<&Path>, surroundings: &Surroundings) -> Result<Vec<Said>> {
    let named = named.or_else(|| surroundings.variable(VARIABLE).map(Path::new));
    if let Some(named) = named {
        let path = surroundings.folder.join(named);
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        return Ok(vec![parse(&path, &text)?]);
    }
    let mut files = Vec::new();
    for path in usual(surroundings) {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push(parse(&path, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error).into()),
        }
    }
    Ok(files)
}

/// Value of a setting in the files.
pub(super) fn value(files: &[Said], setting: Setting) -> Option<Value> {
    let mut said = files.iter().flatten();
    said.find(|(other, _)| *other == setting).map(|(_, value)| value.clone())
}

/// Places where a file is searched.
fn usual(surroundings: &Surroundings) -> Vec<PathBuf> {
    let person = surroundings.variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let person = person.or_else(|| Some(surroundings.home()?.join(".config")));
    let folders =
        [Some(surroundings.folder.clone()), person.map(|folder| folder.join("longshore"))];
    let machine = surroundings.settings.join("longshore");
    folders.into_iter().flatten().chain([machine]).map(|folder| folder.join(NAME)).collect()
}

fn parse(path: &Path, text: &str) -> Result<Said> {
    let mistake = |at: usize, what: String| {
        let line = line_of(text, at);
        Usage(format!("{}:{line}: {what}", path.display()))
    };
    let table = DeTable::parse(text).map_err(|error| {
        mistake(error.span().map_or(0, |span| span.start), error.message().to_owned())
    })?;
    let folder = path.parent().unwrap_or(path);
    let mut said = Vec::new();
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        let key = key.get_ref().as_ref();
        let Some(setting) = Setting::ALL.into_iter().find(|setting| setting.key() == key) else {
            let known = Setting::ALL.map(Setting::key).join(", ");
            return Err(mistake(at, format!("unknown key `{key}`; the keys are {known}")).into());
        };
        let DeValue::String(text_of_it) = value.get_ref() else {
            let what = format!("`{key}` needs a text in quotation marks");
            return Err(mistake(value.span().start, what).into());
        };
        let origin = Origin::File { path: path.to_owned(), line: line_of(text, at) };
        let value = Value { text: setting.placed(text_of_it.to_string(), folder), origin };
        said.push((setting, value));
    }
    Ok(said)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Usage {
    Usage(format!("{} could not be read: {error}", path.display()))
}

/// The line, from 1, of the byte at this place.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
