//! OCI layout folders: as a source, as a sink, and from one to the other.

mod sink;
mod skopeo;

use std::collections::BTreeSet;
use std::path::Path;

use engine::{LayoutError, OciLayout, OciLayoutSink};
use transfer::fixture::{self, contract, drain};
use transfer::{
    BlobError, BlobSource as _, Digest, Image, ImageSink as _, ImageSource as _, LayerForm,
    Missing, SourceError, StoreKind,
};

use crate::{Blobs, image_of, name, opened, store_of};

/// An image whose layers are the contract's blobs.
fn contract_image() -> (Image, Blobs) {
    let blobs: Blobs =
        contract::blobs().into_iter().map(|blob| (fixture::descriptor_of(&blob), blob)).collect();
    let layers: Vec<_> = blobs
        .iter()
        .map(|(blob, _)| transfer::Layer {
            diff_id: transfer::DiffId(blob.digest),
            blob: blob.clone(),
        })
        .collect();
    (image_of(&layers), blobs)
}

/// Puts an image into a folder by the sink's own steps, under a name.
async fn put(folder: &Path, reference: &str, (image, blobs): &(Image, Blobs)) -> OciLayoutSink {
    let sink = OciLayoutSink::open(folder).await.unwrap();
    let store = store_of(blobs).await;
    sink.load(&opened(image, &store), &Missing::all(image)).await.unwrap();
    let proof = sink.prove(image).await.unwrap().expect("what was loaded is proven");
    sink.tag(&proof, &name(reference)).await.unwrap();
    sink
}

fn blobs_in(folder: &Path) -> BTreeSet<String> {
    let entries = folder.join("blobs/sha256").read_dir().unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn coming_in(folder: &Path) -> usize {
    folder.join("ingest").read_dir().unwrap().count()
}

fn blob_of(folder: &Path, digest: &Digest) -> std::path::PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

/// A folder written by hand: these documents, and an index of these entries.
fn by_hand(folder: &Path, blobs: &[&[u8]], entries: &[String]) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for blob in blobs {
        std::fs::write(blob_of(folder, &Digest::of(blob)), blob).unwrap();
    }
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    std::fs::write(folder.join("index.json"), index).unwrap();
}

fn entry(bytes: &[u8], kind: &str, more: &str) -> String {
    let digest = Digest::of(bytes);
    let size = bytes.len();
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"{digest}","size":{size}{more}}}"#
    )
}

fn named(reference: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{reference}"}}"#)
}

#[tokio::test]
async fn a_folder_is_a_blob_source() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "all:1", &contract_image()).await;
    let layout = OciLayout::open(folder.path()).await.unwrap();
    let summary = layout.resolve(&name("all:1")).await.unwrap();
    let opened = layout.open(&summary.key(), LayerForm::AsStored).await.unwrap();
    contract::source(&opened.blobs, &contract::blobs()).await;
}

#[tokio::test]
async fn a_folder_is_an_image_source() {
    let folder = tempfile::tempdir().unwrap();
    let (first, blobs) = fixture::image(1, &[10, 70_000]);
    let second = fixture::twin(&first);
    put(folder.path(), "first:1", &(first.clone(), blobs.clone())).await;
    put(folder.path(), "second:1", &(second.clone(), blobs.clone())).await;
    let layout = OciLayout::open(folder.path()).await.unwrap();
    let images = [(name("first:1"), first), (name("second:1"), second)];
    contract::image_source(&layout, &images).await;

    let opened = crate::open(&layout, &images[0].1).await;
    let (blob, bytes) = &blobs[1];
    let path = blob_of(folder.path(), &blob.digest);
    std::fs::write(&path, &bytes[..60_000]).unwrap();
    contract::damaged_blob(&opened.blobs, bytes).await;
    std::fs::write(&path, vec![7; bytes.len()]).unwrap();
    contract::damaged_blob(&opened.blobs, bytes).await;
    std::fs::write(&path, bytes).unwrap();

    let nothing = r#"{"schemaVersion":2,"manifests":[]}"#;
    let vanish = async { std::fs::write(folder.path().join("index.json"), nothing).unwrap() };
    contract::vanished_image(&layout, &images[0].0, &images[0].1, vanish).await;
}

#[tokio::test]
async fn a_folder_is_an_image_sink() {
    let folder = tempfile::tempdir().unwrap();
    contract::image_sink(&OciLayoutSink::open(folder.path()).await.unwrap()).await;
}

#[tokio::test]
async fn what_a_sink_named_a_source_gives_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (image, blobs) = fixture::image(1, &[10, 70_000]);
    let sink = put(folder.path(), "app:1", &(image.clone(), blobs)).await;
    let layout = OciLayout::open(folder.path()).await.unwrap();
    let summary = layout.resolve(&name("docker.io/library/app:1")).await.unwrap();
    assert_eq!(summary.references, [name("app:1")]);
    assert_eq!(layout.list().await.unwrap(), [summary]);
    let read =
        layout.open(&image.config_digest.into(), LayerForm::Uncompressed).await.unwrap().image;
    assert_eq!(read, image);
    let pinned = format!("app@{}", image.manifest_digest);
    assert_eq!(layout.resolve(&name(&pinned)).await.unwrap().config_digest, image.config_digest);
    let absent = layout.resolve(&name(&format!("other@{}", image.manifest_digest))).await;
    assert!(matches!(absent, Err(SourceError::NotFound { .. })), "{absent:?}");

    let held = sink.images().await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].engine_image_id.0, image.manifest_digest);
    assert_eq!((held[0].config_digest, held[0].proven), (Some(image.config_digest), true));
    assert_eq!(sink.info().await.unwrap().store, StoreKind::Containerd);
}

#[tokio::test]
async fn a_name_that_came_while_serving_is_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a:1", &fixture::image(1, &[10])).await;
    let layout = OciLayout::open(folder.path()).await.unwrap();
    layout.resolve(&name("b:1")).await.unwrap_err();
    put(folder.path(), "b:1", &fixture::image(2, &[10])).await;
    layout.resolve(&name("b:1")).await.unwrap();
    // A name moves.
    let (image, blobs) = fixture::image(3, &[10]);
    put(folder.path(), "a:1", &(image.clone(), blobs)).await;
    assert_eq!(layout.resolve(&name("a:1")).await.unwrap().config_digest, image.config_digest);
}

#[tokio::test]
async fn an_index_gives_this_machines_platform_and_no_attestation() {
    let folder = tempfile::tempdir().unwrap();
    let host = transfer::Platform::host();
    let platform = |os: &str, architecture: &str| {
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    };
    let (image, _) = fixture::image(1, &[10]);
    let (other, _) = fixture::image(2, &[10]);
    let layer = fixture::image(1, &[10]).1.remove(0).1;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
        entry(&other.manifest, "manifest", &platform("plan9", &host.architecture)),
        entry(&image.manifest, "manifest", &platform(&host.os, &host.architecture)),
        entry(b"attestation", "manifest", &platform("unknown", "unknown")),
    );
    let nested = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entry(index.as_bytes(), "index", &platform(&host.os, &host.architecture))
    );
    by_hand(
        folder.path(),
        &[&image.manifest, &image.config, &layer, index.as_bytes(), nested.as_bytes()],
        &[
            entry(index.as_bytes(), "index", &named("deep:1")),
            entry(nested.as_bytes(), "index", &named("deeper:1")),
            entry(&image.manifest, "manifest", &named("latest")),
        ],
    );
    let layout = OciLayout::open(folder.path()).await.unwrap();
    for reference in ["deep:1", "deeper:1", &format!("deep:1@{}", Digest::of(index.as_bytes()))] {
        let summary = layout.resolve(&name(reference)).await.unwrap();
        assert_eq!(summary.config_digest, image.config_digest, "{reference}");
    }
    let bare = layout.resolve(&name("latest")).await;
    assert!(
        matches!(bare, Err(SourceError::NotFound { .. })),
        "a bare tag names nothing: {bare:?}"
    );
    let listed = layout.list().await.unwrap();
    let targets: BTreeSet<_> = listed.iter().map(|image| image.target_digest.unwrap()).collect();
    let expected = [Digest::of(index.as_bytes()), image.manifest_digest];
    assert_eq!(targets, BTreeSet::from(expected), "one image by its index, one by its manifest");
}

#[tokio::test]
async fn what_is_broken_or_hostile_is_told_and_hides_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let secret = root.join("secret");
    std::fs::write(&secret, "host's own").unwrap();
    let (image, blobs) = fixture::image(1, &[10]);
    let (cut, _) = fixture::image(2, &[20]);
    let linked = Digest::of(b"host's own");
    let entries = [
        entry(&image.manifest, "manifest", &named("good:1")),
        entry(&cut.manifest, "manifest", &named("no-layer:1")),
        entry(b"absent", "manifest", &named("absent:1")),
        entry(b"{}", "manifest", &named("empty:1")),
    ];
    let documents: [&[u8]; 6] =
        [&image.manifest, &image.config, &blobs[0].1, &cut.manifest, &cut.config, b"{}"];
    by_hand(root, &documents, &entries);
    std::os::unix::fs::symlink(&secret, blob_of(root, &linked)).unwrap();
    let layout = OciLayout::open(root).await.unwrap();
    layout.resolve(&name("good:1")).await.unwrap();
    let files = crate::open(&layout, &image).await.blobs;
    for reference in ["absent:1", "empty:1"] {
        let error = layout.resolve(&name(reference)).await.unwrap_err();
        assert!(matches!(error, SourceError::Malformed { .. }), "{reference}: {error:?}");
    }
    let error = layout.open(&cut.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
    for offset in [0, 3] {
        let error = files.open(&linked, offset).await.map(drop).unwrap_err();
        assert!(matches!(error, BlobError::Storage { .. }), "a link was followed: {error:?}");
    }
    // A blob that comes later makes its image whole, with no change of the index.
    std::fs::write(blob_of(root, &Digest::of(b"absent")), "absent").unwrap();
    layout.resolve(&name("absent:1")).await.unwrap_err();

    let (manifest, rotten) =
        (blob_of(root, &image.manifest_digest), blob_of(root, &blobs[0].0.digest));
    std::fs::write(&rotten, vec![7; usize::try_from(blobs[0].0.size).unwrap()]).unwrap();
    let (bytes, end) = drain(files.open(&blobs[0].0.digest, 0).await.unwrap()).await;
    assert!(bytes.is_empty() && matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    std::fs::write(manifest, "other").unwrap();
    let again = OciLayout::open(root).await.unwrap();
    again.resolve(&name("good:1")).await.unwrap_err();
}

#[tokio::test]
async fn what_is_no_layout_is_refused_with_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |path: &str| OciLayout::open(folder.path().join(path)).await.unwrap_err();
    assert!(matches!(open("absent").await, LayoutError::Io { .. }));
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/thesis.tex"), "years").unwrap();
    assert!(matches!(open("other").await, LayoutError::NotALayout { .. }));
    let sink = OciLayoutSink::open(folder.path().join("other")).await.unwrap_err();
    assert!(matches!(sink, LayoutError::NotALayout { .. }), "{sink}");
    for (mark, index) in [
        (r#"{"imageLayoutVersion":"2.0.0"}"#, r#"{"schemaVersion":2,"manifests":[]}"#),
        ("{", r#"{"schemaVersion":2,"manifests":[]}"#),
        (r#"{"imageLayoutVersion":"1.0.0"}"#, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
        (
            r#"{"imageLayoutVersion":"1.0.0"}"#,
            r#"{"schemaVersion":2,"manifests":[],"Manifests":[]}"#,
        ),
        (r#"{"imageLayoutVersion":"1.0.0"}"#, "[]"),
    ] {
        let path = folder.path().join("made");
        by_hand(&path, &[], &[]);
        std::fs::write(path.join("oci-layout"), mark).unwrap();
        std::fs::write(path.join("index.json"), index).unwrap();
        let error = open("made").await;
        assert!(!matches!(error, LayoutError::Io { .. }), "{mark} {index}: {error}");
    }
}
