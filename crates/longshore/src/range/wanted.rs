//! Which images a command is about: those of `--image`, and those of the services of compose files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use process::exit::Usage;
use range::Reference;

/// What is said of an image that was named on the command line.
const NAMED: &str = "--image";

/// The images that ranges should have.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Images {
    /// An image that each range should have, as one would give it to `docker run`; may be given
    /// several times. What is given here replaces, on `up`, and adds to, on `sync`, what a range was
    /// told before; without any image or compose file it keeps that.
    #[arg(long = "image", value_name = "REFERENCE")]
    named: Vec<Reference>,
    /// A compose file whose services' images each range should have; may be given several times, a
    /// later file over the earlier ones, as `docker compose --file` has it.
    #[arg(long = "compose", value_name = "FILE")]
    compose: Vec<PathBuf>,
    /// Variables for the compose files in place of the `.env` beside the first; may be given several
    /// times, the later wins. The environment wins over all of them.
    #[arg(long = "env-file", value_name = "FILE", requires = "compose")]
    env_files: Vec<PathBuf>,
}

/// An image, and why it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) reference: Reference,
    /// `--image`, or `compose.yaml:12 web`; at least one.
    pub(super) reasons: Vec<String>,
}

impl Images {
    /// The images that are meant, each once, in the order of their first mention; none when the
    /// ranges keep those that they were told before.
    ///
    /// # Errors
    /// [`Usage`] with file, line and column of what is wrong in a compose file.
    pub(super) fn wanted(&self) -> Result<Vec<Wanted>> {
        self.wanted_in(&environment())
    }

    fn wanted_in(&self, environment: &BTreeMap<String, String>) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for reference in &self.named {
            add(&mut wanted, reference, vec![NAMED.to_owned()]);
        }
        if !self.compose.is_empty() {
            let stack = stack::read(&self.compose, &self.env_files, environment);
            for image in stack.map_err(|error| Usage(told(error)))? {
                let reasons = image.reasons.iter().map(ToString::to_string).collect();
                add(&mut wanted, &image.reference, reasons);
            }
        }
        Ok(wanted)
    }
}

/// The names alone.
pub(super) fn references(wanted: &[Wanted]) -> Vec<Reference> {
    wanted.iter().map(|wanted| wanted.reference.clone()).collect()
}

fn add(wanted: &mut Vec<Wanted>, reference: &Reference, reasons: Vec<String>) {
    match wanted.iter_mut().find(|there| there.reference == *reference) {
        Some(there) => {
            for reason in reasons {
                if !there.reasons.contains(&reason) {
                    there.reasons.push(reason);
                }
            }
        }
        None => wanted.push(Wanted { reference: reference.clone(), reasons }),
    }
}

/// What compose files may ask for: a variable that is no text cannot be part of a name.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The error with its causes.
fn told(error: stack::StackError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn images(named: &[&str], compose: &Path) -> Images {
        let named = named.iter().map(|name| name.parse().unwrap()).collect();
        Images { named, compose: vec![compose.to_owned()], env_files: Vec::new() }
    }

    #[test]
    fn images_of_the_command_line_and_of_compose_files_are_one_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        let text =
            "services:\n  web: {image: 'x:${TAG}'}\n  db: {image: db}\n  again: {image: db}\n";
        std::fs::write(&file, text).unwrap();
        let environment = BTreeMap::from([("TAG".to_owned(), "1".to_owned())]);
        let wanted = images(&["y", "x:1", "y"], &file).wanted_in(&environment).unwrap();
        let names: Vec<String> = wanted.iter().map(|it| it.reference.to_string()).collect();
        assert_eq!(names, ["y:latest", "x:1", "db:latest"]);
        let at = |line: usize, service: &str| format!("{}:{line} {service}", file.display());
        assert_eq!(wanted[0].reasons, ["--image"]);
        assert_eq!(wanted[1].reasons, ["--image".to_owned(), at(2, "web")]);
        assert_eq!(wanted[2].reasons, [at(3, "db"), at(4, "again")]);
    }

    #[test]
    fn what_is_wrong_in_a_compose_file_is_a_matter_of_usage() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose.yaml");
        std::fs::write(&file, "include: [x]\n").unwrap();
        let error = images(&[], &file).wanted_in(&BTreeMap::new()).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        assert!(error.to_string().starts_with(&format!("{}:1:1: `include`", file.display())));
        let absent = images(&[], Path::new("/nonexistent/c.yaml")).wanted_in(&BTreeMap::new());
        let error = absent.unwrap_err().to_string();
        assert!(error.contains("c.yaml could not be read: No such file"), "{error}");
    }
}
