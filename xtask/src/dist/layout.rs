//! Layout of the archive and of the Debian package.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::deb::MAINTAINER;
use super::tree::Tree;

/// The packed files of the workspace.
pub(super) const DOCUMENTS: [&str; 12] = [
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "docs/operating.md",
    "docs/engines.md",
    "docs/troubleshooting.md",
    "examples/sidecar/README.md",
    "examples/sidecar/compose.yaml",
    "examples/sidecar/compose.capabilities.yaml",
    UNIT,
    SETTINGS,
    ENVIRONMENT,
];

/// The host agent's systemd unit.
const UNIT: &str = "packaging/longshore-host-agent.service";

/// A `longshore.toml` with every setting commented out.
const SETTINGS: &str = "packaging/longshore.toml";

/// The unit's environment file with every variable commented out.
const ENVIRONMENT: &str = "packaging/longshore-host-agent.default";

/// Folder of the programs in the workspace's unit, for manual installation.
const BY_HAND: &str = "/usr/local/bin/";

/// Parts of the archive and the package.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Programs by name.
    pub(super) programs: Vec<(&'static str, Vec<u8>)>,
    /// Completion scripts by program and shell.
    pub(super) completions: Vec<(&'static str, &'static str, Vec<u8>)>,
    /// Manual pages by name, such as `longshore-range.1`.
    pub(super) pages: Vec<(String, Vec<u8>)>,
    /// Files of [`DOCUMENTS`], by their path in the workspace.
    pub(super) documents: Vec<(&'static str, Vec<u8>)>,
}

impl Parts {
    fn document(&self, path: &str) -> Result<&[u8]> {
        let found = self.documents.iter().find(|(known, _)| *known == path);
        found
            .map(|(_, bytes)| bytes.as_slice())
            .with_context(|| format!("{path} is not among the packed files"))
    }
}

/// The files of the archive for any Linux: `bin/` and `share/` as below `/usr/local`, other files as in
/// the workspace.
pub(super) fn archive(parts: &Parts) -> Result<Tree> {
    let mut tree = Tree::default();
    for (name, bytes) in &parts.programs {
        tree.program(format!("bin/{name}"), bytes.as_slice());
    }
    for (program, shell, script) in &parts.completions {
        let path = match *shell {
            "bash" => format!("share/bash-completion/completions/{program}"),
            "zsh" => format!("share/zsh/site-functions/_{program}"),
            _ => format!("share/fish/vendor_completions.d/{program}.fish"),
        };
        tree.file(path, script.as_slice());
    }
    for (name, page) in &parts.pages {
        tree.file(format!("share/man/man1/{name}"), page.as_slice());
    }
    for (path, bytes) in &parts.documents {
        tree.file(*path, bytes.as_slice());
    }
    Ok(tree)
}

/// The files of the Debian package.
pub(super) fn debian(parts: &Parts, version: &str, time: u64) -> Result<Tree> {
    const DOC: &str = "usr/share/doc/longshore";
    let mut tree = Tree::default();
    for (name, bytes) in &parts.programs {
        tree.program(format!("usr/bin/{name}"), bytes.as_slice());
    }
    tree.link("usr/libexec/docker/cli-plugins/docker-longshore", "../../../bin/longshore");
    for (program, shell, script) in &parts.completions {
        let path = match *shell {
            "bash" => format!("usr/share/bash-completion/completions/{program}"),
            "zsh" => format!("usr/share/zsh/vendor-completions/_{program}"),
            _ => format!("usr/share/fish/vendor_completions.d/{program}.fish"),
        };
        tree.file(path, script.as_slice());
    }
    for (name, page) in &parts.pages {
        tree.file(format!("usr/share/man/man1/{name}.gz"), gzip(page)?);
    }
    let unit = String::from_utf8_lossy(parts.document(UNIT)?).replace(BY_HAND, "/usr/bin/");
    tree.file("usr/lib/systemd/system/longshore-host-agent.service", unit);
    tree.file("etc/longshore/longshore.toml", parts.document(SETTINGS)?);
    tree.file("etc/default/longshore-host-agent", parts.document(ENVIRONMENT)?);
    tree.file(format!("{DOC}/copyright"), COPYRIGHT);
    tree.file(format!("{DOC}/changelog.gz"), gzip(debian_changelog(version, time).as_bytes())?);
    tree.file(format!("{DOC}/NEWS.md.gz"), gzip(parts.document("CHANGELOG.md")?)?);
    for (path, bytes) in &parts.documents {
        if *path == "README.md" || path.starts_with("docs/") || path.starts_with("examples/") {
            tree.file(format!("{DOC}/{path}"), bytes.as_slice());
        }
    }
    Ok(tree)
}

/// Copyright and licence in Debian's format.
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: longshore

Files: *
Copyright: 2026 The Longshore authors
License: Apache-2.0
 On Debian systems the text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
";

fn debian_changelog(version: &str, time: u64) -> String {
    format!(
        "longshore ({version}) unstable; urgency=medium\n\n  \
         * Version {version}; NEWS.md.gz tells what changed.\n\n \
         -- {MAINTAINER}  {}\n",
        date(time)
    )
}

/// Compresses a document reproducibly, as Debian policy requires.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(bytes).context("compressing")?;
    gzip.finish().context("compressing")
}

/// Formats a time in seconds since 1970 as in changelogs: `Thu, 01 Jan 1970 00:00:07 +0000`.
fn date(time: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (time / 86_400, time % 86_400);
    let name = DAYS.get(usize::try_from(days % 7).unwrap_or(0)).unwrap_or(&"");
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut rest) = (1970, days);
    while (365 + u64::from(is_leap(year))) <= rest {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = "";
    for (name, length) in MONTHS.iter().zip(lengths) {
        month = name;
        if rest < length {
            break;
        }
        rest -= length;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{name}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000", rest + 1)
}

#[cfg(test)]
mod tests {
    use super::super::tree::Node;
    use super::*;

    fn parts() -> Parts {
        Parts {
            programs: vec![("longshore", b"program".to_vec())],
            completions: ["bash", "zsh", "fish"]
                .map(|shell| ("longshore", shell, b"script".to_vec()))
                .into(),
            pages: vec![("longshore-range.1".to_owned(), b"page".to_vec())],
            documents: DOCUMENTS
                .iter()
                .map(|path| (*path, format!("{path} /usr/local/bin/x").into_bytes()))
                .collect(),
        }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.nodes().map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn the_archive_has_programs_pages_scripts_and_documents() {
        let tree = archive(&parts()).unwrap();
        assert_eq!(
            paths(&tree),
            [
                "CHANGELOG.md",
                "LICENSE",
                "README.md",
                "bin/longshore",
                "docs/engines.md",
                "docs/operating.md",
                "docs/troubleshooting.md",
                "examples/sidecar/README.md",
                "examples/sidecar/compose.capabilities.yaml",
                "examples/sidecar/compose.yaml",
                "packaging/longshore-host-agent.default",
                "packaging/longshore-host-agent.service",
                "packaging/longshore.toml",
                "share/bash-completion/completions/longshore",
                "share/fish/vendor_completions.d/longshore.fish",
                "share/man/man1/longshore-range.1",
                "share/zsh/site-functions/_longshore",
            ]
        );
    }

    #[test]
    fn the_package_has_them_where_debian_wants_them() {
        let tree = debian(&parts(), "1.2.3", 7).unwrap();
        assert_eq!(
            paths(&tree),
            [
                "etc/default/longshore-host-agent",
                "etc/longshore/longshore.toml",
                "usr/bin/longshore",
                "usr/lib/systemd/system/longshore-host-agent.service",
                "usr/libexec/docker/cli-plugins/docker-longshore",
                "usr/share/bash-completion/completions/longshore",
                "usr/share/doc/longshore/NEWS.md.gz",
                "usr/share/doc/longshore/README.md",
                "usr/share/doc/longshore/changelog.gz",
                "usr/share/doc/longshore/copyright",
                "usr/share/doc/longshore/docs/engines.md",
                "usr/share/doc/longshore/docs/operating.md",
                "usr/share/doc/longshore/docs/troubleshooting.md",
                "usr/share/doc/longshore/examples/sidecar/README.md",
                "usr/share/doc/longshore/examples/sidecar/compose.capabilities.yaml",
                "usr/share/doc/longshore/examples/sidecar/compose.yaml",
                "usr/share/fish/vendor_completions.d/longshore.fish",
                "usr/share/man/man1/longshore-range.1.gz",
                "usr/share/zsh/vendor-completions/_longshore",
            ]
        );
        let unit = tree.nodes().find(|(path, _)| path.ends_with(".service")).unwrap().1;
        let Node::File { bytes, .. } = unit else { panic!("the unit is a file") };
        assert!(String::from_utf8_lossy(bytes).ends_with(" /usr/bin/x"));
    }

    #[test]
    fn the_workspace_has_every_document() {
        for path in DOCUMENTS {
            assert!(crate::workspace::root().join(path).is_file(), "there is no {path}");
        }
    }

    #[test]
    fn a_date_is_written_as_in_mail() {
        let cases = [
            (7, "Thu, 01 Jan 1970 00:00:07 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_796_083_199, "Mon, 30 Nov 2026 23:59:59 +0000"),
            (1_798_761_600, "Fri, 01 Jan 2027 00:00:00 +0000"),
        ];
        for (time, text) in cases {
            assert_eq!(date(time), text, "{time}");
        }
    }
}
