//! Saves in all their forms, whole and damaged.

use std::io::Write as _;

use super::*;
use transfer::Digest;

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn diff_id(layer: &[u8]) -> DiffId {
    DiffId(Digest::of(layer))
}

/// The paths of a save's root, and its problems.
fn read(save: &[u8], diff_ids: &[DiffId]) -> (Option<Vec<String>>, Vec<String>) {
    let (tree, problems) = root(save, diff_ids);
    let paths = |tree: Tree| {
        tree.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    };
    (tree.map(paths), problems)
}

#[test]
fn a_layer_is_what_hashes_to_a_diff_id_in_whatever_form() {
    let (base, top) = (archive(&[("a", b"1")]), archive(&[("b", b"2"), (".wh.a", b"")]));
    let diff_ids = [diff_id(&base), diff_id(&top), diff_id(&top)];
    let zstd = zstd::encode_all(&base[..], 1).unwrap();
    let forms = [
        // The order of blobs says nothing.
        archive(&[("blobs/sha256/1", &top), ("blobs/sha256/2", &base), ("index.json", b"{}")]),
        archive(&[("blobs/sha256/1", &gzip(&top)), ("blobs/sha256/2", &zstd)]),
        archive(&[("1/layer.tar", &base), ("2/layer.tar", &top), ("x.json", b"[]")]),
        archive(&[
            ("blobs/sha256/0", b"{\"a\":1}"),
            ("blobs/sha256/1", b"neither archive nor document"),
            ("blobs/sha256/2", &gzip(b"no archive")),
            ("blobs/sha256/3", &archive(&[("another", b"image's")])),
            ("blobs/sha256/4", &base),
            ("blobs/sha256/5", &gzip(&base)),
            ("blobs/sha256/6", &top),
        ]),
    ];
    for save in &forms {
        assert_eq!(read(save, &diff_ids), (Some(vec!["b".to_owned()]), Vec::new()));
    }
}

#[test]
fn what_is_wrong_with_a_layer_is_told_with_its_place() {
    let (base, top) = (archive(&[("a", b"1")]), archive(&[("b", b"2")]));
    let diff_ids = [diff_id(&base), diff_id(&top)];
    let mut changed = top.clone();
    changed[512] ^= 1;
    let mut cut_gzip = gzip(&top);
    cut_gzip.truncate(20);
    let bad = [changed, cut_gzip, gzip(b"x"), Vec::new()];
    for top in &bad {
        let save = archive(&[("blobs/sha256/1", &base), ("blobs/sha256/2", top)]);
        let (tree, problems) = read(&save, &diff_ids);
        assert_eq!((tree, problems.len()), (None, 1), "{problems:?}");
        assert!(problems[0].starts_with(&format!("layer 2 of 2, {}", diff_ids[1])), "{problems:?}");
    }
    let save = archive(&[("blobs/sha256/1", &base), ("blobs/sha256/2", &top)]);
    let (tree, problems) = read(&save[..save.len() - 2500], &diff_ids);
    assert_eq!(tree, None);
    assert!(problems[0].contains("broke off"), "{problems:?}");
    assert!(problems[1].starts_with("layer 2 of 2"), "{problems:?}");
}

#[test]
fn bytes_after_a_layers_end_belong_to_its_digest() {
    let mut layer = archive(&[("a", b"1")]);
    layer.extend([0; 10_240]);
    let save = archive(&[("blobs/sha256/1", &layer)]);
    assert!(read(&save, &[diff_id(&layer)]).1.is_empty());
    assert_eq!(read(&save, &[diff_id(&archive(&[("a", b"1")]))]).0, None);
}
