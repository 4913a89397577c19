//! A project: reads the files, collects variables, substitutes them and parses image names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use transfer::Reference;

use crate::dotenv;
use crate::error::{Fault, FaultAt, StackError, Unset, excerpt};
use crate::image::{Reason, StackImage, add};
use crate::interpolate::{Interpolated, interpolate};
use crate::location::Position;
use crate::model::{Model, Service, Text};
use crate::yaml;

/// Largest file, in bytes. Real compose files reach about 100 kB. The parser needs less than a
/// second for the worst file of this size.
pub const MAX_FILE: u64 = 1 << 20;

/// The project's name, a variable that compose itself sets.
const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// Reads the images of compose files, in the order of their first mention.
///
/// Later files override earlier ones. `env_files` replace the `.env` beside the first file, and
/// later ones override earlier ones. Without any, a missing `.env` is not an error. `environment`
/// overrides all files; the process's own environment is not read.
///
/// # Errors
/// [`StackError`] with the unreadable file, or with the location of a fault.
pub fn read(
    files: &[PathBuf],
    env_files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<Vec<StackImage>, StackError> {
    let first = files.first().ok_or(StackError::NoFiles)?;
    let folder = match first.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut model = Model::default();
    for file in files {
        let text = text(file)?;
        let file: Arc<Path> = Arc::from(file.as_path());
        model.add(&file, &yaml::parse(&text).map_err(|found| located(&file, found))?)?;
    }
    let mut variables = variables(folder, env_files, environment)?;
    let name = project_name(&model, folder, &variables)?;
    variables.entry(PROJECT_NAME.to_owned()).or_insert(name);
    images(&model, first, &variables)
}

/// The variables of all environment files, overridden by the environment.
fn variables(
    folder: &Path,
    env_files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StackError> {
    let default = folder.join(".env");
    let default = [default];
    let is_default = env_files.is_empty();
    let env_files = if is_default { &default[..] } else { env_files };
    let mut variables = BTreeMap::new();
    for file in env_files {
        let text = match text(file) {
            Err(StackError::Unreadable { source, .. })
                if is_default && is_absent_or_folder(&source) =>
            {
                continue;
            }
            text => text?,
        };
        let read = dotenv::parse(&text, environment, &mut variables);
        read.map_err(|found| located(&Arc::from(file.as_path()), found))?;
    }
    variables.extend(environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(variables)
}

fn is_absent_or_folder(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory)
}

/// The project's default name: its `name` key, or else its folder's name.
fn project_name(
    model: &Model,
    folder: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<String, StackError> {
    let name = match &model.name {
        Some(text) => substituted(text, variables)?.text,
        None => {
            // A folder that cannot be resolved gives an empty name. An image that uses the name is
            // then refused as empty or invalid.
            let folder = folder.canonicalize().unwrap_or_default();
            folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
    };
    let lower = name.to_lowercase();
    let kept: String =
        lower.chars().filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')).collect();
    Ok(kept.trim_start_matches(['-', '_']).to_owned())
}

fn images(
    model: &Model,
    first: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<StackImage>, StackError> {
    if model.services.is_empty() {
        return Err(Fault::NoServices.into_error(Position::START.in_file(&Arc::from(first))));
    }
    let mut images = Vec::new();
    for service in &model.services {
        let (reference, reason) = image(service, variables)?;
        add(&mut images, reference, reason);
    }
    Ok(images)
}

/// The image of one service.
fn image(
    service: &Service,
    variables: &BTreeMap<String, String>,
) -> Result<(Reference, Reason), StackError> {
    let name = || service.name.clone();
    let without = || match &service.build {
        Some(location) => Fault::BuildWithoutImage { service: name() }.into_error(location.clone()),
        None => Fault::NoImage { service: name() }.into_error(service.location.clone()),
    };
    let image = service.image.as_ref().ok_or_else(without)?;
    let Interpolated { text, unset } = substituted(image, variables)?;
    let unset = Unset(unset.iter().map(|name| excerpt(name)).collect());
    if text.is_empty() {
        return Err(Fault::EmptyImage { service: name(), unset }.into_error(image.location.clone()));
    }
    let reference = text.parse().map_err(|invalid| {
        Fault::NotReference { service: name(), invalid, unset }.into_error(image.location.clone())
    })?;
    Ok((reference, Reason { location: image.location.clone(), service: name() }))
}

fn substituted(
    text: &Text,
    variables: &BTreeMap<String, String>,
) -> Result<Interpolated, StackError> {
    interpolate(&text.template, &|name| variables.get(name).cloned())
        .map_err(|fault| fault.into_error(text.location.clone()))
}

/// Reads a file of at most [`MAX_FILE`] bytes.
fn text(file: &Path) -> Result<String, StackError> {
    let unreadable = |source| StackError::Unreadable { file: file.to_owned(), source };
    let at_start = |fault: Fault| fault.into_error(Position::START.in_file(&Arc::from(file)));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if MAX_FILE < bytes.len() as u64 {
        return Err(at_start(Fault::TooLarge { limit: MAX_FILE }));
    }
    String::from_utf8(bytes).map_err(|_| at_start(Fault::NotText))
}

fn located(file: &Arc<Path>, found: FaultAt) -> StackError {
    found.fault.into_error(found.position.in_file(file))
}
