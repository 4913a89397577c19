//! The tools that checks need, put under the state folder where the machine has none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::cargo;
use crate::setup::{self, State};

/// cargo-deny: the machine's, else built from its published source once.
///
/// # Errors
/// When it cannot be built.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("bin/cargo-deny");
    if let Some(found) = setup::find("cargo-deny").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         cargo-deny is not on this machine: building it once (some minutes)");
    let mut install = cargo::command();
    install.args(["install", "cargo-deny", "--locked", "--quiet", "--root"]).arg(&folder);
    let status = install.status().context("starting cargo install cargo-deny")?;
    if !status.success() {
        bail!("cargo install cargo-deny failed ({status}): install it by hand and try again");
    }
    Ok(ours)
}

/// buf: the machine's, else from its npm package once.
///
/// # Errors
/// When npm cannot be had or does not install it.
pub(super) fn buf() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("node_modules/.bin/buf");
    if let Some(found) = setup::find("buf").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         buf is not on this machine: installing it once");
    setup::ensure_npm()?;
    let status = setup::command("npm")?
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&folder)
        .arg("@bufbuild/buf")
        .stdin(Stdio::null())
        .status()
        .context("starting npm")?;
    if !status.success() || !ours.exists() {
        bail!("npm install @bufbuild/buf failed ({status}): put buf on the PATH and try again");
    }
    Ok(ours)
}

/// Where Docker's packages put the plugins of its client.
const PLUGINS: [&str; 5] = [
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/root/.docker/cli-plugins",
];

/// The plugin's file.
const COMPOSE: &str = "docker-compose";

/// The first Debian release with compose 2.
const COMPOSE_SUITE: &str = "trixie";

/// Docker's compose 2, to be compared with: the machine's plugin, else Debian's package, unpacked
/// once and not installed.
///
/// # Errors
/// When the package cannot be fetched or unpacked.
pub(super) fn compose() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join(COMPOSE);
    let theirs = PLUGINS.iter().map(|folder| Path::new(folder).join(COMPOSE));
    if let Some(found) = theirs.chain([ours.clone()]).find(|path| path.exists()) {
        return Ok(found);
    }
    eprintln!("         docker compose is not on this machine: getting it once");
    setup::ensure_debian()?;
    let work = folder.join("compose.partial");
    fetch_compose(&work).context("getting docker compose from Debian")?;
    fs::rename(work.join("root").join(PLUGINS[0].trim_start_matches('/')).join(COMPOSE), &ours)
        .context("unpacking docker compose")?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    Ok(ours)
}

/// Fetches the package into `work/root` through apt with lists of its own: the machine's are not
/// touched.
fn fetch_compose(work: &Path) -> Result<()> {
    if work.exists() {
        fs::remove_dir_all(work).with_context(|| format!("removing {}", work.display()))?;
    }
    for folder in ["lists/partial", "cache/archives/partial", "root"] {
        let folder = work.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let mirror = std::env::var("LONGSHORE_DEBIAN_MIRROR").ok().filter(|it| !it.is_empty());
    let mirror = mirror.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = work.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={keys}] {mirror} {COMPOSE_SUITE} main\n"))
        .with_context(|| format!("writing {}", sources.display()))?;
    for arguments in [&["update"][..], &["download", COMPOSE]] {
        let mut apt = setup::command("apt-get")?;
        apt.current_dir(work).args(["--quiet", "--quiet", "-o", "APT::Sandbox::User=root"]);
        apt.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Acquire::Languages=none"]);
        for (name, place) in [
            ("Dir::Etc::SourceList", &sources),
            ("Dir::State::Lists", &work.join("lists")),
            ("Dir::Cache", &work.join("cache")),
        ] {
            apt.arg("-o").arg(format!("{name}={}", place.display()));
        }
        succeed(apt.args(["-o", "Acquire::Retries=5"]).args(arguments))?;
    }
    let mut packages = fs::read_dir(work).context("looking for the package")?.flatten();
    let package = packages.find(|entry| entry.path().extension().is_some_and(|it| it == "deb"));
    let package = package.context("apt-get fetched no package")?.path();
    succeed(setup::command("dpkg-deb")?.arg("--extract").arg(package).arg(work.join("root")))
}

fn succeed(command: &mut std::process::Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("starting {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} failed ({status})") }
}
