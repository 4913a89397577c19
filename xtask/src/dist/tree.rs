//! Files by path, packed into a reproducible tar archive.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// A file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
        /// True for an executable file.
        is_program: bool,
    },
    /// A symbolic link to this path.
    Link(String),
}

/// Files and links by path, without a leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a file that is not executable.
    pub(super) fn file(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let node = Node::File { bytes: bytes.into(), is_program: false };
        self.0.insert(path.into(), node);
    }

    /// Adds a program.
    pub(super) fn program(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let node = Node::File { bytes: bytes.into(), is_program: true };
        self.0.insert(path.into(), node);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.0.insert(path.into(), Node::Link(target.into()));
    }

    /// All files and links, sorted by path.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Size of all files in bytes.
    pub(super) fn size(&self) -> u64 {
        let size = |node: &Node| match node {
            Node::File { bytes, .. } => bytes.len() as u64,
            Node::Link(_) => 0,
        };
        self.0.values().map(size).sum()
    }

    /// Packs everything into a tar archive, with `prefix` (which ends in a slash) before each path.
    ///
    /// Folders come before their content, and root owns everything. All modification times are `time`,
    /// in seconds since 1970.
    pub(super) fn tar(&self, prefix: &str, time: u64) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for (path, node) in &self.0 {
            let path = format!("{prefix}{path}");
            for (end, _) in path.match_indices('/') {
                let folder = &path[..=end];
                if folders.insert(folder.to_owned()) {
                    let header = header(EntryType::Directory, 0, 0o755, time);
                    append(&mut tar, header, folder, &[])?;
                }
            }
            match node {
                Node::File { bytes, is_program } => {
                    let mode = if *is_program { 0o755 } else { 0o644 };
                    let header = header(EntryType::Regular, bytes.len() as u64, mode, time);
                    append(&mut tar, header, &path, bytes)?;
                }
                Node::Link(target) => {
                    let mut header = header(EntryType::Symlink, 0, 0o777, time);
                    header.set_link_name(target).with_context(|| format!("packing {path}"))?;
                    append(&mut tar, header, &path, &[])?;
                }
            }
        }
        tar.into_inner().context("packing")
    }
}

fn header(kind: EntryType, size: u64, mode: u32, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    // These names fit a GNU header.
    drop(header.set_username("root"));
    drop(header.set_groupname("root"));
    header
}

fn append(tar: &mut Builder<Vec<u8>>, mut header: Header, path: &str, bytes: &[u8]) -> Result<()> {
    // `append_data` would drop the leading `./` of Debian's archives.
    if path.len() < 100 {
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        return tar.append(&header, bytes).with_context(|| format!("packing {path}"));
    }
    tar.append_data(&mut header, path, bytes).with_context(|| format!("packing {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_their_files_and_root_owns_everything() {
        let mut tree = Tree::default();
        tree.program("usr/bin/x", "program");
        tree.file("usr/share/y", "words");
        tree.link("usr/lib/z", "../bin/x");
        let bytes = tree.tar("./", 7).unwrap();
        assert_eq!(bytes, tree.clone().tar("./", 7).unwrap(), "the same bytes each time");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 7));
                assert_eq!(header.username().unwrap(), Some("root"));
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                (path, header.mode().unwrap(), header.entry_type())
            })
            .collect();
        let folder = |path: &str| (path.to_owned(), 0o755, EntryType::Directory);
        assert_eq!(
            entries,
            [
                folder("./"),
                folder("./usr/"),
                folder("./usr/bin/"),
                ("./usr/bin/x".to_owned(), 0o755, EntryType::Regular),
                folder("./usr/lib/"),
                ("./usr/lib/z".to_owned(), 0o777, EntryType::Symlink),
                folder("./usr/share/"),
                ("./usr/share/y".to_owned(), 0o644, EntryType::Regular),
            ]
        );
        assert_eq!(tree.size(), 12);
    }
}
