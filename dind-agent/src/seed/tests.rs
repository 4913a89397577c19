//! Trees sealed and copied on this machine's own disk; a changed tree is never used.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::SystemTime;

use tempfile::TempDir;

use super::seal::{self, Sealed};
use super::{SeedError, clone, tree};

const KEY: &str = "sha256:1";

/// A tree with one of each kind that every user can make.
fn tree_of_all_kinds() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("data/overlay2/a/diff/usr")).unwrap();
    fs::create_dir_all(path("data/tmp/half")).unwrap();
    fs::create_dir_all(path("agent")).unwrap();
    fs::write(path("data/engine-id"), "me").unwrap();
    fs::write(path("agent/supervisor.json"), "{}").unwrap();
    fs::write(path("agent/journal.json"), "{}\n").unwrap();
    // Nothing, a little, and more than is read at once.
    for (name, size) in [("empty", 0), ("small", 3), ("large", (256 << 10) + 1)] {
        fs::write(path("data/overlay2/a/diff/usr").join(name), vec![7; size]).unwrap();
    }
    fs::hard_link(path("data/overlay2/a/diff/usr/small"), path("data/overlay2/a/diff/other"))
        .unwrap();
    symlink("../diff", path("data/overlay2/a/link")).unwrap();
    symlink("/nowhere", path("data/overlay2/a/dangling")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(path("data/socket")).unwrap());
    let holes = File::create(path("data/holes")).unwrap();
    holes.set_len(4 << 20).unwrap();
    holes.write_all_at(b"end", 3 << 20).unwrap();
    fs::set_permissions(path("data/overlay2/a/diff/usr/small"), fs::Permissions::from_mode(0o4711))
        .unwrap();
    fs::set_permissions(path("data/overlay2/a/diff/usr"), fs::Permissions::from_mode(0o1750))
        .unwrap();
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::open(path("data/overlay2/a/diff/usr")).unwrap().set_times(old).unwrap();
    root
}

fn sealed_tree() -> (TempDir, Sealed) {
    let root = tree_of_all_kinds();
    tree::clear_leftovers(root.path()).unwrap();
    let sealed = seal::seal(root.path(), KEY).unwrap();
    (root, sealed)
}

fn clone_of(root: &Path) -> Result<TempDir, SeedError> {
    let to = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    for volume in ["data", "agent"] {
        fs::create_dir(to.path().join(volume)).unwrap();
    }
    let sealed = seal::open(root, KEY)?;
    clone::copy_tree(root, to.path(), &sealed)?;
    Ok(to)
}

/// The properties of a tree that a clone must share.
fn described(root: &Path) -> BTreeSet<String> {
    let entries = tree::walk(root).unwrap();
    let described = entries.iter().map(|entry| {
        let path = root.join(&entry.path);
        let content = match entry.kind() {
            rustix::fs::FileType::RegularFile => format!("{:?}", super::copy::checksum(&path)),
            rustix::fs::FileType::Symlink => format!("{:?}", fs::read_link(&path)),
            _ => String::new(),
        };
        format!(
            "{} {:o} {}:{} {} {:?} {content}",
            entry.path.display(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            entry.modified
        )
    });
    described.collect()
}

#[test]
fn a_clone_is_what_was_sealed_but_for_seal_sockets_and_leftovers() {
    let (root, sealed) = sealed_tree();
    let to = clone_of(root.path()).unwrap();
    assert_eq!(described(to.path()), described(root.path()));
    for absent in
        ["agent/seal", "data/socket", "data/engine-id", "data/tmp", "agent/supervisor.json"]
    {
        assert!(!to.path().join(absent).exists(), "{absent}");
    }
    let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
    assert_eq!(inode("data/overlay2/a/diff/usr/small"), inode("data/overlay2/a/diff/other"));
    assert_ne!(
        inode("data/overlay2/a/diff/other"),
        fs::metadata(root.path().join("data/overlay2/a/diff/other")).unwrap().ino(),
        "a clone shares no file with its seed"
    );
    let holes = fs::metadata(to.path().join("data/holes")).unwrap();
    assert!(holes.blocks() * 512 < holes.len(), "holes are kept: {holes:?}");
    // small and large, the file with holes and the journal; a second name counts nothing.
    assert_eq!(sealed.bytes(), 3 + (256 << 10) + 1 + (4 << 20) + 3);
}

#[test]
fn what_was_tampered_with_is_never_used() {
    let check = |what: &str, tamper: &dyn Fn(&Path), expected: &str| {
        let (root, _) = sealed_tree();
        tamper(root.path());
        match clone_of(root.path()) {
            Err(SeedError::Unusable { reason }) => {
                assert!(reason.contains(expected), "{what}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    let large = "data/overlay2/a/diff/usr/large";
    let flip = |root: &Path| {
        let file = File::options().write(true).open(root.join(large)).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"x", 1000).unwrap();
        file.set_modified(before).unwrap();
    };
    check("a flipped byte with its time set back", &flip, "large was changed");
    let truncate = |root: &Path| {
        File::options().write(true).open(root.join(large)).unwrap().set_len(9).unwrap();
    };
    check("a truncated file", &truncate, "large was changed");
    check("a missing file", &|root| fs::remove_file(root.join(large)).unwrap(), "was changed");
    check(
        "a missing folder",
        &|root| fs::remove_dir_all(root.join("data/overlay2")).unwrap(),
        "overlay2 is missing",
    );
    check("one file more", &|root| fs::write(root.join("data/zz"), "").unwrap(), "zz was added");
    let mode = |root: &Path| {
        fs::set_permissions(root.join(large), fs::Permissions::from_mode(0o777)).unwrap();
    };
    check("other permissions", &mode, "large was changed");
    check("no seal", &|root| fs::remove_file(root.join("agent/seal")).unwrap(), "never sealed");
    let cut = |root: &Path| {
        let seal = File::options().write(true).open(root.join("agent/seal")).unwrap();
        let size = seal.metadata().unwrap().len();
        seal.set_len(size - 1).unwrap();
    };
    check("a cut seal", &cut, "seal is damaged");
    check("an empty seal", &|root| fs::write(root.join("agent/seal"), "").unwrap(), "unreadable");
    let half = |root: &Path| {
        fs::rename(root.join("agent/seal"), root.join("agent/seal.tmp")).unwrap();
    };
    check("a seal that was not finished", &half, "never sealed");
}

#[test]
fn bytes_that_rotted_unseen_are_found_where_they_are_copied() {
    let (root, mut sealed) = sealed_tree();
    // As if the disk had given other bytes than were sealed.
    let large = sealed.entries.iter().position(|entry| entry.path.ends_with("large")).unwrap();
    sealed.checksums[large] ^= 1;
    let to = tempfile::tempdir().unwrap();
    for volume in ["data", "agent"] {
        fs::create_dir(to.path().join(volume)).unwrap();
    }
    let copied = clone::copy_tree(root.path(), to.path(), &sealed);
    // If the file system shares bytes, none are read.
    let shared = matches!(copied, Ok(reflinked) if 0 < reflinked);
    assert!(shared || matches!(copied, Err(SeedError::Unusable { .. })), "{copied:?}");
}

#[test]
fn a_seed_is_only_for_whom_it_was_sealed_and_goes_only_where_nothing_is() {
    let (root, sealed) = sealed_tree();
    let Err(SeedError::Unusable { reason }) = seal::open(root.path(), "sha256:2") else {
        panic!("another key was accepted");
    };
    assert!(reason.contains("sealed for sha256:1"), "{reason}");
    let to = tempfile::tempdir().unwrap();
    fs::create_dir_all(to.path().join("data/somebody's")).unwrap();
    fs::create_dir(to.path().join("agent")).unwrap();
    let copied = clone::copy_tree(root.path(), to.path(), &sealed);
    assert!(matches!(copied, Err(SeedError::Io { .. })), "{copied:?}");
}

#[test]
fn sealing_again_replaces_the_seal() {
    let (root, _) = sealed_tree();
    fs::write(root.path().join("data/more"), "more").unwrap();
    seal::seal(root.path(), KEY).unwrap();
    clone_of(root.path()).unwrap();
}
