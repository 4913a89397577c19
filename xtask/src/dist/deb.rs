//! A Debian package: an `ar` archive with the format's version, the control files and the installed files.
//!
//! It is built without dpkg-deb, so that any machine that builds Longshore can make it. Its members
//! are compressed with zstd, which dpkg supports since 1.21.18 (Debian 12, Ubuntu 22.04).

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::compress::zstd;
use super::tree::{Node, Tree};

/// The package's name.
const PACKAGE: &str = "longshore";

/// The package's maintainer.
pub(super) const MAINTAINER: &str = "Longshore maintainers <maintainers@longshore.dev>";

/// Prefix of the administrator's configuration files, whose changes dpkg keeps.
const SETTINGS: &str = "etc/";

/// Builds the package with these files.
///
/// # Errors
/// A member cannot be packed.
pub(super) fn package(files: &Tree, version: &str, time: u64) -> Result<Vec<u8>> {
    let mut control = Tree::default();
    control.file("control", control_file(files, version));
    let settings = files.nodes().filter(|(path, _)| path.starts_with(SETTINGS));
    control.file("conffiles", settings.map(|(path, _)| format!("/{path}\n")).collect::<String>());
    if let Some(sums) = checksums(files)? {
        control.file("md5sums", sums);
    }
    let mut package = b"!<arch>\n".to_vec();
    member(&mut package, "debian-binary", b"2.0\n", time)?;
    member(&mut package, "control.tar.zst", &zstd(&control.tar("./", time)?)?, time)?;
    member(&mut package, "data.tar.zst", &zstd(&files.tar("./", time)?)?, time)?;
    Ok(package)
}

fn control_file(files: &Tree, version: &str) -> String {
    let kibibytes = files.size().div_ceil(1024);
    format!(
        "Package: {PACKAGE}\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kibibytes}\n\
         Recommends: docker.io | docker-ce\n\
         Section: admin\n\
         Priority: optional\n\
         Description: a host's container images in many Docker-in-Docker containers\n\
         \x20Longshore brings the images of a host's engine into Docker-in-Docker\n\
         \x20containers (ranges), moves only the layers that each lacks, and keeps them in\n\
         \x20step. This package has the command longshore, also as a plug-in of the docker\n\
         \x20command, the host agent with a systemd unit, and the agent of the ranges.\n\
         \x20.\n\
         \x20The host agent is not started by the installation:\n\
         \x20systemctl enable --now longshore-host-agent\n"
    )
}

/// Appends one member to an `ar` archive.
fn member(archive: &mut Vec<u8>, name: &str, bytes: &[u8], time: u64) -> Result<()> {
    let size = bytes.len();
    let header = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, "100644");
    ensure!(header.len() == 60, "the ar header of {name} is {} bytes long", header.len());
    archive.extend(header.as_bytes());
    archive.extend(bytes);
    if size % 2 == 1 {
        archive.push(b'\n');
    }
    Ok(())
}

/// The file `md5sums`, with which `dpkg --verify` finds damaged files; `None` without the program
/// `md5sum`. No dependency computes MD5 sums, and none should.
fn checksums(files: &Tree) -> Result<Option<String>> {
    let mut sums = String::new();
    for (path, node) in files.nodes() {
        let Node::File { bytes, .. } = node else { continue };
        if path.starts_with(SETTINGS) {
            continue;
        }
        let Some(sum) =
            checksum(bytes).with_context(|| format!("computing the MD5 sum of {path}"))?
        else {
            return Ok(None);
        };
        sums.push_str(&format!("{sum}  {path}\n"));
    }
    Ok(Some(sums))
}

fn checksum(bytes: &[u8]) -> Result<Option<String>> {
    let child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        child => child.context("starting md5sum")?,
    };
    child.stdin.take().context("md5sum has no stdin")?.write_all(bytes)?;
    let output = child.wait_with_output().context("waiting for md5sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().next().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Tree {
        let mut files = Tree::default();
        files.program("usr/bin/longshore", "program");
        files.file("etc/longshore/longshore.toml", "# nothing\n");
        files
    }

    /// The members of an `ar` archive.
    fn members(mut archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        archive = archive.strip_prefix(b"!<arch>\n").unwrap();
        let mut members = Vec::new();
        while !archive.is_empty() {
            let header = std::str::from_utf8(&archive[..60]).unwrap();
            assert!(header.ends_with("`\n"), "{header:?}");
            let size: usize = header[48..58].trim().parse().unwrap();
            members.push((header[..16].trim().to_owned(), archive[60..60 + size].to_vec()));
            archive = &archive[60 + size + size % 2..];
        }
        members
    }

    fn unpacked(member: &[u8]) -> Vec<(String, String)> {
        let tar = ::zstd::decode_all(member).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            (path, text)
        });
        entries.filter(|(path, _)| !path.ends_with('/')).collect()
    }

    #[test]
    fn a_package_has_the_three_members_in_order() {
        let package = package(&files(), "1.2.3", 7).unwrap();
        let members = members(&package);
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["debian-binary", "control.tar.zst", "data.tar.zst"]);
        assert_eq!(members[0].1, b"2.0\n");
        let data = unpacked(&members[2].1);
        assert_eq!(
            data,
            [
                ("./etc/longshore/longshore.toml".to_owned(), "# nothing\n".to_owned()),
                ("./usr/bin/longshore".to_owned(), "program".to_owned()),
            ]
        );
        let control = unpacked(&members[1].1);
        let of = |name: &str| {
            let found = control.iter().find(|(path, _)| path == name);
            found.map(|(_, text)| text.as_str()).unwrap_or_default()
        };
        assert!(of("./control").contains("Version: 1.2.3\n"), "{control:?}");
        assert!(of("./control").contains("Installed-Size: 1\n"), "{control:?}");
        assert_eq!(of("./conffiles"), "/etc/longshore/longshore.toml\n");
        // The MD5 sum of "program". Configuration files are not listed, since they may change.
        assert_eq!(of("./md5sums"), "a9c449d4fa44e9e5a41c574ae55ce4d9  usr/bin/longshore\n");
        let scripts =
            control.iter().filter(|(path, _)| path.contains("inst") || path.contains("rm"));
        assert_eq!(scripts.count(), 0, "the package has no maintainer scripts");
    }
}
