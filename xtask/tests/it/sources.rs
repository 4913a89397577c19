//! The workspace's sources as syntax trees, without their tests.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, Meta};

/// The folders that hold crates.
const FOLDERS: [&str; 6] = ["crates", "proto", "host-agent", "dind-agent", "xtask", "benches"];

/// One file of Rust.
pub(crate) struct Source {
    /// Relative to the workspace, with forward slashes.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
}

impl Source {
    /// Whether `cargo xtask codegen` wrote the file.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.contains("/gen/")
    }

    /// Whether the file is a test as a whole: an integration test, or a `tests` module of its own.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The file's items without those that only tests compile.
    pub(crate) fn items(&self) -> Vec<Item> {
        let file = syn::parse_file(&self.text);
        let mut items = file.unwrap_or_else(|error| panic!("{}: {error}", self.path)).items;
        without_tests(&mut items);
        items
    }

    /// Every path in the code, its segments joined by `::`, outside tests and comments. A path in
    /// a macro's arguments counts; a word in a string does not. A leading `::` is left out.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        for item in self.items() {
            collect_paths(item.to_token_stream(), &mut found);
        }
        found
    }
}

/// Every Rust file of the workspace.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.map(|folder| root.join(folder)).to_vec();
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
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Removes what only tests compile, at every depth of inline modules.
fn without_tests(items: &mut Vec<Item>) {
    items.retain(|item| !attributes(item).iter().any(is_test_only));
    for item in items {
        if let Item::Mod(module) = item
            && let Some((_, inner)) = &mut module.content
        {
            without_tests(inner);
        }
    }
}

/// Whether an attribute is `#[cfg(test)]` or `#[test]`. `#[cfg(any(test, …))]` is compiled for
/// others too.
fn is_test_only(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::NameValue(_) => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Adds every path of `tokens`. `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn collect_paths(tokens: TokenStream, found: &mut Vec<String>) {
    let mut path: Vec<String> = Vec::new();
    // Whether `::` came last, so that the next word goes on with the path.
    let mut open = false;
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                if !open {
                    finish(&mut path, found);
                }
                path.push(word.to_string());
                (open, colons) = (false, 0);
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                open = colons == 2 && !path.is_empty();
            }
            TokenTree::Group(group) => {
                if open {
                    // The braces of a `use` tree: each branch goes on with the path before them.
                    let mut branches = Vec::new();
                    collect_paths(group.stream(), &mut branches);
                    let stem = path.join("::");
                    found.extend(branches.into_iter().map(|branch| format!("{stem}::{branch}")));
                    path.clear();
                } else {
                    finish(&mut path, found);
                    collect_paths(group.stream(), found);
                }
                (open, colons) = (false, 0);
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' && open => {
                path.push("*".to_owned());
                (open, colons) = (false, 0);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                finish(&mut path, found);
                (open, colons) = (false, 0);
            }
        }
    }
    finish(&mut path, found);
}

fn finish(path: &mut Vec<String>, found: &mut Vec<String>) {
    if !path.is_empty() {
        found.push(path.join("::"));
        path.clear();
    }
}

#[test]
fn tests_are_left_out_and_all_else_is_seen() {
    let text = "
        use a::{b, c::{self, d}};
        #[cfg(test)]
        mod before { use hidden::one; }
        fn f() { macro_name!(e::f, \"in::string\", |x: g::H| x) }
        #[cfg(any(test, feature = \"fixture\"))]
        mod fixture { use seen::two; }
        #[cfg(test)]
        mod after { use hidden::three; }
        const LAST: i::J = i::K;
    ";
    let source = Source { path: "crates/x/src/lib.rs".to_owned(), text: text.to_owned() };
    let paths = source.paths();
    for path in ["a::b", "a::c::self", "a::c::d", "e::f", "g::H", "seen::two", "i::J", "i::K"] {
        assert!(paths.iter().any(|found| found == path), "{path} is not in {paths:?}");
    }
    for word in ["hidden", "in::string"] {
        assert!(!paths.iter().any(|found| found.contains(word)), "{word} is in {paths:?}");
    }
}
