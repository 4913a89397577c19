//! Projects in folders: the files that are read, and the precedence of their values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use stack::{MAX_FILE, StackError, StackImage};
use tempfile::TempDir;

/// A project folder with these files.
fn folder(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let project = temporary.path().join("My_Project.1");
    for (name, text) in files {
        let path = project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (temporary, project)
}

fn read(
    folder: &Path,
    files: &[&str],
    env_files: &[&str],
    environment: &[(&str, &str)],
) -> Result<Vec<StackImage>, StackError> {
    let paths = |names: &[&str]| names.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    stack::read(&paths(files), &paths(env_files), &environment)
}

fn names(wanted: &[StackImage]) -> Vec<String> {
    wanted.iter().map(|wanted| wanted.reference.to_string()).collect()
}

fn message(outcome: Result<Vec<StackImage>, StackError>, folder: &Path) -> String {
    outcome.unwrap_err().to_string().replace(&format!("{}/", folder.display()), "")
}

#[test]
fn the_environment_overrides_files_and_later_files_override_earlier_ones() {
    let compose = "services:\n  a: {image: 'a:${TAG:-none}'}\n";
    let files = [
        ("compose.yaml", compose),
        (".env", "TAG=dot\n"),
        ("one.env", "TAG=one\n"),
        ("two.env", "TAG=two\nX=${TAG}\n"),
    ];
    let (_keep, folder) = folder(&files);
    let check = |env_files: &[&str], environment: &[(&str, &str)], expected: &str| {
        let wanted = read(&folder, &["compose.yaml"], env_files, environment).unwrap();
        assert_eq!(names(&wanted), [expected], "{env_files:?} {environment:?}");
    };
    check(&[], &[], "a:dot");
    check(&["one.env"], &[], "a:one");
    check(&["one.env", "two.env"], &[], "a:two");
    check(&["two.env", "one.env"], &[], "a:one");
    check(&["one.env"], &[("TAG", "shell")], "a:shell");
    check(&[], &[("TAG", "")], "a:none");
}

#[test]
fn the_default_environment_file_is_beside_the_first_compose_file() {
    let compose = "services:\n  a: {image: 'a:${TAG:-none}'}\n";
    let files = [
        ("b/compose.yaml", compose),
        ("b/.env", "TAG=b\n"),
        ("c/compose.yaml", compose),
        ("c/.env/x", ""),
    ];
    let (_keep, folder) = folder(&files);
    let of = |files: &[&str]| names(&read(&folder, files, &[], &[]).unwrap());
    assert_eq!(of(&["b/compose.yaml", "c/compose.yaml"]), ["a:b"]);
    assert_eq!(
        of(&["c/compose.yaml", "b/compose.yaml"]),
        ["a:none"],
        "a folder named .env is ignored"
    );
}

#[test]
fn an_image_is_listed_once_with_all_its_reasons() {
    let base = "services:\n  b: {image: 'docker.io/library/x:1'}\n  a: {image: y@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}\n";
    let over = "services:\n  c: {image: x:1}\n  d: {image: 'localhost:5000/z'}\n";
    let (_keep, folder) = folder(&[("a.yaml", base), ("b.yaml", over)]);
    let wanted = read(&folder, &["a.yaml", "b.yaml"], &[], &[]).unwrap();
    let digest = "a".repeat(64);
    assert_eq!(
        names(&wanted),
        ["x:1".to_owned(), format!("y@sha256:{digest}"), "localhost:5000/z:latest".to_owned()]
    );
    let reasons: Vec<String> = wanted[0].reasons.iter().map(ToString::to_string).collect();
    let at = |file: &str| folder.join(file).display().to_string();
    assert_eq!(reasons, [format!("{}:2 b", at("a.yaml")), format!("{}:2 c", at("b.yaml"))]);
}

#[test]
fn the_project_name_is_a_variable_too() {
    let plain = "services:\n  a: {image: '${COMPOSE_PROJECT_NAME}-a'}\n";
    let named = format!("name: ${{N:-Named}}\n{plain}");
    let (_keep, folder) = folder(&[("plain.yaml", plain), ("named.yaml", &named)]);
    let of = |file: &str, environment: &[(&str, &str)]| {
        names(&read(&folder, &[file], &[], environment).unwrap()).join("")
    };
    assert_eq!(of("plain.yaml", &[]), "my_project1-a:latest");
    assert_eq!(of("named.yaml", &[]), "named-a:latest");
    assert_eq!(of("named.yaml", &[("N", "n")]), "n-a:latest");
    assert_eq!(of("named.yaml", &[("COMPOSE_PROJECT_NAME", "shell")]), "shell-a:latest");
}

#[test]
fn an_invalid_image_is_an_error_with_its_location() {
    let check = |service: &str, expected: &str| {
        let compose = format!("services:\n  a:\n    {service}\n");
        let (_keep, folder) = folder(&[("c.yaml", &compose)]);
        let message = message(read(&folder, &["c.yaml"], &[], &[("EMPTY", "")]), &folder);
        assert_eq!(message, expected, "{service}");
    };
    check("image: ''", "c.yaml:3:12: the image of service \"a\" is empty");
    check(
        "image: $TAG",
        "c.yaml:3:12: the image of service \"a\" is empty (TAG is not set: set it in the environment or in .env)",
    );
    check(
        "image: x:$TAG",
        "c.yaml:3:12: service \"a\": \"x:\" is not an image name: its tag is empty (TAG is not set: set it in the environment or in .env)",
    );
    check(
        "image: x/$A$B:$EMPTY",
        "c.yaml:3:12: service \"a\": \"x/:\" is not an image name: its repository breaks the rule [a-z0-9]+ joined by . _ __ or dashes (A, B are not set: set them in the environment or in .env)",
    );
    check("image: x:${T:?pin it}", "c.yaml:3:12: required variable T has no value: pin it");
    check(
        "image: x:${T",
        "c.yaml:3:12: invalid variable \"${T\": write `${NAME}` or `${NAME:-default}`, and `$$` for a dollar sign",
    );
    check(
        "build: .",
        "c.yaml:3:5: service \"a\" has `build` but no `image`: build it, and set the image's name with `image:`",
    );
    check("ports: []", "c.yaml:2:3: service \"a\" has no image: set one with `image:`");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let compose = "services:\n  a: {image: a}\n";
    let many = "# x\n".repeat(usize::try_from(MAX_FILE).unwrap() / 4 + 1);
    let large_env = "#".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
    let files = [
        ("c.yaml", compose),
        ("many.yaml", &many),
        ("large.env", &large_env),
        ("bad.env", "A=1\nB C\n"),
        ("none.yaml", "services: {}\n"),
        ("folder/x", ""),
    ];
    let (_keep, folder) = folder(&files);
    fs::write(folder.join("latin.yaml"), b"a: \xff\n").unwrap();
    let check = |file: &str, env_files: &[&str], expected: &str| {
        let started = Instant::now();
        assert_eq!(message(read(&folder, &[file], env_files, &[]), &folder), expected);
        assert!(started.elapsed().as_secs() < 5, "{file}");
    };
    check("absent.yaml", &[], "absent.yaml could not be read");
    check("folder", &[], "folder could not be read");
    check("many.yaml", &[], "many.yaml:1:1: the file is larger than 1048576 bytes");
    check("latin.yaml", &[], "latin.yaml:1:1: the file is not UTF-8 text");
    check("none.yaml", &[], "none.yaml:1:1: no services: list them under `services:`");
    check("c.yaml", &["absent.env"], "absent.env could not be read");
    check("c.yaml", &["large.env"], "large.env:1:1: the file is larger than 1048576 bytes");
    check("c.yaml", &["bad.env"], "bad.env:2:1: invalid variable name \"B C\"");
    assert!(matches!(read(&folder, &[], &[], &[]), Err(StackError::NoFiles)));
}
