//! Dependency directions: `ARCHITECTURE.md`'s drawing, checked against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of our own crates each may depend on; what is not listed is refused.
const ALLOWED: &[(&str, &[&str])] = &[
    ("transfer", &[]),
    ("layer", &["transfer"]),
    ("control", &["transfer"]),
    ("engine", &["transfer", "layer"]),
    ("proto", &["transfer", "control"]),
    ("range", &["transfer", "engine", "control", "proto"]),
    ("stack", &["transfer"]),
    ("process", &["control", "proto"]),
    ("host-agent", &["transfer", "engine", "control", "proto", "process"]),
    ("dind-agent", &["transfer", "engine", "control", "proto", "process"]),
    ("longshore", &["transfer", "control", "proto", "process", "range", "stack"]),
    ("xtask", &["transfer", "control", "proto", "process", "range", "longshore"]),
    ("benches", &["transfer", "engine", "control", "proto", "process", "host-agent", "dind-agent"]),
];

/// Libraries that only the named crates may depend on, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("bollard", &["engine"], "only engine::docker talks to a Docker engine"),
    ("aws-lc-rs", &["transfer"], "only transfer::digest hashes"),
    (
        "tonic",
        // engine: containerd's own API, behind an engine's socket.
        &["proto", "engine", "host-agent", "dind-agent", "benches"],
        "the protocol stays in proto",
    ),
    ("prost", &["proto", "engine"], "generated types never leave proto; engine: containerd's API"),
    ("tonic-prost", &["proto", "engine"], "as prost"),
    (
        "clap",
        &["process", "host-agent", "dind-agent", "longshore", "xtask", "benches"],
        "libraries take values",
    ),
    ("tracing-subscriber", &["process"], "libraries only emit"),
    ("granit-parser", &["stack"], "people write YAML in compose files only"),
    ("indicatif", &["longshore"], "libraries tell events, they do not draw"),
    (
        "anyhow",
        &["process", "host-agent", "dind-agent", "longshore", "xtask", "benches"],
        "libraries have typed errors",
    ),
];

fn workspace() -> Metadata {
    MetadataCommand::new().no_deps().exec().unwrap()
}

/// Each crate of ours with the names that it depends on, tests' dependencies left out.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata.workspace_packages();
    let of = |package: &cargo_metadata::Package| {
        let kept = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        kept.map(|dependency| dependency.name.clone()).collect()
    };
    packages.iter().map(|package| (package.name.to_string(), of(package))).collect()
}

#[test]
fn our_crates_depend_on_each_other_as_drawn() {
    let crates = dependencies(&workspace());
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (name, dependencies) in &crates {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| {
            panic!("{name} is not in ARCHITECTURE.md's drawing: add it there and here")
        });
        for dependency in dependencies.iter().filter(|d| crates.contains_key(*d)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not know {dependency}");
        }
    }
}

#[test]
fn a_library_is_named_only_where_it_belongs() {
    let crates = dependencies(&workspace());
    for (library, owners, reason) in RESERVED {
        for (name, dependencies) in &crates {
            let named = dependencies.contains(*library);
            assert!(!named || owners.contains(&name.as_str()), "{name} names {library}: {reason}");
        }
    }
}

#[test]
fn the_core_knows_nobody() {
    let crates = dependencies(&workspace());
    let known = [
        "async-trait",
        "aws-lc-rs",
        "bytes",
        // Layers are decompressed once on the host, for every range: transfer::decompress.
        "flate2",
        "zstd",
        "futures",
        "hex",
        "rustix",
        "serde",
        "serde_json",
        "tempfile",
        "thiserror",
        "tokio",
        "tokio-util",
        "tracing",
    ];
    for dependency in &crates["transfer"] {
        assert!(known.contains(&dependency.as_str()), "transfer learned of {dependency}");
    }
}

#[test]
fn control_knows_nothing_of_the_wire() {
    let crates = dependencies(&workspace());
    let known = ["transfer", "async-trait", "futures", "serde", "thiserror", "tokio"];
    for dependency in &crates["control"] {
        assert!(known.contains(&dependency.as_str()), "control learned of {dependency}");
    }
}
