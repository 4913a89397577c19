//! Compose files in the style of public projects: either the images that `docker compose` finds, or
//! an error with its location.
//!
//! ```text
//!   tests/corpus/<project>/compose.yaml         its first lines name the imitated project
//!                          .env, …              its environment and other files
//!                          arguments.txt        --file, --env-file and NAME=value, one per line;
//!                                               absent: --file compose.yaml
//!                          expected.txt         output of `docker compose config --images`, sorted
//!                          expected-error.txt   or the expected error
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stack::StackError;
use transfer::Reference;

/// Forms of variables with their results, one pair per line.
const FORMS: &str = include_str!("../forms.tsv");

struct Project {
    folder: PathBuf,
    files: Vec<String>,
    env_files: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Project {
    fn open(folder: PathBuf) -> Self {
        let mut project =
            Self { folder, files: vec![], env_files: vec![], environment: BTreeMap::new() };
        let arguments = project.text("arguments.txt").unwrap_or_default();
        for line in arguments.lines() {
            match line.split_once([' ', '=']).unwrap() {
                ("--file", file) => project.files.push(file.to_owned()),
                ("--env-file", file) => project.env_files.push(file.to_owned()),
                (name, value) => {
                    project.environment.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        if project.files.is_empty() {
            project.files.push("compose.yaml".to_owned());
        }
        project
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }

    /// Reads the project with this crate.
    fn read(&self) -> Result<BTreeSet<Reference>, StackError> {
        let paths = |names: &[String]| -> Vec<PathBuf> {
            names.iter().map(|name| self.folder.join(name)).collect()
        };
        let wanted = stack::read(&paths(&self.files), &paths(&self.env_files), &self.environment)?;
        Ok(wanted.into_iter().map(|wanted| wanted.reference).collect())
    }
}

fn projects() -> Vec<Project> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 20, "the corpus has only {} projects", folders.len());
    folders.into_iter().map(Project::open).collect()
}

fn references(text: &str) -> BTreeSet<Reference> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn public_projects_give_their_images_or_an_error_with_its_location() {
    for project in projects() {
        let name = project.folder.display();
        match (project.text("expected.txt"), project.text("expected-error.txt")) {
            (Some(expected), None) => {
                let found = project.read().unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(found, references(&expected), "{name}");
            }
            (None, Some(expected)) => {
                let error = project.read().unwrap_err().to_string();
                let error = error.replace(&format!("{name}/"), "");
                assert_eq!(error, expected.trim_end(), "{name}");
            }
            _ => panic!("{name} needs one of expected.txt and expected-error.txt"),
        }
    }
}

/// Runs the real tool with no environment but `environment`.
fn docker_compose(
    folder: &Path,
    arguments: &[&str],
    environment: &BTreeMap<String, String>,
) -> String {
    let program = std::env::var_os("LONGSHORE_TEST_COMPOSE")
        .expect("LONGSHORE_TEST_COMPOSE names Docker's compose; `cargo xtask test` sets it");
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", folder.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "runs Docker's compose: `cargo xtask test` gets it"]
fn docker_compose_finds_the_same_images() {
    let mut compared = 0;
    for project in projects() {
        let Some(expected) = project.text("expected.txt") else { continue };
        let files = project.files.iter().flat_map(|file| ["--file", file.as_str()]);
        let env_files = project.env_files.iter().flat_map(|file| ["--env-file", file.as_str()]);
        let arguments: Vec<&str> = files.chain(env_files).chain(["config", "--images"]).collect();
        let printed = docker_compose(&project.folder, &arguments, &project.environment);
        let mut lines: Vec<&str> = printed.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, expected.lines().collect::<Vec<_>>(), "{}", project.folder.display());
        assert_eq!(project.read().unwrap(), references(&printed), "{}", project.folder.display());
        compared += 1;
    }
    println!("{compared} projects have the images that docker compose finds");
    assert!(compared >= 20, "only {compared} projects were compared");
}

#[test]
#[ignore = "runs Docker's compose: `cargo xtask test` gets it"]
fn docker_compose_reads_every_form_of_a_variable_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("SET", "value"), ("EMPTY", ""), ("DOLLAR", "$SET"), ("_x1", "underscore")];
    let environment: BTreeMap<String, String> =
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for line in FORMS.lines() {
        let (template, expected) = line.split_once('\t').unwrap();
        // The prefix keeps the image non-empty, since compose refuses an empty one.
        let compose = format!("services: {{a: {{image: 'image/{template}'}}}}\n");
        fs::write(folder.path().join("compose.yaml"), compose).unwrap();
        let printed = docker_compose(folder.path(), &["config", "--images"], &environment);
        assert_eq!(printed.trim_end_matches('\n'), format!("image/{expected}"), "{template}");
    }
}
