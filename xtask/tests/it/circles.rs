//! No two modules of a crate import each other in a circle.
//!
//! A module is a file. It imports another when its code names an item of that file, whatever
//! re-export the name comes through. `mod x;` and `pub use x::Y;` are no imports by themselves: a
//! parent may show what its children hold.

use std::collections::{BTreeMap, BTreeSet};

use quote::ToTokens as _;
use syn::{Item, UseTree, Visibility};

use crate::sources::{Source, collect_paths, sources};

/// Circles that stay, each by one of its files, with the reason. There may be three at most.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// A name that a module brings into scope.
#[derive(Clone, Debug)]
struct Import {
    /// Segments as written: `crate`, `a`, `B`.
    path: Vec<String>,
    /// Whether others may take the name from here.
    is_shown: bool,
}

/// One file of a crate.
#[derive(Debug, Default)]
struct Module {
    /// The file, relative to the workspace.
    file: String,
    /// Child modules that are files of their own.
    children: BTreeSet<String>,
    /// Names that `use` brings in.
    imports: BTreeMap<String, Import>,
    /// Stems of `use stem::*`.
    globs: Vec<Vec<String>>,
    /// Items that the file defines, inline modules included.
    items: BTreeSet<String>,
    /// Paths that the code names, outside `use`.
    paths: Vec<Vec<String>>,
}

/// The modules of one crate by their path from its root; the root is the empty path.
type Modules = BTreeMap<Vec<String>, Module>;

impl Module {
    fn read(source: &Source) -> Self {
        let mut module = Self { file: source.path.clone(), ..Self::default() };
        let mut others = Vec::new();
        for item in source.items() {
            match &item {
                Item::Use(import) => {
                    let is_shown = !matches!(import.vis, Visibility::Inherited);
                    module.take(&import.tree, &mut Vec::new(), is_shown);
                    continue;
                }
                Item::Mod(child) if child.content.is_none() => {
                    module.children.insert(child.ident.to_string());
                    continue;
                }
                _ => {}
            }
            module.items.extend(name(&item));
            collect_paths(item.to_token_stream(), &mut others);
        }
        let split = |path: String| path.split("::").map(str::to_owned).collect();
        module.paths = others.into_iter().map(split).collect();
        module
    }

    /// Takes the names that a `use` tree brings in.
    fn take(&mut self, tree: &UseTree, stem: &mut Vec<String>, is_shown: bool) {
        match tree {
            UseTree::Path(path) => {
                stem.push(path.ident.to_string());
                self.take(&path.tree, stem, is_shown);
                stem.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                let last = stem.last().cloned().unwrap_or_default();
                self.imports.insert(last, Import { path: stem.clone(), is_shown });
            }
            UseTree::Name(name) => {
                let path = stem.iter().cloned().chain([name.ident.to_string()]).collect();
                self.imports.insert(name.ident.to_string(), Import { path, is_shown });
            }
            UseTree::Rename(rename) => {
                let path: Vec<String> = match rename.ident == "self" {
                    true => stem.clone(),
                    false => stem.iter().cloned().chain([rename.ident.to_string()]).collect(),
                };
                // Two traits may be brought in as `_`: each counts.
                let name = match rename.rename == "_" {
                    true => format!("_ as {}", path.join("::")),
                    false => rename.rename.to_string(),
                };
                self.imports.insert(name, Import { path, is_shown });
            }
            UseTree::Glob(_) => self.globs.push(stem.clone()),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.take(tree, stem, is_shown));
            }
        }
    }
}

/// The name of an item, where it has one.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The module that defines what `path`, written in the module `here`, names; absent for what is
/// another crate's.
fn home(modules: &Modules, here: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
    // A name that is re-exported in a ring of globs ends here.
    if depth == 0 {
        return None;
    }
    let (first, mut rest) = path.split_first()?;
    let mut at: Vec<String> = match first.as_str() {
        "crate" => Vec::new(),
        "self" => here.to_vec(),
        "super" => here.split_last()?.1.to_vec(),
        _ => {
            return within(modules, here, here, path, depth);
        }
    };
    while let Some((next, after)) = rest.split_first()
        && next == "super"
    {
        at.pop()?;
        rest = after;
    }
    within(modules, &at, here, rest, depth)
}

/// The same for a path that begins in the module `at`.
fn within(
    modules: &Modules,
    at: &[String],
    here: &[String],
    path: &[String],
    depth: usize,
) -> Option<Vec<String>> {
    let module = modules.get(at)?;
    let Some((first, rest)) = path.split_first() else { return Some(at.to_vec()) };
    if module.children.contains(first) {
        let child: Vec<String> = at.iter().cloned().chain([first.clone()]).collect();
        return within(modules, &child, here, rest, depth);
    }
    if module.items.contains(first) {
        return Some(at.to_vec());
    }
    // What a module brings in for itself, its children may name too.
    let visible = |import: &&Import| import.is_shown || here.starts_with(at);
    if let Some(import) = module.imports.get(first).filter(visible) {
        // A `use` that begins with the name it brings in names another crate.
        if import.path.first() == Some(first) && !module.children.contains(first) {
            return None;
        }
        let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
        return home(modules, at, &path, depth - 1);
    }
    module.globs.iter().find_map(|stem| {
        let path: Vec<String> = stem.iter().chain(path).cloned().collect();
        home(modules, at, &path, depth - 1).filter(|found| found != at)
    })
}

/// The modules of the crate whose sources lie under `root`, without tests and generated files.
fn modules(all: &[Source], root: &str) -> Modules {
    let mut modules = Modules::new();
    for source in all.iter().filter(|source| !source.is_test() && !source.is_generated()) {
        let Some(path) = source.path.strip_prefix(root) else { continue };
        let mut path: Vec<String> =
            path.trim_end_matches(".rs").split('/').map(Into::into).collect();
        if path.first().is_some_and(|first| first == "bin") {
            continue;
        }
        if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            path.pop();
        }
        // A library's root is read rather than its binary's, which is a page.
        if path.is_empty() && modules.contains_key(&path) && source.path.ends_with("main.rs") {
            continue;
        }
        modules.insert(path, Module::read(source));
    }
    modules
}

/// Which module imports which.
fn imports(modules: &Modules) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    const DEPTH: usize = 12;
    let of = |(here, module): (&Vec<String>, &Module)| {
        let named: BTreeSet<&String> =
            module.paths.iter().filter_map(|path| path.first()).collect();
        let brought = module.imports.iter();
        // What is shown and not used here is a re-export.
        let used = brought.filter(|(name, import)| !import.is_shown || named.contains(name));
        // A word alone came into scope by a `use`, or is a local name.
        let written = module.paths.iter().filter(|path| 1 < path.len());
        let paths = used.map(|(_, import)| &import.path).chain(&module.globs).chain(written);
        let homes = paths.filter_map(|path| home(modules, here, path, DEPTH));
        let others: BTreeSet<_> = homes.filter(|found| found != here).collect();
        (here.clone(), others)
    };
    modules.iter().map(of).collect()
}

/// The sets of modules that reach each other, each sorted.
fn circles(edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<Vec<Vec<String>>> {
    let reach = |from: &Vec<String>| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Vec<String>> = edges[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(edges.get(module).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> =
        edges.keys().map(|module| (module, reach(module))).collect();
    let mut found: BTreeSet<Vec<Vec<String>>> = BTreeSet::new();
    for (module, others) in &reached {
        let circle: Vec<_> = others
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)))
            .cloned()
            .collect();
        if 1 < circle.len() {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// The circles of a crate as lists of files with what ties them.
fn circles_of(all: &[Source], root: &str) -> Vec<String> {
    let modules = modules(all, root);
    let edges = imports(&modules);
    let told = |circle: Vec<Vec<String>>| {
        let ties = circle.iter().flat_map(|module| {
            let file = &modules[module].file;
            let inside = edges[module].iter().filter(|other| circle.contains(other));
            inside.map(move |other| (file.clone(), other.clone()))
        });
        let ties = ties.map(|(file, other)| format!("  {file} -> {}", modules[&other].file));
        ties.collect::<Vec<_>>().join("\n")
    };
    circles(&edges).into_iter().map(told).collect()
}

/// The folders that hold a crate's sources.
fn roots(all: &[Source]) -> BTreeSet<String> {
    let root = |source: &Source| {
        let end = source.path.find("/src/")?;
        Some(source.path[..end + "/src/".len()].to_owned())
    };
    all.iter().filter_map(root).collect()
}

#[test]
fn no_two_modules_import_each_other() {
    assert!(EXCEPTIONS.len() <= 3, "a fourth circle is to be cut, not excepted");
    let all = sources();
    let found: Vec<String> = roots(&all).iter().flat_map(|root| circles_of(&all, root)).collect();
    for (file, reason) in EXCEPTIONS {
        let used = found.iter().any(|circle| circle.contains(file));
        assert!(used, "{file} is in no circle any more, so its exception goes: {reason}");
    }
    let excepted = |circle: &String| EXCEPTIONS.iter().any(|(file, _)| circle.contains(file));
    let left: Vec<String> = found.into_iter().filter(|circle| !excepted(circle)).collect();
    assert!(left.is_empty(), "{} circles:\n{}", left.len(), left.join("\n\n"));
}

#[test]
fn a_circle_is_found_whatever_it_goes_through() {
    let check = |files: &[(&str, &str)], expected: usize| {
        let all: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source { path: format!("x/src/{path}"), text: (*text).to_owned() })
            .collect();
        let found = circles_of(&all, "x/src/");
        assert_eq!(found.len(), expected, "{files:?}: {found:?}");
    };
    // Plainly, by a path in an expression, and in a macro.
    check(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { crate::a::A; }"),
        ],
        1,
    );
    check(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use super::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { m!(super::a::A) }"),
        ],
        1,
    );
    // Through a re-export, renamed too, and through a glob.
    check(
        &[
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::A; pub struct B; fn f(_: A) {}"),
        ],
        1,
    );
    check(
        &[
            ("lib.rs", "mod a; mod b; pub use a::A as C;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::C; pub struct B; fn f(_: C) {}"),
        ],
        1,
    );
    check(
        &[
            ("lib.rs", "mod a; mod b; pub use a::*;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::A; pub struct B; fn f(_: A) {}"),
        ],
        1,
    );
    // Between a parent and its child.
    check(
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod c; use c::C; pub struct A; fn f(_: C) {}"),
            ("a/c.rs", "use super::A; pub struct C;"),
        ],
        1,
    );
    // A parent that shows its child's item, and one direction alone, are none; nor is a test.
    check(
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod c; pub use c::C; pub struct A;"),
            ("a/c.rs", "use super::A; pub struct C;"),
        ],
        0,
    );
    check(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ],
        0,
    );
    check(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use b::B; pub struct A;"),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ],
        0,
    );
}
