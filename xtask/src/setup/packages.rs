//! Packages: installs missing programs, or explains how to install them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::command::{command, find, run, succeeds};
use super::state::State;
use super::step::step;

/// A program or file that must be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// A program's name, or the absolute path of a file.
    what: &'static str,
    /// The Debian and Ubuntu package that has it.
    package: &'static str,
}

const fn need(what: &'static str, package: &'static str) -> Need {
    Need { what, package }
}

/// Programs for talking to an existing engine.
pub(super) const CLIENT: &[Need] = &[need("docker", "docker.io")];

/// Programs for running a private engine.
pub(super) const ENGINE: &[Need] = &[
    need("docker", "docker.io"),
    need("dockerd", "docker.io"),
    need("containerd", "containerd"),
    need("runc", "runc"),
    need("iptables", "iptables"),
    need("ip", "iproute2"),
    need("setsid", "util-linux"),
];

/// Programs and files for making Debian roots and importing them as images.
pub(super) const IMAGES: &[Need] = &[
    need("debootstrap", "debootstrap"),
    need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    need("gpgv", "gpgv"),
    need("wget", "wget"),
    need("xz", "xz-utils"),
    need("zstd", "zstd"),
    need("tar", "tar"),
    need("mount", "mount"),
    need("unshare", "util-linux"),
    need("setpriv", "util-linux"),
    need("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// Programs for compiling the C code in dependencies.
pub(super) const BUILD: &[Need] = &[need("cc", "gcc"), need("make", "make")];

/// Programs for checking folders and archives of images.
pub(super) const SKOPEO: &[Need] = &[need("skopeo", "skopeo")];

/// Programs that a bench compares Longshore with, or needs for that.
pub(super) const PEERS: &[Need] = &[
    need("docker-registry", "docker-registry"),
    need("nsenter", "util-linux"),
    need("setpriv", "util-linux"),
    need("mkfs.xfs", "xfsprogs"),
];

/// Programs for installing the schema's linter.
pub(super) const SCHEMA: &[Need] = &[need("npm", "npm")];

/// Options for apt: wait for other installations, and retry failed downloads at once.
const APT_OPTIONS: [&str; 6] = [
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "Acquire::Retries=5",
    "-o",
    "Acquire::Retries::Delay=false",
];

/// Installs what is missing of `needs`.
///
/// # Errors
/// apt fails, or this process cannot install packages; then the message says how to install them.
pub(super) fn ensure(state: &State, needs: &[Need]) -> Result<()> {
    let missing = missing(needs, is_there);
    if missing.is_empty() {
        return Ok(());
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || find("apt-get").is_none() {
        bail!(how_to_get(&missing, is_root));
    }
    step("packages", || {
        install(state, &packages(&missing))?;
        Ok(((), format!("installed {}", packages(&missing).join(" "))))
    })?;
    let missing = self::missing(needs, is_there);
    if missing.is_empty() { Ok(()) } else { bail!(how_to_get(&missing, true)) }
}

fn is_there(what: &str) -> bool {
    if what.starts_with('/') { Path::new(what).exists() } else { find(what).is_some() }
}

fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<Need> {
    needs.iter().filter(|need| !is_there(need.what)).copied().collect()
}

fn packages(missing: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The instructions for installing the missing programs by hand.
fn how_to_get(missing: &[Need], is_root: bool) -> String {
    let things: Vec<_> =
        missing.iter().map(|need| format!("{} (package {})", need.what, need.package)).collect();
    let reason =
        if is_root { "and this machine has no apt-get" } else { "and only root can install them" };
    format!(
        "missing on this machine: {}; {reason}.\nOn Debian 12+ or Ubuntu, run as root: apt-get install {}\n\
         On other systems, install the corresponding packages; or set DOCKER_HOST to the unix:// socket \
         of an engine on this machine that you may use.",
        things.join(", "),
        packages(missing).join(" ")
    )
}

fn install(state: &State, wanted: &[&str]) -> Result<()> {
    // Some machines have dead sources, so a failed update matters only if the installation fails too.
    let mut update = command("apt-get")?;
    let update = run(update.args(APT_OPTIONS).arg("update")).err();
    let mut wanted = wanted.to_vec();
    // Newer releases have the client in a separate package.
    let has_client_package =
        command("apt-cache").is_ok_and(|mut it| succeeds(it.args(["show", "docker-cli"])));
    if wanted.contains(&"docker.io") && has_client_package {
        wanted.push("docker-cli");
    }
    for package in &wanted {
        state.note("packages", package)?;
    }
    let mut install = command("apt-get")?;
    install
        .args(APT_OPTIONS)
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&wanted)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install)
        .map_err(|error| update.unwrap_or(error))
        .context("installing packages with apt-get")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_missing_programs_are_listed() {
        let missing = missing(ENGINE, |what| what != "dockerd" && what != "docker" && what != "ip");
        assert_eq!(packages(&missing), ["docker.io", "iproute2"]);
        assert_eq!(packages(&self::missing(ENGINE, |_| true)), [""; 0]);
    }

    #[test]
    fn the_message_names_each_program_and_one_command() {
        let missing = missing(CLIENT, |_| false);
        for (is_root, reason) in [(true, "no apt-get"), (false, "only root")] {
            let message = how_to_get(&missing, is_root);
            assert!(message.contains("docker (package docker.io)"), "{message}");
            assert!(message.contains("apt-get install docker.io\n"), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }
}
