//! Names that may stand in certain rooms only, and the sign on each door.

use quote::ToTokens as _;
use syn::visit::{self, Visit};
use syn::{Expr, Pat, Stmt};

use crate::sources::{Source, collect_paths, sources};

/// Paths that only some rooms may name: what they begin with, the rooms, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("bollard", &["crates/engine/src/docker"], "invariant 4"),
    ("aws_lc_rs", &["crates/transfer/src/digest.rs"], "invariant 4"),
    (
        "prost",
        // containerd's own API, whose messages are declared by hand.
        &[
            "proto/",
            "crates/engine/src/docker/read/content/service",
            "crates/engine/src/docker/load/ingest",
        ],
        "invariant 3: generated types never leave proto",
    ),
];

/// Paths that libraries may not name: they take values and print nothing.
const PROCESS_ONLY: &[&str] = &[
    "env::var",
    "env::var_os",
    "env::args",
    "env::args_os",
    "env::current_dir",
    "println",
    "eprintln",
    "tracing_subscriber",
];

/// Crates under `crates/` that are the command line's side of a process.
const PROCESS_CRATES: &[&str] = &["crates/process/", "crates/longshore/"];

/// Whether `path` is `name` or lies beneath it, from its first segment or from a later one.
fn names(path: &str, name: &str) -> bool {
    let beneath = |at: usize| {
        let before = at == 0 || path[..at].ends_with("::");
        let after = &path[at + name.len()..];
        before && (after.is_empty() || after.starts_with("::"))
    };
    path.match_indices(name).any(|(at, _)| beneath(at))
}

/// The sources that name a reserved path outside its rooms.
fn out_of_place(all: &[Source]) -> Vec<String> {
    let checked = all.iter().filter(|source| !source.is_test() && !source.is_generated());
    checked
        .flat_map(|source| {
            let paths = source.paths();
            RESERVED.iter().filter_map(move |(name, rooms, reason)| {
                let home = rooms.iter().any(|room| source.path.starts_with(room));
                let named = paths
                    .iter()
                    .any(|path| path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::")));
                (!home && named).then(|| format!("{} names {name}: {reason}", source.path))
            })
        })
        .collect()
}

/// The libraries that name what only a process may.
fn libraries_that_act(all: &[Source]) -> Vec<String> {
    let is_library = |source: &&Source| {
        source.path.starts_with("crates/")
            && !PROCESS_CRATES.iter().any(|room| source.path.starts_with(room))
            && !source.is_test()
    };
    all.iter()
        .filter(is_library)
        .flat_map(|source| {
            let paths = source.paths();
            PROCESS_ONLY.iter().filter_map(move |word| {
                let named = paths.iter().any(|path| names(path, word));
                named.then(|| format!("{} names {word}: libraries take values", source.path))
            })
        })
        .collect()
}

/// The public doors of `proto` through which a generated type could leave.
fn open_doors(all: &[Source]) -> Vec<String> {
    let is_proto = |source: &&Source| {
        source.path.starts_with("proto/src/") && !source.is_generated() && !source.is_test()
    };
    let shown = |item: &syn::Item| match item {
        syn::Item::Mod(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
            let name = item.ident.to_string();
            ["wire", "generated"].contains(&name.as_str()).then_some(name)
        }
        syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
            let mut paths = Vec::new();
            collect_paths(item.tree.to_token_stream(), &mut paths);
            paths.into_iter().find(|path| names(path, "wire") || names(path, "generated"))
        }
        _ => None,
    };
    all.iter()
        .filter(is_proto)
        .flat_map(|source| {
            let doors: Vec<String> = source.items().iter().filter_map(shown).collect();
            doors.into_iter().map(|door| format!("{} shows {door}", source.path))
        })
        .collect()
}

/// Statements that start a task and drop its handle.
#[derive(Default)]
struct Dropped(usize);

impl Dropped {
    /// Whether an expression is a call that starts a task on the runtime.
    fn starts_task(expression: &Expr) -> bool {
        let Expr::Call(call) = expression else { return false };
        let Expr::Path(path) = &*call.func else { return false };
        let segments: Vec<String> =
            path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let name = segments.join("::");
        match name.as_str() {
            "tokio::spawn" | "tokio::task::spawn" | "task::spawn" => true,
            "drop" => call.args.iter().any(Self::starts_task),
            _ => false,
        }
    }
}

impl<'ast> Visit<'ast> for Dropped {
    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let dropped = match statement {
            Stmt::Expr(expression, Some(_)) => Self::starts_task(expression),
            Stmt::Local(local) => {
                let started = local.init.as_ref().is_some_and(|init| Self::starts_task(&init.expr));
                started && matches!(local.pat, Pat::Wild(_))
            }
            _ => false,
        };
        self.0 += usize::from(dropped);
        visit::visit_stmt(self, statement);
    }
}

/// The sources that start a task which nobody owns.
fn tasks_without_owner(all: &[Source]) -> Vec<String> {
    let ships = |source: &&Source| source.path.contains("/src/") && !source.is_test();
    let checked = all.iter().filter(ships);
    checked
        .filter_map(|source| {
            let mut dropped = Dropped::default();
            source.items().iter().for_each(|item| dropped.visit_item(item));
            (0 < dropped.0).then(|| format!("{} drops the handle of a task", source.path))
        })
        .collect()
}

#[test]
fn every_task_has_an_owner() {
    let found = tasks_without_owner(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_task_without_an_owner_is_found() {
    let check = |body: &str, expected: usize| {
        let text = format!("fn f() {{ {body} }}");
        let source = Source { path: "crates/x/src/lib.rs".to_owned(), text };
        assert_eq!(tasks_without_owner(&[source]).len(), expected, "{body}");
    };
    check("tokio::spawn(async {});", 1);
    check("if x { let _ = tokio::spawn(async {}); }", 1);
    check("drop(tokio::task::spawn(async {}));", 1);
    check("let task = tokio::spawn(async {}); task.await", 0);
    check("Owner(tokio::spawn(async {}))", 0);
}

#[test]
fn names_stay_in_their_rooms() {
    let found = out_of_place(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_core_reads_no_environment_and_talks_to_nobody() {
    let found = libraries_that_act(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn generated_types_stay_in_proto() {
    let all = sources();
    let declared = all.iter().any(|source| source.text.contains("mod generated;"));
    assert!(declared, "the bindings are declared under another name: name it in `open_doors`");
    let found = open_doors(&all);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_room_has_a_sign() {
    for source in sources().iter().filter(|source| !source.is_generated()) {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{} has no sign on its door", source.path);
    }
}

#[test]
fn a_name_out_of_its_room_is_found_wherever_it_stands() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    // Behind a test module, in a macro, and inside a `use` tree.
    let behind = "#[cfg(test)] mod tests {} fn f() { bollard::Docker::new(); }";
    for text in [behind, "fn f() { m!(bollard::x) }", "use bollard::{a, b::c};"] {
        assert_eq!(out_of_place(&[source("crates/range/src/up.rs", text)]).len(), 1, "{text}");
        assert!(out_of_place(&[source("crates/engine/src/docker/mod.rs", text)]).is_empty());
    }
    let acts = "#[cfg(test)] mod tests {} fn f() { std::env::var(\"X\"); println!(\"{}\", 1) }";
    assert_eq!(libraries_that_act(&[source("crates/range/src/up.rs", acts)]).len(), 2);
    assert!(libraries_that_act(&[source("crates/process/src/up.rs", acts)]).is_empty());
    for text in ["pub mod wire;", "pub use crate::wire::generated::Image;", "pub use wire::X;"] {
        assert_eq!(open_doors(&[source("proto/src/lib.rs", text)]).len(), 1, "{text}");
    }
    assert!(open_doors(&[source("proto/src/lib.rs", "mod wire; use wire::X;")]).is_empty());
}
