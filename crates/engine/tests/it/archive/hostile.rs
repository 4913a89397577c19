//! What an attacker would write, and what is merely broken: each is told, none is read.

use std::path::Path;

use engine::{Archive, ArchiveError};
use transfer::fixture::drain;
use transfer::{BlobError, BlobSource as _, ImageSource as _, OpenImage, SourceError};

use super::tar::{BLOCK, Tar, pax_records};
use super::{Saved, gzip, id, on_disk, open};
use crate::name;

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    let saved = Saved::new();
    let good = || saved.tar("").file("manifest.json", saved.manifest().as_bytes());
    open(&good().end()).await.unwrap();
    let size = |bytes: &'static [u8]| {
        move |header: &mut [u8; BLOCK]| header[124..124 + bytes.len()].copy_from_slice(bytes)
    };
    let many = || {
        let mut tar = good();
        for number in 0..100_001 {
            tar = tar.raw(&format!("f{number}"), b'0', b"", |_| {});
        }
        tar.end()
    };
    let deep = "d/".repeat(3000);
    let cut = |by: usize| {
        let mut bytes = good().end();
        bytes.truncate(bytes.len() - by);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("..", good().file("../x", b"").end()),
        ("inner ..", good().file("a/../../x", b"").end()),
        ("absolute", good().file("/etc/x", b"").end()),
        ("long path", good().pax(&[("path", &deep)]).file("d", b"").end()),
        ("link out", good().link(b'2', "x", "../../etc/shadow").end()),
        ("absolute link", good().link(b'2', "x", "/etc/shadow").end()),
        ("hard link out", good().link(b'1', "x", "../x").end()),
        ("device", good().raw("x", b'3', b"", |_| {}).end()),
        ("pipe", good().raw("x", b'6', b"", |_| {}).end()),
        ("sparse", good().raw("x", b'S', b"", |_| {}).end()),
        ("pax sparse", good().pax(&[("GNU.sparse.major", "1")]).file("x", b"").end()),
        ("unknown type", good().raw("x", b'Z', b"", |_| {}).end()),
        ("duplicate", good().file("manifest.json", b"[]").end()),
        ("duplicate by another spelling", good().file("./manifest.json", b"[]").end()),
        ("a link over a file", good().link(b'2', "manifest.json", "x").end()),
        ("no name", good().file("./", b"").end()),
        ("negative size", good().raw("x", b'0', b"", size(b"-0000000001\0")).end()),
        ("base-256 size", good().raw("x", b'0', b"", size(b"\x80\0\0\0\0\0\0\0\0\0\0\0")).end()),
        (
            "negative base-256",
            good()
                .raw("x", b'0', b"", size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
                .end(),
        ),
        ("size of no digits", good().raw("x", b'0', b"", size(b"            ")).end()),
        ("size beyond the file", good().raw("x", b'0', b"", size(b"77777777777\0")).end()),
        ("folder with content", good().raw("x/", b'5', b"content", |_| {}).end()),
        (
            "pax size of none in the header",
            good().pax(&[("size", "512")]).raw("x", b'0', b"", |_| {}).end(),
        ),
        ("pax size of another", good().pax(&[("size", "0")]).file("x", b"content").end()),
        (
            "pax size that overflows",
            good()
                .pax(&[("size", "18446744073709551615")])
                .raw("x", b'0', b"", size(b"00000000000\0"))
                .end(),
        ),
        (
            "pax size beyond the file",
            good()
                .pax(&[("size", "9223372036854775807")])
                .raw("x", b'0', b"", size(b"00000000000\0"))
                .end(),
        ),
        ("negative pax size", good().pax(&[("size", "-1")]).file("x", b"").end()),
        ("pax path of another", good().pax(&[("path", "y")]).file("x", b"").end()),
        ("pax key twice", good().pax(&[("path", "x"), ("path", "x")]).file("x", b"").end()),
        ("two pax headers", good().pax(&[("a", "b")]).pax(&[("c", "d")]).file("x", b"").end()),
        (
            "pax and GNU",
            good().pax(&[("a", "b")]).raw("l", b'L', b"x\0", |_| {}).file("x", b"").end(),
        ),
        (
            "global size",
            good()
                .raw("g", b'g', pax_records(&[("size", "0")]).as_bytes(), |_| {})
                .file("x", b"")
                .end(),
        ),
        ("malformed pax", good().raw("p", b'x', b"99 a=b\n", |_| {}).file("x", b"").end()),
        (
            "a bomb of a long name",
            good().raw("l", b'L', &[b'a'; 1 << 20], |_| {}).file("x", b"").end(),
        ),
        ("a bomb of pax", good().raw("p", b'x', &[b'1'; 1 << 20], |_| {}).file("x", b"").end()),
        ("extension of nothing", good().pax(&[("a", "b")]).end()),
        ("wrong checksum", {
            let mut bytes = good().end();
            bytes[0] ^= 1;
            bytes
        }),
        ("no tar", vec![b'x'; 4096]),
        ("nothing", Vec::new()),
        ("no end marker", cut(2 * BLOCK)),
        ("half an end marker", cut(BLOCK)),
        ("cut in a content", cut(2 * BLOCK + 600)),
        ("an empty header between", [Tar(vec![0; BLOCK]).0, good().end()].concat()),
        ("too many entries", many()),
    ];
    for (what, bytes) in cases {
        let started = std::time::Instant::now();
        match open(&bytes).await {
            Err(ArchiveError::Malformed { reason, .. }) => {
                assert!(reason.len() < 400, "{what}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(started.elapsed().as_secs() < 10, "{what}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn what_has_no_images_is_told_with_the_reason() {
    let saved = Saved::new();
    let manifest = saved.manifest();
    let with = |manifest: &str| saved.tar("").file("manifest.json", manifest.as_bytes()).end();
    let cases = [
        ("no table of contents", saved.tar("").end()),
        ("no JSON", with("[")),
        ("a key twice", with(&manifest.replacen(r#""RepoTags""#, r#""Config":"x","RepoTags""#, 1))),
        ("a config that is not there", with(&manifest.replacen(".json", ".JSON", 1))),
        ("a layer that is not there", with(&manifest.replace(&id(3), &id(9)))),
        (
            "a layer that is a folder",
            with(&manifest.replace(&format!("{}/layer.tar", id(3)), &id(3))),
        ),
        ("a layer too few", with(&manifest.replace(&format!(r#","{}/layer.tar""#, id(1)), ""))),
        (
            "a config of other content",
            Saved::new()
                .tar("")
                .file(&format!("{}.json", id(7)), &saved.first.config)
                .file(
                    "manifest.json",
                    manifest.replacen(&saved.first.config_digest.0.hex(), &id(7), 1).as_bytes(),
                )
                .end(),
        ),
        ("a huge table of contents", with(&format!("[{}]", " ".repeat(5 << 20)))),
        (
            "an index that is a manifest too",
            saved
                .tar("")
                .file("index.json", br#"{"schemaVersion":2,"manifests":[],"config":{}}"#)
                .end(),
        ),
    ];
    for (what, bytes) in cases {
        match open(&bytes).await {
            Err(ArchiveError::NoImages { reason, .. }) => {
                assert!(reason.len() < 400, "{what}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn names_that_are_none_are_left_out_and_names_of_two_images_name_none() {
    let saved = Saved::new();
    let manifest =
        saved.manifest().replace("first:1", "../../x").replace("quay.io/x/first:2", "UPPER:1");
    let file = on_disk(&saved.tar("").file("manifest.json", manifest.as_bytes()).end());
    let archive = Archive::open(&file.path).await.unwrap();
    let listed = archive.list().await.unwrap();
    let names: Vec<_> = listed.iter().flat_map(|image| &image.references).collect();
    assert_eq!(names, [&name("second:1")]);

    let manifest = saved.manifest().replace("second:1", "first:1");
    let file = on_disk(&saved.tar("").file("manifest.json", manifest.as_bytes()).end());
    let archive = Archive::open(&file.path).await.unwrap();
    let error = archive.resolve(&name("first:1")).await.unwrap_err();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_compressed_file_is_refused_with_the_next_step() {
    let saved = Saved::new();
    let tar = saved.tar("").file("manifest.json", saved.manifest().as_bytes()).end();
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd], &tar[..]].concat();
    for (bytes, step) in [(gzip(&tar).to_vec(), "gunzip"), (zstd, "unzstd")] {
        let error = open(&bytes).await.unwrap_err();
        assert!(
            matches!(error, ArchiveError::Compressed { .. }) && error.to_string().contains(step),
            "{error}"
        );
    }
    let error = Archive::open(Path::new("/nowhere/x.tar")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Io { .. }), "{error}");
    let error = Archive::open(Path::new("/dev/zero")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_open_is_not_read_on() {
    let saved = Saved::new();
    let bytes = saved.tar("").file("manifest.json", saved.manifest().as_bytes()).end();
    let file = on_disk(&bytes);
    let archive = Archive::open(&file.path).await.unwrap();
    let OpenImage { image, blobs } = crate::open(&archive, &saved.first).await;
    let layer = image.layers[0].blob.digest;
    let stream = blobs.open(&layer, 0).await.unwrap();
    let mut other = bytes.clone();
    other[BLOCK + 600] ^= 1;
    other[2 * BLOCK + 600] ^= 1;
    std::fs::write(&file.path, &other).unwrap();
    let (_, end) = drain(stream).await;
    assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    let error = blobs.open(&layer, 0).await.map(drop).unwrap_err();
    assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
    let error = archive.list().await.unwrap_err();
    assert!(transfer::explain(&error).contains("was changed"), "{error:?}");
    assert!(matches!(archive.info().await, Err(ArchiveError::Changed { .. })));
}
