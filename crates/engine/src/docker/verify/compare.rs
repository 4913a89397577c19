//! A root as the engine gives it to a container, compared with what the image's layers make up.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use super::tar::{TarError, TarReader};
use super::tree::{Path, Record, Tree, What, clean, record};

/// What an engine puts into a container's root by itself, whatever the image has there.
const ENGINES_OWN: [&[u8]; 11] = [
    b".dockerenv",
    b"dev",
    b"dev/console",
    b"dev/pts",
    b"dev/shm",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

/// Compares every entry of `export` with `tree`, and `tree` with what was met there; how many files'
/// content was compared. What is wrong is told as it is met.
pub(super) fn compare(export: impl Read, tree: &Tree, tell: &mut dyn FnMut(String)) -> u64 {
    let mut comparison = Comparison { tree, tell, seen: HashSet::new(), files: 0 };
    match comparison.run(export) {
        Ok(()) => comparison.missing(),
        Err(error) => {
            (comparison.tell)(format!("the engine's export of the root broke off: {error}"));
        }
    }
    comparison.files
}

struct Comparison<'a> {
    tree: &'a Tree,
    tell: &'a mut dyn FnMut(String),
    seen: HashSet<Path>,
    files: u64,
}

impl Comparison<'_> {
    fn run(&mut self, export: impl Read) -> Result<(), TarError> {
        let mut reader = TarReader::new(export);
        while let Some(entry) = reader.next()? {
            let Some(path) = clean(&entry.path)? else { continue };
            let is = record(&entry, &mut reader)?;
            self.entry(path, &is);
        }
        Ok(())
    }

    fn entry(&mut self, path: Path, is: &Record) {
        if ENGINES_OWN.contains(&&*path) {
            return;
        }
        let Some(should) = self.tree.get(&path) else {
            // A folder holds nothing by itself: engines make those that are mounted on or worked in.
            if is.what != What::Folder {
                (self.tell)(format!("{} is not in the image", Shown(&path)));
            }
            return;
        };
        if matches!(is.what, What::File { .. } | What::HardLink(_)) {
            self.files += 1;
        }
        for difference in self.differences(is, should) {
            (self.tell)(format!("{} {difference}", Shown(&path)));
        }
        self.seen.insert(path);
    }

    fn differences(&self, is: &Record, should: &Record) -> Vec<String> {
        // A file with several names was compared under the first of them.
        let linked = match &is.what {
            What::HardLink(target) => self.tree.get(target),
            _ => Some(is),
        };
        let Some(is) = linked else {
            return vec!["is the same file as one that is not in the image".to_owned()];
        };
        let mut differences = Vec::new();
        if let Some(difference) = content(&is.what, &should.what) {
            differences.push(difference);
        }
        // The bits of a link mean nothing.
        if is.mode != should.mode && !matches!(should.what, What::Symlink(_)) {
            differences.push(format!("has mode {:04o} instead of {:04o}", is.mode, should.mode));
        }
        if is.owner != should.owner {
            let ((uid, gid), (own_uid, own_gid)) = (is.owner, should.owner);
            differences.push(format!("belongs to {uid}:{gid} instead of {own_uid}:{own_gid}"));
        }
        differences
    }

    /// Tells what the export did not have.
    fn missing(&mut self) {
        for (path, _) in self.tree.iter() {
            if !self.seen.contains(path) && !ENGINES_OWN.contains(&&**path) {
                (self.tell)(format!("{} is missing", Shown(path)));
            }
        }
    }
}

/// How two things at one path differ; `None` when they do not.
fn content(is: &What, should: &What) -> Option<String> {
    match (is, should) {
        (What::File { size, digest }, What::File { size: own_size, digest: own_digest }) => {
            let same = digest == own_digest && size == own_size;
            (!same).then(|| {
                format!("has changed: {digest} ({size} B) instead of {own_digest} ({own_size} B)")
            })
        }
        (What::Symlink(target), What::Symlink(own)) => (target != own)
            .then(|| format!("points to {} instead of {}", Shown(target), Shown(own))),
        // The pieces are the engine's to lay out.
        (What::File { .. } | What::Sparse, What::Sparse) => None,
        (is, should) if is == should => None,
        (is, should) => Some(format!("is {} instead of {}", kind(is), kind(should))),
    }
}

fn kind(what: &What) -> &'static str {
    match what {
        What::File { .. } | What::Sparse | What::HardLink(_) => "a file",
        What::Folder => "a folder",
        What::Symlink(_) => "a link",
        What::Other { .. } => "a device or pipe",
    }
}

/// A path as it is told: from the root, without bytes that a terminal would obey.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.0.starts_with(b"/") { "" } else { "/" };
        write!(f, "{slash}{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
#[path = "compare/tests.rs"]
mod tests;
