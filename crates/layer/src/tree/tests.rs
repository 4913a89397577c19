//! Layers on top of each other, by the rules that engines apply them by.

use super::*;

fn file(text: &str) -> What {
    What::File { size: text.len() as u64, digest: Digest::of(text.as_bytes()) }
}

fn link(target: &str) -> What {
    What::Symlink(target.as_bytes().into())
}

/// A root of these layers.
fn root(layers: &[&[(&str, What)]]) -> Result<Tree, LayerError> {
    let mut tree = Tree::default();
    for layer in layers {
        let records = layer.iter().map(|(path, what)| {
            let path: Path = path.as_bytes().into();
            (path, Record { what: what.clone(), mode: 0o644, owner: (0, 0) })
        });
        tree.apply(records.collect())?;
    }
    Ok(tree)
}

fn check(layers: &[&[(&str, What)]], expected: &[&str]) -> Tree {
    let tree = root(layers).unwrap();
    let paths: Vec<&str> =
        tree.iter().map(|(path, _)| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(paths, expected, "{layers:?}");
    tree
}

#[test]
fn layers_lie_on_top_of_each_other() {
    use What::Folder;
    let base: &[(&str, What)] =
        &[("a", Folder), ("a/x", file("1")), ("a/y", file("2")), ("ab", file("3"))];
    let tree = check(&[base, &[("a/x", file("new"))]], &["a", "a/x", "a/y", "ab"]);
    assert_eq!(tree.get(b"a/x").unwrap().what, file("new"));
    check(&[base, &[("a/.wh.x", file(""))]], &["a", "a/y", "ab"]);
    check(&[base, &[(".wh.a", file(""))]], &["ab"]);
    // A whiteout hides what is beneath its layer, not what is in it.
    check(&[base, &[("a/x", file("new")), ("a/.wh..wh..opq", file(""))]], &["a", "a/x", "ab"]);
    check(&[base, &[(".wh.a", file("")), ("a", Folder), ("a/z", file(""))]], &["a", "a/z", "ab"]);
    check(&[base, &[(".wh..wh.plnk", Folder)]], &["a", "a/x", "a/y", "ab"]);
    check(&[base, &[("a", file("a file now"))]], &["a", "ab"]);
    check(&[base, &[("a", Folder)]], &["a", "a/x", "a/y", "ab"]);
    check(&[base, &[(".wh..wh..opq", file("")), ("new", Folder)]], &["new"]);
}

#[test]
fn a_hard_link_is_the_file_that_it_points_to() {
    let tree = check(
        &[&[("a", file("1"))], &[("b", What::HardLink(b"a"[..].into())), (".wh.a", file(""))]],
        &["b"],
    );
    assert_eq!(tree.get(b"b").unwrap().what, file("1"));
}

#[test]
fn a_path_leads_through_the_links_that_are_there() {
    let base: &[(&str, What)] = &[
        ("usr", What::Folder),
        ("usr/lib", What::Folder),
        ("lib", link("usr/lib")),
        ("back", link("/usr/../lib/.")),
    ];
    check(
        &[base, &[("lib/x", file("")), ("back/y", file(""))]],
        &["back", "lib", "usr", "usr/lib", "usr/lib/x", "usr/lib/y"],
    );
    let looped: &[(&str, What)] = &[("a", link("b")), ("b", link("a"))];
    assert!(root(&[looped, &[("a/x", file(""))]]).is_err());
    assert!(root(&[&[("a", What::HardLink(b"nothing"[..].into()))]]).is_err());
}

#[test]
fn an_image_of_too_many_files_is_refused_before_it_fills_the_memory() {
    let record = Record { what: What::Folder, mode: 0, owner: (0, 0) };
    let mut budget = Budget(1000);
    let layer: Layer = vec![(b"a"[..].into(), record.clone())];
    budget.take(b"a", &record).unwrap();
    budget.forget(&layer);
    assert_eq!(budget.0, 1000);
    assert!(budget.take(&[b'x'; 600], &record).is_err());
}
