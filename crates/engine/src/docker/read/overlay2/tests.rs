//! Layers put together from a data-root: exact, lazy, and an error for all that is not right.

mod root;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt as _;
use transfer::MAX_FRAME;
use transfer::fixture::{self, contract, drain};

use super::*;
use crate::fixture::FakeDocker;
use root::{Part, Root};

/// A blob as a layer of which all but both ends is a file's content.
fn with_a_file(name: &str, blob: &Bytes) -> Vec<Part> {
    let from = (blob.len() / 3).min(512);
    let to = blob.len() - from;
    vec![
        Part::Bytes(blob.slice(..from)),
        Part::File(name.into(), blob.slice(from..to)),
        Part::Bytes(blob.slice(to..)),
    ]
}

/// An image with one layer of 2 MiB and some, whose file is `some/where/file`.
async fn one_layer() -> (Root, Image, ChainId) {
    let root = Root::new();
    let image = root.add(&[with_a_file("some/where/file", &fixture::bytes(1, 2_500_000))]);
    let chain_id = ChainId(image.layers[0].diff_id.0);
    (root, image, chain_id)
}

#[tokio::test]
async fn files_are_a_source_like_any_other() {
    let root = Root::new();
    let blobs = contract::blobs();
    let layers: Vec<_> = blobs.iter().map(|blob| with_a_file("a/file", blob)).collect();
    let image = root.add(&layers);
    let files = root.open().await;
    assert_eq!(open(&files, &image).await.image, image);
    let uncompressed = files.open(&image.config_digest.into(), LayerForm::Uncompressed).await;
    assert_eq!(uncompressed.unwrap().image, image);
    let source = open(&files, &image).await.blobs;
    contract::source(&*source, &blobs).await;
    contract::source(&*source, &[image.config.clone(), image.manifest.clone()]).await;

    let summary = files.resolve(&"app:1".parse().unwrap()).await.unwrap();
    assert_eq!(summary.config_digest, image.config_digest);
    assert_eq!(files.list().await.unwrap(), [summary]);
}

#[tokio::test]
async fn all_who_ask_at_once_read_what_the_engine_keeps_of_a_layer_once() {
    let (root, image, chain_id) = one_layer().await;
    let files = root.open().await;
    let before = files.stats().metadata_read;
    let asked = (0..20).map(|_| open(&files, &image));
    for asked in futures::future::join_all(asked).await {
        assert_eq!(asked.image, image);
    }
    let folder = std::fs::read_dir(root.layer(&chain_id)).unwrap();
    let layer: u64 = folder.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    let read = files.stats().metadata_read - before;
    assert_eq!(read, layer + 20 * image.config.len() as u64);
    assert_eq!(files.stats().bytes_read, 0, "a layer was read");
}

#[tokio::test]
async fn every_offset_gives_the_tail_of_the_whole() {
    let root = Root::new();
    let names: [&[u8]; 5] = [b"plain", b"./dot", b"/slash", b"new\nline/\xff\xfe", b"a/b/c/d"];
    let file = |(seed, name): (u64, &&[u8])| {
        let size = [700, 0, 512, 1, 65_000][usize::try_from(seed).unwrap() % 5];
        // Leading slashes are the tar's; the file lies in the folder.
        let name = name.strip_prefix(b"/").unwrap_or(name).to_vec();
        [Part::Bytes(fixture::bytes(seed, 512)), Part::File(name, fixture::bytes(seed + 100, size))]
    };
    let parts: Vec<_> = (0..).zip(&names).flat_map(file).collect();
    let whole = root::tar(&parts);
    let image = root.add(&[parts]);
    let blobs = open(&root.open().await, &image).await.blobs;
    for offset in (0..=whole.len()).step_by(97) {
        let stream = blobs.open(&image.layers[0].blob.digest, offset as u64).await.unwrap();
        let (bytes, end) = drain(stream).await;
        end.unwrap();
        assert!(bytes == whole[offset..], "from {offset}");
    }
}

#[tokio::test]
async fn nothing_is_read_before_it_is_asked_for() {
    const SIZE: u64 = 9 << 30;
    let root = Root::new();
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_size(SIZE);
    header.set_cksum();
    assert_eq!(header.as_bytes()[124], 0x80, "the size is in base 256");
    let header = Bytes::copy_from_slice(header.as_bytes());
    let end = Bytes::from_static(&[0; 1024]);
    // What it would hash to is left open: it is never read whole.
    let diff_id = DiffId(fixture::unknown());
    let chain_id = ChainId(diff_id.0);
    let parts =
        [Part::Bytes(header.clone()), Part::File("huge".into(), Bytes::new()), Part::Bytes(end)];
    root.keep_layer(&chain_id, &diff_id, &parts);
    let lines = root::split(&parts).replace("\"size\":0", &format!("\"size\":{SIZE}"));
    root.keep_split(&chain_id, &lines);
    let huge = std::fs::OpenOptions::new().write(true).open(root.diff(&chain_id).join("huge"));
    let huge = huge.unwrap();
    huge.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&huge, b"tail", SIZE - 4).unwrap();
    let config_digest = root.keep_config(&root::config(&[diff_id]));

    let files = root.open().await;
    let opened = files.open(&config_digest.into(), LayerForm::AsStored).await.unwrap();
    let OpenImage { image, blobs } = opened;
    let size = SIZE + 512 + 1024;
    assert_eq!(image.layers[0].blob.size, size);
    assert_eq!(blobs.stat(&diff_id.0).await.unwrap(), Some(size));
    let tail = drain(blobs.open(&diff_id.0, size - 1028).await.unwrap()).await.0;
    assert_eq!(tail, [&b"tail"[..], &[0; 1024]].concat());
    assert_eq!(files.stats().bytes_read, 4, "what lies before the offset was read");

    let mut stream = blobs.open(&diff_id.0, 0).await.unwrap();
    assert_eq!(files.stats().bytes_read, 4, "something was read before the first frame");
    let first = stream.try_next().await.unwrap().unwrap();
    assert!(first.starts_with(&header));
    assert_eq!(first.len(), plan::FIRST, "the first frame is waited for");
    drop(stream);
    // The verification holds one back besides.
    let most = 2 + crate::read_ahead::AHEAD;
    assert!(files.stats().bytes_read <= 4 + (most * MAX_FRAME) as u64, "{:?}", files.stats());
    assert_eq!(files.stats().streams, 2);
}

async fn open(files: &Overlay2Files, image: &Image) -> OpenImage {
    files.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap()
}

/// How a read has to end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Size,
    Digest,
    Storage,
}

fn check_end(error: &BlobError, expected: End, what: &str) {
    let told = transfer::explain(error);
    let end = match error {
        BlobError::SizeMismatch { .. } => End::Size,
        BlobError::DigestMismatch { .. } => End::Digest,
        BlobError::Storage { .. } => {
            assert!(told.contains("read-only") && told.contains("save"), "{what}: {told}");
            End::Storage
        }
        error => panic!("{what}: {error:?}"),
    };
    assert_eq!(end, expected, "{what}: {told}");
}

/// Damages a layer, and reads it with its size known before and not, from its beginning and from a
/// byte in the middle of its file: which must fail, or is right from there on.
async fn check_damage(what: &str, warm: End, cold: End, damage: impl Fn(&Root, &ChainId)) {
    let (root, image, chain_id) = one_layer().await;
    let digest = image.layers[0].blob.digest;
    let files = root.open().await;
    assert!(open(&files, &image).await.blobs.stat(&digest).await.unwrap().is_some());
    damage(&root, &chain_id);
    for (files, expected) in [(files, warm), (root.open().await, cold)] {
        for offset in [0, 1_000_000] {
            let read = async {
                let opened = files.open(&image.config_digest.into(), LayerForm::AsStored).await;
                let blobs = opened.map_err(|error| error.of_blob(digest))?.blobs;
                match blobs.open(&digest, offset).await {
                    Ok(stream) => drain(stream).await.1,
                    Err(error) => Err(error),
                }
            };
            let end = tokio::time::timeout(Duration::from_secs(20), read).await;
            match end.unwrap_or_else(|_| panic!("{what}: reading hangs")) {
                Err(BlobError::OffsetBeyondEnd { .. }) if offset != 0 => {}
                Err(error) => check_end(&error, expected, what),
                // Who joins the pieces will see it.
                Ok(()) => assert!(offset != 0 && expected == End::Digest, "{what}: a good end"),
            }
        }
    }
}

fn file(root: &Root, chain_id: &ChainId) -> std::path::PathBuf {
    root.diff(chain_id).join("some/where/file")
}

#[tokio::test]
async fn a_file_that_is_not_what_was_unpacked_never_ends_well() {
    let both = |end| (end, end);
    type Damage = fn(&Path);
    let table: [(&str, (End, End), Damage); 8] = [
        ("shorter", both(End::Size), |file| {
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(7).unwrap();
        }),
        ("longer", both(End::Size), |file| {
            let size = file.metadata().unwrap().len();
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(size + 1).unwrap();
        }),
        ("other bytes", both(End::Digest), |file| {
            let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
            std::fs::write(file, fixture::bytes(9, size)).unwrap();
        }),
        ("gone", both(End::Storage), |file| std::fs::remove_file(file).unwrap()),
        ("a symlink to the same bytes", both(End::Storage), |file| {
            let other = file.with_extension("moved");
            std::fs::rename(file, &other).unwrap();
            symlink(other, file).unwrap();
        }),
        ("below a symlink", both(End::Storage), |file| {
            let folder = file.parent().unwrap();
            std::fs::rename(folder, folder.with_extension("moved")).unwrap();
            symlink("where.moved", folder).unwrap();
        }),
        ("a pipe", both(End::Storage), |file| {
            std::fs::remove_file(file).unwrap();
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, file, mode).unwrap();
        }),
        ("a folder", both(End::Storage), |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        }),
    ];
    for (what, (warm, cold), damage) in table {
        check_damage(what, warm, cold, |root, chain_id| damage(&file(root, chain_id))).await;
    }
}

#[tokio::test]
async fn a_hostile_tar_split_never_ends_well() {
    let edit = |root: &Root, chain_id: &ChainId, edit: &dyn Fn(String) -> String| {
        let parts = with_a_file("some/where/file", &fixture::bytes(1, 2_500_000));
        root.keep_split(chain_id, &edit(root::split(&parts)));
    };
    let rename = |name: &'static str| move |lines: String| lines.replace("some/where/file", name);
    let secret = tempfile::NamedTempFile::new().unwrap();
    let absolute: &'static str = secret.path().to_str().unwrap().to_owned().leak();
    type Edit = Box<dyn Fn(String) -> String>;
    let table: [(&str, End, End, Edit); 11] = [
        ("leads out", End::Storage, End::Storage, Box::new(rename("../../diff/some/where/file"))),
        ("leads out of a folder", End::Storage, End::Storage, Box::new(rename("some/../../x"))),
        ("absolute", End::Storage, End::Storage, Box::new(rename(absolute))),
        ("a NUL", End::Storage, End::Storage, Box::new(rename("some/where/file\\u0000"))),
        (
            "a huge size",
            End::Size,
            End::Size,
            Box::new(|lines| {
                lines.replace("\"size\":2498976", &format!("\"size\":{}", i64::MAX / 2))
            }),
        ),
        (
            "sizes beyond all sums",
            End::Size,
            End::Storage,
            Box::new(|lines| lines.replace("\"size\":2498976", &format!("\"size\":{}", u64::MAX))),
        ),
        (
            "one entry too many",
            End::Size,
            End::Digest,
            Box::new(|lines| lines + "{\"type\":2,\"payload\":\"YQ==\"}\n"),
        ),
        (
            "one entry too few",
            End::Size,
            End::Digest,
            Box::new(|lines| lines.lines().take(2).map(|line| format!("{line}\n")).collect()),
        ),
        ("nothing at all", End::Size, End::Digest, Box::new(|_| String::new())),
        ("garbage at the end", End::Storage, End::Storage, Box::new(|lines| lines + "}{")),
        (
            "bad base64",
            End::Storage,
            End::Storage,
            Box::new(|lines| lines.replace("\"payload\":\"", "\"payload\":\"%%%%")),
        ),
    ];
    for (what, warm, cold, change) in table {
        let damage = |root: &Root, chain_id: &ChainId| edit(root, chain_id, &change);
        check_damage(what, warm, cold, damage).await;
    }
}

#[tokio::test]
async fn a_damaged_layerdb_never_ends_well() {
    type Damage = fn(&Root, &ChainId);
    let table: [(&str, Damage); 10] = [
        ("cut gzip", |root, id| {
            let path = root.split(id);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
        }),
        ("wrong sum of gzip", |root, id| {
            let path = root.split(id);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.len() - 5;
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("no gzip", |root, id| std::fs::write(root.split(id), b"{}").unwrap()),
        ("no tar-split", |root, id| std::fs::remove_file(root.split(id)).unwrap()),
        ("a folder for a tar-split", |root, id| {
            std::fs::remove_file(root.split(id)).unwrap();
            std::fs::create_dir(root.split(id)).unwrap();
        }),
        ("another layer's diff", |root, id| {
            let other = DiffId(fixture::unknown()).to_string();
            std::fs::write(root.layer(id).join("diff"), other).unwrap();
        }),
        ("an endless diff", |root, id| {
            std::fs::write(root.layer(id).join("diff"), vec![b'a'; 1 << 20]).unwrap();
        }),
        ("a cache-id that leads out", |root, id| {
            std::fs::write(root.layer(id).join("cache-id"), b"../overlay2").unwrap();
        }),
        ("no folder", |root, id| std::fs::remove_dir_all(root.diff(id)).unwrap()),
        ("a symlink for a folder", |root, id| {
            let moved = root.diff(id).with_extension("moved");
            std::fs::rename(root.diff(id), &moved).unwrap();
            symlink(moved, root.diff(id)).unwrap();
        }),
    ];
    for (what, damage) in table {
        check_damage(what, End::Storage, End::Storage, damage).await;
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_read_says_why() {
    let (root, image, chain_id) = one_layer().await;
    let files = root.open().await;
    let read =
        async || files.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap_err();

    std::fs::remove_file(root.layer(&chain_id).join("diff")).unwrap();
    match read().await {
        SourceError::Export { source, .. } => check_end(&source, End::Storage, "no diff"),
        error => panic!("{error:?}"),
    }
    std::fs::write(root.config(&image.config_digest), b"{}").unwrap();
    match read().await {
        SourceError::Export { source, .. } => check_end(&source, End::Storage, "another config"),
        error => panic!("{error:?}"),
    }
    std::fs::remove_file(root.config(&image.config_digest)).unwrap();
    let error = read().await;
    assert!(matches!(error, SourceError::Malformed { .. }), "the engine has it: {error:?}");
    root.docker.remove(&"app:1".parse().unwrap());
    assert!(matches!(read().await, SourceError::NotFound { .. }));

    let malformed = root.keep_config(br#"{"rootfs":{"type":"no layers"}}"#);
    let error = files.open(&malformed.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn images_come_and_go_meanwhile() {
    let root = Root::new();
    let files = root.open().await;
    let image = root.add(&[with_a_file("a", &fixture::bytes(1, 1000))]);
    let digest = image.layers[0].blob.digest;
    assert_eq!(open(&files, &image).await.image, image);
    let blobs = open(&files, &image).await.blobs;
    assert!(drain(blobs.open(&digest, 0).await.unwrap()).await.1.is_ok());

    root.docker.remove(&"app:1".parse().unwrap());
    std::fs::remove_file(root.config(&image.config_digest)).unwrap();
    let error = files.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    assert_eq!(blobs.stat(&digest).await.unwrap(), None);
    let error = blobs.open(&digest, 0).await.map(drop).unwrap_err();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn only_this_engines_own_files_are_taken() {
    let (root, _, _) = one_layer().await;
    let open = async |docker: &FakeDocker, path: &Path| {
        let opened = Overlay2Files::open(docker.connect().await, path.to_owned()).await;
        opened.map(drop).map_err(|error| transfer::explain(&error))
    };
    assert_eq!(open(&root.docker, root.path()).await, Ok(()));

    let refused = async |docker: &FakeDocker, path: &Path, said: &str| {
        let error = open(docker, path).await.unwrap_err();
        assert!(error.contains(said), "{error}");
        error
    };
    let nowhere = root.path().join("nowhere");
    let error = refused(&root.docker, &nowhere, "read-only").await;
    assert!(error.contains(&nowhere.display().to_string()), "{error}");
    let empty = Root::new();
    refused(&root.docker, empty.path(), "another engine").await;
    assert_eq!(open(&empty.docker, empty.path()).await, Ok(()), "no images, nothing to compare");

    std::fs::write(root.path().join("engine-id"), "fixture\n").unwrap();
    assert_eq!(open(&root.docker, root.path()).await, Ok(()));
    std::fs::write(root.path().join("engine-id"), "somebody-else").unwrap();
    refused(&root.docker, root.path(), "another engine").await;

    let containerd = FakeDocker::start(StoreKind::Containerd);
    refused(&containerd, root.path(), "overlay2").await;
    assert_eq!(root.docker.connect().await.data_root().await.unwrap(), None);
}
