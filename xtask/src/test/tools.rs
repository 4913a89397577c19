//! Tools for checks and tests, installed under the state folder if the machine lacks them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::cargo;
use crate::setup::{self, State};

/// Finds cargo-deny, or builds it from its published source once.
///
/// # Errors
/// It cannot be built.
pub(super) fn cargo_deny() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("bin/cargo-deny");
    if let Some(found) = setup::find("cargo-deny").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         cargo-deny is not installed: building it once (some minutes)");
    let mut install = cargo::in_background();
    // It runs for seconds, so optimising it would take more time than it saves.
    install
        .args(["install", "cargo-deny", "--locked", "--quiet", "--debug", "--root"])
        .arg(&folder);
    install.args(["--config", "profile.dev.debug=false"]);
    let status = install.status().context("starting cargo install cargo-deny")?;
    if !status.success() {
        bail!(
            "cargo install cargo-deny failed ({status}): install cargo-deny by hand and try again"
        );
    }
    Ok(ours)
}

/// Finds buf, or installs its npm package once.
///
/// # Errors
/// npm is unavailable, or does not install it.
pub(super) fn buf() -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join("node_modules/.bin/buf");
    if let Some(found) = setup::find("buf").or_else(|| ours.exists().then(|| ours.clone())) {
        return Ok(found);
    }
    eprintln!("         buf is not installed: installing it once");
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

/// Folders of the docker client's plug-ins.
const PLUGINS: [&str; 5] = [
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/root/.docker/cli-plugins",
];

/// File name of the compose plug-in.
const COMPOSE: &str = "docker-compose";

/// Copies compose to `/out`: the image's own, or else the one of Debian's package, downloaded by the
/// image's apt.
const FETCH: &str = "set -e
for folder in /usr/local/libexec/docker/cli-plugins /usr/libexec/docker/cli-plugins; do
    if [ -x \"$folder/docker-compose\" ]; then exec cp \"$folder/docker-compose\" /out/docker-compose; fi
done
cd /tmp
apt-get --quiet --quiet update
apt-get --quiet --quiet --option APT::Sandbox::User=root download docker-compose
dpkg-deb --extract docker-compose_*.deb root
cp root/usr/libexec/docker/cli-plugins/docker-compose /out/docker-compose";

/// Finds Docker's compose 2, which tests compare with and which runs examples. Without the machine's
/// plug-in, a range image of the first Debian release with compose 2 fetches it once.
///
/// # Errors
/// It cannot be fetched.
pub(super) fn compose(docker_host: &str, range_image: &str) -> Result<PathBuf> {
    let folder = State::open()?.tools();
    let ours = folder.join(COMPOSE);
    let theirs = PLUGINS.iter().map(|folder| Path::new(folder).join(COMPOSE));
    if let Some(found) = theirs.chain([ours.clone()]).find(|path| path.exists()) {
        return Ok(found);
    }
    eprintln!("         docker compose is not installed: fetching it once");
    let partial = folder.join("compose.partial");
    fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let mut docker = setup::command("docker")?;
    docker.args(["--host", docker_host, "run", "--rm", "--network", "host"]);
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        docker.args(["--env", name]);
    }
    docker.arg("--volume").arg(format!("{}:/out", partial.display()));
    docker.args(["--entrypoint", "sh", range_image, "-c", FETCH]);
    let status = docker.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.context("starting docker")?;
    if !status.success() {
        bail!(
            "fetching docker compose failed ({status}): install docker compose by hand and try again"
        );
    }
    fs::rename(partial.join(COMPOSE), &ours).context("moving docker compose into place")?;
    fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    Ok(ours)
}
