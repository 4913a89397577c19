//! Debian roots: bootstraps them, shrinks them, and imports them as images with one layer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::command::{bound, checked, command, find, run, run_logged};
use super::docker::Docker;
use super::files::remove;
use super::machine::RECIPE_LABEL;
use super::state::State;

/// Folder of debootstrap's scripts, one per suite.
const SCRIPTS: &str = "/usr/share/debootstrap";

/// Folders in a root that no container reads. Licences stay: `usr/share/doc/*/copyright`.
const UNUSED_FOLDERS: [&str; 7] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/debconf",
    "var/log",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
];

/// Makes a minimal Debian root of the first available suite, with `packages`, and returns its folder.
///
/// After a killed call, a complete root is used as it is; an incomplete one is made again from the
/// downloaded packages.
///
/// # Errors
/// No suite can be bootstrapped; the message quotes the end of debootstrap's log.
pub(super) fn bootstrap(
    state: &State,
    name: &str,
    suites: &[&str],
    packages: &[&str],
) -> Result<PathBuf> {
    let root = state.build().join(name);
    if root.exists() {
        return Ok(root);
    }
    let partial = state.build().join(format!("{name}.partial"));
    let mut last = None;
    for suite in suites {
        remove(&partial)?;
        match debootstrap(state, name, suite, packages, &partial) {
            Ok(()) => {
                fs::rename(&partial, &root)
                    .with_context(|| format!("renaming {}", partial.display()))?;
                return Ok(root);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no suite given")?)
}

fn debootstrap(
    state: &State,
    name: &str,
    suite: &str,
    packages: &[&str],
    root: &Path,
) -> Result<()> {
    let cache = cache(state, name);
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    // In its own mount and process namespaces it leaves no mount and no process behind.
    let mut command = bound(&find("unshare").context("the program `unshare` is not installed")?)?;
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "debootstrap",
            "--variant=minbase",
        ])
        .arg(format!("--cache-dir={}", cache.display()))
        .env("DEBOOTSTRAP_DIR", scripts(state, name, suite)?)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.arg(suite).arg(root);
    // Without a mirror, debootstrap uses the distribution's.
    if let Some(mirror) = std::env::var_os("LONGSHORE_DEBIAN_MIRROR").filter(|it| !it.is_empty()) {
        command.arg(mirror);
    }
    run_logged(&mut command, &log(state, name))
        .with_context(|| format!("bootstrapping Debian {suite}"))?;
    shrink(root)
}

/// A folder of scripts that includes `suite`: debootstrap's, or for a newer suite a copy with a link
/// to the script of `sid`, which fits all recent suites.
fn scripts(state: &State, name: &str, suite: &str) -> Result<PathBuf> {
    let theirs = PathBuf::from(SCRIPTS);
    if theirs.join("scripts").join(suite).exists() {
        return Ok(theirs);
    }
    let ours = own_scripts(state, name);
    remove(&ours)?;
    run(command("cp")?.arg("-a").arg(&theirs).arg(&ours))
        .context("copying debootstrap's scripts")?;
    symlink("sid", ours.join("scripts").join(suite))
        .context("adding a suite to debootstrap's scripts")?;
    Ok(ours)
}

fn own_scripts(state: &State, name: &str) -> PathBuf {
    state.build().join(format!("{name}.debootstrap"))
}

fn cache(state: &State, name: &str) -> PathBuf {
    state.build().join(format!("{name}.debs"))
}

fn log(state: &State, name: &str) -> PathBuf {
    state.build().join(format!("{name}.log"))
}

/// Empties the folders that no container reads.
fn shrink(root: &Path) -> Result<()> {
    for place in UNUSED_FOLDERS {
        let folder = root.join(place);
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            remove(&entry.with_context(|| format!("reading {}", folder.display()))?.path())?;
        }
    }
    Ok(())
}

/// Writes a file into a root.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(root: &Path, place: &str, text: &str, mode: u32) -> Result<()> {
    let path = root.join(place);
    let folder = path.parent().context("a place in a root has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("writing {}", path.display()))
}

/// Imports the root `name` as the image `reference`, with `changes` to its config, and removes it.
///
/// The image gets its name last, so an interrupted import leaves an unnamed image, never an incomplete
/// named one.
///
/// # Errors
/// The root cannot be read, or the engine refuses it.
pub(super) fn import(
    docker: &Docker,
    state: &State,
    name: &str,
    reference: &str,
    recipe: &str,
    changes: &[&str],
) -> Result<()> {
    let root = state.build().join(name);
    let tar_program = find("tar").context("the program `tar` is not installed")?;
    let mut tar = bound(&tar_program)?;
    tar.args([
        "--create",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--sort=name",
        "--directory",
    ]);
    let mut tar = tar.arg(&root).arg(".").stdout(Stdio::piped()).spawn().context("starting tar")?;
    let label = format!("LABEL {RECIPE_LABEL}={recipe}");
    let mut import = docker.bound(&["import"])?;
    for change in changes.iter().copied().chain([label.as_str()]) {
        import.args(["--change", change]);
    }
    let archive = tar.stdout.take().context("tar was started with a pipe")?;
    let output = import.arg("-").stdin(archive).output().context("starting the docker client")?;
    let status = tar.wait().context("waiting for tar")?;
    let id = checked(&import, &output)?;
    if !status.success() {
        docker.run(&["image", "rm", &id])?;
        bail!("tar could not read {} ({status})", root.display());
    }
    docker.run(&["tag", &id, reference])?;
    for made in [root, cache(state, name), own_scripts(state, name), log(state, name)] {
        remove(&made)?;
    }
    Ok(())
}
