//! Who may name what, and how large a room may be: checked against the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// A file past this wants to be a folder of rooms, or to lose a duty.
const MOST_LINES: usize = 450;

struct Source {
    /// Relative to the workspace, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    fn generated(&self) -> bool {
        self.path.starts_with("proto/src/gen/")
    }

    /// The code with its comments and everything from the first test module on left out.
    fn code(&self) -> String {
        let body = self.text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = body.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["crates", "proto", "host-agent", "dind-agent", "xtask", "benches"]
            .map(|folder| root.join(folder))
            .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 20, "the walk found only {} sources", found.len());
    found
}

/// Asserts that `word` stands only in files whose path begins with one of `homes`.
fn check_named_only_in(word: &str, homes: &[&str], reason: &str) {
    for source in sources() {
        let home = homes.iter().any(|home| source.path.starts_with(home));
        if !home && !source.path.contains("/tests/") {
            assert!(!source.code().contains(word), "{} names {word}: {reason}", source.path);
        }
    }
}

#[test]
fn names_stay_in_their_rooms() {
    check_named_only_in("bollard::", &["crates/engine/src/docker"], "invariant 4");
    check_named_only_in("aws_lc_rs::", &["crates/transfer/src/digest.rs"], "invariant 4");
    check_named_only_in(
        "prost::",
        // containerd's own API, whose messages are declared by hand.
        &[
            "proto/",
            "crates/engine/src/docker/content/service",
            "crates/engine/src/docker/load/ingest",
        ],
        "invariant 3: generated types never leave proto",
    );
    check_named_only_in(
        "proto::gen",
        &["proto/"],
        "invariant 3: generated types never leave proto",
    );
}

#[test]
fn the_core_reads_no_environment_and_talks_to_nobody() {
    let libraries = sources().into_iter().filter(|source| {
        source.path.starts_with("crates/")
            && !source.path.starts_with("crates/agent/")
            && !source.path.contains("/tests")
    });
    for source in libraries {
        let code = source.code();
        for word in ["env::var", "env::args", "env::current_dir", "println!", "tracing_subscriber"]
        {
            assert!(!code.contains(word), "{} names {word}: libraries take values", source.path);
        }
    }
}

#[test]
fn every_room_has_a_sign_and_fits() {
    for source in sources().iter().filter(|source| !source.generated()) {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{} has no sign on its door", source.path);
        let lines = source.text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines: make it a folder", source.path);
    }
}
