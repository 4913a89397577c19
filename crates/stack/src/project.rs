//! A project: files read, environment found, variables put in, images named.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use transfer::Reference;

use crate::dotenv;
use crate::error::{Fault, Found, StackError, Unset, excerpt};
use crate::interpolate::{Interpolated, interpolate};
use crate::model::{Model, Service, Text};
use crate::place::Spot;
use crate::wanted::{Reason, Wanted, add};
use crate::yaml;

/// Largest file, in bytes. People's compose files end at some 100 kB; one of this size, full of the
/// worst, is refused or read within a second.
pub const MAX_FILE: u64 = 1 << 20;

/// The variable that compose itself sets: the project's name.
const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// Reads compose files into the images that they want, in the order of their first mention.
///
/// A later file is put over the earlier ones. `env_files` stand in the place of the `.env` beside the
/// first file, a later one over the earlier; with none given, a `.env` that is not there is no error.
/// What `environment` has wins over all files; nothing else of the process is looked at.
///
/// # Errors
/// [`StackError`]: a file that cannot be read, or the place of what is wrong.
pub fn read(
    files: &[PathBuf],
    env_files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<Vec<Wanted>, StackError> {
    let first = files.first().ok_or(StackError::NoFiles)?;
    let folder = match first.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut model = Model::default();
    for file in files {
        let text = text(file)?;
        let file: Arc<Path> = Arc::from(file.as_path());
        model.add(&file, &yaml::parse(&text).map_err(|found| refused(&file, found))?)?;
    }
    let mut variables = variables(folder, env_files, environment)?;
    let name = project_name(&model, folder, &variables)?;
    variables.entry(PROJECT_NAME.to_owned()).or_insert(name);
    wanted(&model, first, &variables)
}

/// The variables of all environment files, and the environment over them.
fn variables(
    folder: &Path,
    env_files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StackError> {
    let beside = folder.join(".env");
    let default = [beside];
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
        read.map_err(|found| refused(&Arc::from(file.as_path()), found))?;
    }
    variables.extend(environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(variables)
}

fn is_absent_or_folder(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory)
}

/// What the project is called unless the environment says so: its `name`, or its folder's.
fn project_name(
    model: &Model,
    folder: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<String, StackError> {
    let name = match &model.name {
        Some(text) => substituted(text, variables)?.text,
        None => {
            // A folder that cannot be resolved has no name, and only an image that asks for it
            // would be wrong: it is then refused as empty or as no image's name.
            let folder = folder.canonicalize().unwrap_or_default();
            folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
    };
    let lower = name.to_lowercase();
    let kept: String =
        lower.chars().filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_')).collect();
    Ok(kept.trim_start_matches(['-', '_']).to_owned())
}

fn wanted(
    model: &Model,
    first: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Wanted>, StackError> {
    if model.services.is_empty() {
        return Err(Fault::NoServices.refused(Spot::START.of(&Arc::from(first))));
    }
    let mut wanted = Vec::new();
    for service in &model.services {
        let (reference, reason) = image(service, variables)?;
        add(&mut wanted, reference, reason);
    }
    Ok(wanted)
}

/// The image of one service.
fn image(
    service: &Service,
    variables: &BTreeMap<String, String>,
) -> Result<(Reference, Reason), StackError> {
    let name = || service.name.clone();
    let without = || match &service.build {
        Some(place) => Fault::BuildWithoutImage { service: name() }.refused(place.clone()),
        None => Fault::NoImage { service: name() }.refused(service.place.clone()),
    };
    let image = service.image.as_ref().ok_or_else(without)?;
    let Interpolated { text, unset } = substituted(image, variables)?;
    let unset = Unset(unset.iter().map(|name| excerpt(name)).collect());
    if text.is_empty() {
        return Err(Fault::EmptyImage { service: name(), unset }.refused(image.place.clone()));
    }
    let reference = text.parse().map_err(|invalid| {
        Fault::NotReference { service: name(), invalid, unset }.refused(image.place.clone())
    })?;
    Ok((reference, Reason { place: image.place.clone(), service: name() }))
}

fn substituted(
    text: &Text,
    variables: &BTreeMap<String, String>,
) -> Result<Interpolated, StackError> {
    interpolate(&text.template, &|name| variables.get(name).cloned())
        .map_err(|fault| fault.refused(text.place.clone()))
}

/// A file's text, if it is not larger than [`MAX_FILE`].
fn text(file: &Path) -> Result<String, StackError> {
    let unreadable = |source| StackError::Unreadable { file: file.to_owned(), source };
    let at_start = |fault: Fault| fault.refused(Spot::START.of(&Arc::from(file)));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if MAX_FILE < bytes.len() as u64 {
        return Err(at_start(Fault::TooLarge { most: MAX_FILE }));
    }
    String::from_utf8(bytes).map_err(|_| at_start(Fault::NotText))
}

fn refused(file: &Arc<Path>, found: Found) -> StackError {
    found.fault.refused(found.spot.of(file))
}
