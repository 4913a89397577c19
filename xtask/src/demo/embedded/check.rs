//! The second opinion: `sha256sum` over every blob of a folder, and its names beside the source's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use range::RangeName;
use serde_json::Value;

use crate::text::{count, size};

/// Says what `sha256sum` and the two `index.json` say; whether it is what it should be.
///
/// # Errors
/// When the folder cannot be read or the program cannot be run.
pub(super) fn by_sha256sum(range: &RangeName, folder: &Path, source: &Path) -> Result<bool> {
    let blobs = folder.join("blobs/sha256");
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir(&blobs).with_context(|| format!("listing {}", blobs.display()))? {
        let entry = entry.context("listing blobs")?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
        bytes += entry.metadata().context("looking at a blob")?.len();
    }
    if names.is_empty() {
        bail!("{} has no blobs", blobs.display());
    }
    let output = Command::new("sha256sum")
        .arg("--")
        .args(&names)
        .current_dir(&blobs)
        .stdin(Stdio::null())
        .output()
        .context("starting `sha256sum` (of the package coreutils)")?;
    let wrong = wrong_lines(&String::from_utf8_lossy(&output.stdout), &names);
    let (here, there) = (manifests(folder)?, manifests(source)?);
    let same = here == there && !here.is_empty();
    println!(
        "  {range}: {} of {}, {}; {}",
        count(names.len(), "blob"),
        size(bytes),
        match wrong.as_slice() {
            [] if output.status.success() => "each hashes to its name".to_owned(),
            [] => format!("sha256sum failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
            wrong => format!("not what their names say: {}", wrong.join(", ")),
        },
        match same {
            true => format!("{} with the source's own manifest digests", count(here.len(), "name")),
            false => "names or manifest digests differ from the source's".to_owned(),
        }
    );
    Ok(wrong.is_empty() && output.status.success() && same)
}

/// The names whose line is missing or tells another hash.
fn wrong_lines(printed: &str, names: &BTreeSet<String>) -> Vec<String> {
    let hashes: BTreeMap<&str, &str> = printed
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(hash, name)| (name, hash)))
        .collect();
    names.iter().filter(|name| hashes.get(name.as_str()) != Some(&name.as_str())).cloned().collect()
}

/// Which manifest each name means, as `index.json` says.
fn manifests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join("index.json");
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let index: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let children = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = children.iter().filter_map(|child| {
        let name = child["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
        Some((name.to_owned(), child["digest"].as_str()?.to_owned()))
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_missing_or_other_is_wrong() {
        let names: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(wrong_lines("a  a\nb  b\nc  c\n", &names), Vec::<String>::new());
        assert_eq!(wrong_lines("a  a\nx  b\n", &names), ["b", "c"]);
    }
}
