//! A root as an engine gives it to a container, compared with the root of the image's layers.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use crate::tar::{Path, Reader, Rules, clean};
use crate::tree::{LayerError, Record, Tree, What, record};

/// Compares every entry of `export` with `tree`, and looks for entries of `tree` that `export` lacks.
///
/// Paths in `ignored` may be anything. Each difference goes to `tell` as it is found. Returns the
/// number of files whose content was compared.
pub fn compare(
    export: impl Read,
    tree: &Tree,
    ignored: &[&[u8]],
    tell: &mut dyn FnMut(String),
) -> u64 {
    let mut comparison = Comparison { tree, ignored, tell, seen: HashSet::new(), files: 0 };
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
    ignored: &'a [&'a [u8]],
    tell: &'a mut dyn FnMut(String),
    seen: HashSet<Path>,
    files: u64,
}

impl Comparison<'_> {
    fn run(&mut self, export: impl Read) -> Result<(), LayerError> {
        let mut reader = Reader::new(export, Rules::Lenient);
        while let Some(entry) = reader.next_entry()? {
            let Some(path) = clean(&entry.path).map_err(LayerError::Entry)? else { continue };
            let is = record(&entry, &mut reader)?;
            self.entry(path, &is);
        }
        Ok(())
    }

    fn entry(&mut self, path: Path, is: &Record) {
        if self.ignored.contains(&&*path) {
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

    /// Reports what the export lacks.
    fn missing(&mut self) {
        for (path, _) in self.tree.iter() {
            if !self.seen.contains(path) && !self.ignored.contains(&&**path) {
                (self.tell)(format!("{} is missing", Shown(path)));
            }
        }
    }
}

/// How two records of one path differ; `None` when they do not.
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

/// A path for people: from the root, without bytes that a terminal would obey.
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
