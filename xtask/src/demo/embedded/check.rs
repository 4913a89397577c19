//! An independent check of a folder: `sha256sum` of every blob, and names compared with the source's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use range::RangeName;
use serde_json::Value;

use process::output::{count, size};

/// Checks a range's folder with `sha256sum` and against the source's `index.json`; prints the result and
/// returns whether all is correct.
///
/// # Errors
/// The folder cannot be read, or `sha256sum` cannot be started.
pub(super) fn with_sha256sum(range: &RangeName, folder: &Path, source: &Path) -> Result<bool> {
    let blobs = folder.join("blobs/sha256");
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir(&blobs).with_context(|| format!("listing {}", blobs.display()))? {
        let entry = entry.context("listing blobs")?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
        bytes += entry.metadata().context("reading the size of a blob")?.len();
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
        .context("starting `sha256sum` (from the package coreutils)")?;
    let wrong = wrong_lines(&String::from_utf8_lossy(&output.stdout), &names);
    let (here, there) = (manifests(folder)?, manifests(source)?);
    let same = here == there && !here.is_empty();
    println!(
        "  {range}: {} of {}, {}; {}",
        count(names.len(), "blob"),
        size(bytes),
        match wrong.as_slice() {
            [] if output.status.success() => "each matches its digest".to_owned(),
            [] => format!("sha256sum failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
            wrong => format!("these do not match their digests: {}", wrong.join(", ")),
        },
        match same {
            true => format!("{} with the source's manifest digests", count(here.len(), "name")),
            false => "names or manifest digests differ from the source's".to_owned(),
        }
    );
    Ok(wrong.is_empty() && output.status.success() && same)
}

/// The names whose line is missing or has another hash.
fn wrong_lines(printed: &str, names: &BTreeSet<String>) -> Vec<String> {
    let hashes: BTreeMap<&str, &str> = printed
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(hash, name)| (name, hash)))
        .collect();
    names.iter().filter(|name| hashes.get(name.as_str()) != Some(&name.as_str())).cloned().collect()
}

/// The manifest digest of each name in `index.json`.
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
    fn a_missing_line_or_another_hash_is_wrong() {
        let names: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(wrong_lines("a  a\nb  b\nc  c\n", &names), Vec::<String>::new());
        assert_eq!(wrong_lines("a  a\nx  b\n", &names), ["b", "c"]);
    }
}
