//! Removal of files and folders that spares what is mounted under them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Removes a file, or a folder with its content, if it exists.
///
/// # Errors
/// Something is mounted under it; then nothing is removed.
pub(super) fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    let removed = if meta.is_dir() {
        let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        if let Some(mount) = mounts_under(&table, path).first() {
            bail!(
                "cannot remove {}: {} is mounted, unmount it first",
                path.display(),
                mount.display()
            );
        }
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.with_context(|| format!("removing {}", path.display()))
}

/// Mount points at or under `path`, the last mounted first, from the content of `mountinfo`.
pub(super) fn mounts_under(table: &str, path: &Path) -> Vec<PathBuf> {
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(path))
        .collect()
}

/// Resolves the octal escapes of white space and backslashes in `mountinfo`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 254:0 / / rw - ext4 /dev/vda rw
30 21 0:26 / /s rw - tmpfs tmpfs rw
31 30 0:27 / /s/with\\040blank rw - proc proc rw
32 21 0:28 / /state rw - tmpfs tmpfs rw";

    #[test]
    fn mounts_under_a_folder_are_listed_innermost_first() {
        let under = |path: &str| mounts_under(TABLE, Path::new(path));
        assert_eq!(under("/s"), [Path::new("/s/with blank"), Path::new("/s")]);
        assert_eq!(under("/state"), [Path::new("/state")]);
        assert!(under("/other").is_empty());
    }

    #[test]
    fn removing_a_missing_file_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        remove(&place).unwrap();
        fs::create_dir_all(place.join("b")).unwrap();
        fs::write(place.join("b/c"), "text").unwrap();
        remove(&place).unwrap();
        assert!(!place.exists());
    }
}
