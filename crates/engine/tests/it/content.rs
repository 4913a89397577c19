//! A host on the containerd store: each way gives the bytes that a registry would have given.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use engine::docker::{ContainerdContent, ContentWay};
use engine::{DockerSink, EngineError, Export};
use serde_json::json;
use transfer::fixture::{bytes, contract, tar};
use transfer::store::MemoryStore;
use transfer::uncompressed::Uncompressed;
use transfer::{
    Descriptor, Digest, Image, ImageSink as _, ImageSource, LayerForm, MediaType, Missing,
    SourceError,
};

use crate::name;
use crate::real::{CONTAINERD, Range};
use crate::sink::bring;

/// An image as a registry has it: an index with two platforms and an attestation, layers in every
/// form.
pub(crate) struct Published {
    index: Bytes,
    pub(crate) image: Image,
    /// All blobs of the image for amd64: manifest, config and layers.
    pub(crate) blobs: Vec<Bytes>,
    /// The layers, uncompressed.
    layers: Vec<Bytes>,
    /// What the archive has besides: the index, another platform, an attestation.
    others: Vec<Bytes>,
}

fn json_bytes(document: &serde_json::Value) -> Bytes {
    // Indented, unlike what any of us would make up.
    serde_json::to_vec_pretty(document).unwrap().into()
}

fn told(blob: &Descriptor) -> serde_json::Value {
    json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size })
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

/// A manifest with its config and the layers in their forms.
fn manifest(architecture: &str, layers: &[Bytes], stored: &[(&str, Bytes)]) -> (Bytes, Bytes) {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json_bytes(&json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }));
    let stored: Vec<_> = stored
        .iter()
        .map(|(form, bytes)| told(&Descriptor::of(&format!("{}{form}", MediaType::LAYER), bytes)))
        .collect();
    let manifest = json_bytes(&json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "config": told(&Descriptor::of(MediaType::CONFIG, &config)), "layers": stored,
        "annotations": { "dev.longshore.test": "kept as it is" },
    }));
    (manifest, config)
}

pub(crate) fn published(seed: u64) -> Published {
    let layer = |name: &str, seed, size| tar(&[(name, &bytes(seed, size))]);
    let layers =
        vec![layer("a", seed, 3_000_000), layer("b", seed + 1, 300_000), layer("c", seed + 2, 10)];
    let stored = [
        ("+gzip", gzip(&layers[0])),
        ("+zstd", zstd::encode_all(&*layers[1], 3).unwrap().into()),
        ("", layers[2].clone()),
    ];
    let (amd64, config) = manifest("amd64", &layers, &stored);
    let other = layer("arm", seed + 3, 2_000_000);
    let (arm64, arm64_config) =
        manifest("arm64", std::slice::from_ref(&other), &[("", other.clone())]);
    let statement = Bytes::from_static(b"{}");
    let attestation_config = json_bytes(&json!({
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&statement)] },
    }));
    let attestation = json_bytes(&json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "config": told(&Descriptor::of(MediaType::CONFIG, &attestation_config)),
        "layers": [told(&Descriptor::of("application/vnd.in-toto+json", &statement))],
    }));
    let child = |manifest: &Bytes, architecture: &str, os: &str| {
        let mut child = told(&Descriptor::of(MediaType::MANIFEST, manifest));
        child["platform"] = json!({ "os": os, "architecture": architecture });
        child
    };
    let mut attests = child(&attestation, "unknown", "unknown");
    attests["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": Digest::of(&amd64),
    });
    let index = json_bytes(&json!({
        "schemaVersion": 2, "mediaType": MediaType::INDEX,
        "manifests": [child(&arm64, "arm64", "linux"), child(&amd64, "amd64", "linux"), attests],
    }));
    let image = Image::parse(amd64.clone(), config.clone()).unwrap();
    let image = image.under(index.clone()).unwrap();
    let mut blobs = vec![amd64, config];
    blobs.extend(stored.map(|(_, bytes)| bytes));
    let others =
        vec![index.clone(), arm64, arm64_config, other, attestation, attestation_config, statement];
    Published { index, image, blobs, layers, others }
}

/// An OCI archive of these blobs that names the index.
fn archive(index: &Bytes, reference: &str, blobs: &[&Bytes]) -> Vec<u8> {
    let mut archive = ::tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes).unwrap();
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut child = told(&Descriptor::of(MediaType::INDEX, index));
    child["annotations"] = json!({ "io.containerd.image.name": reference });
    let top = json!({ "schemaVersion": 2, "manifests": [child] });
    add("index.json", top.to_string().as_bytes());
    for blob in blobs {
        add(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    archive.into_inner().unwrap()
}

/// What the engine behind `socket` says to a whole archive.
fn load(socket: &std::path::Path, archive: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "POST /images/load HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        archive.len()
    )
    .unwrap();
    stream.write_all(archive).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const NAME: &str = "docker.io/library/published:1";

async fn gives_the_original(source: Arc<dyn ImageSource>, published: &Published, what: &str) {
    let image = &published.image;
    let summary = source.resolve(&name(NAME)).await.unwrap();
    assert_eq!(summary.config_digest, image.config_digest, "{what}");
    assert_eq!(summary.references, [name(NAME)], "{what}");
    assert_eq!(summary.diff_ids, image.diff_ids().collect::<Vec<_>>(), "{what}");
    assert!(source.list().await.unwrap().contains(&summary), "{what}");
    let by_digest = format!("published@{}", Digest::of(&published.index));
    assert_eq!(source.resolve(&name(&by_digest)).await.unwrap(), summary, "{what}");

    let opened = crate::open(&source, image).await;
    let expected = match what {
        // Of several platforms a save gives one, without the index.
        "save" => Image { index: None, ..image.clone() },
        _ => image.clone(),
    };
    assert_eq!(opened.image, expected, "{what}: all documents are the original bytes");
    contract::source(&*opened.blobs, &published.blobs).await;

    // For a graphdriver the same as from a graphdriver.
    let source = Uncompressed::new(source, Arc::new(MemoryStore::default()));
    let opened = source.open(&summary.key(), LayerForm::Uncompressed).await.unwrap();
    let sizes: Vec<_> = published.layers.iter().map(|layer| layer.len() as u64).collect();
    assert_eq!(opened.image, Image::from_layers(image.config.clone(), &sizes).unwrap(), "{what}");
    contract::source(&*opened.blobs, &published.layers).await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_containerd_host_gives_original_bytes_by_every_way() {
    let range = Range::start(CONTAINERD).await;
    let socket = range.folder.path().join("docker.sock");
    let published = published(1);
    let all: Vec<_> = published.blobs.iter().chain(&published.others).collect();
    let said = load(&socket, &archive(&published.index, NAME, &all));
    assert!(said.contains("Loaded image"), "{said}");

    let pid = range.host.container(&range.id).await.unwrap().unwrap().pid.unwrap();
    let data_root = PathBuf::from(format!("/proc/{pid}/root/var/lib/docker"));
    let ways = [
        ContentWay::Service,
        ContentWay::Socket(range.folder.path().join("docker/containerd/containerd.sock")),
        ContentWay::Files(data_root),
    ];
    for way in ways {
        let content = ContainerdContent::open(range.docker.clone(), way.clone()).await.unwrap();
        gives_the_original(Arc::new(content.clone()), &published, &way.to_string()).await;
        let stats = content.stats();
        let whole: usize = published.blobs.iter().map(Bytes::len).sum();
        assert!(whole as u64 <= stats.bytes_read, "{way}: {stats:?}");
        a_part_of_an_image_is_told_as_such(&content, &socket).await;
        range.docker.remove_image(&name("part:1")).await.unwrap();
    }

    let export = Export::new(range.docker.clone(), Arc::new(MemoryStore::default()));
    export.resolve(&name(NAME)).await.unwrap();
    gives_the_original(Arc::new(export.clone()), &published, "save").await;
    let stats = export.stats();
    assert_eq!(stats.saves, 1);
    let all: usize = all.iter().map(|blob| blob.len()).sum();
    assert!(stats.bytes_read < all as u64, "other platforms are left out: {stats:?}");
    range.remove().await;
}

/// An image whose lowest layer never came.
async fn a_part_of_an_image_is_told_as_such(content: &ContainerdContent, socket: &std::path::Path) {
    let part = published(100);
    let layer = part.image.layers[0].blob.digest;
    let blobs: Vec<_> = part.blobs.iter().filter(|blob| Digest::of(blob) != layer).collect();
    load(
        socket,
        &archive(&part.index, "docker.io/library/part:1", &[&blobs[..], &[&part.index]].concat()),
    );
    let summary = content.resolve(&name("part:1")).await.unwrap();
    let error = content.open(&summary.key(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&layer.to_string()) && text.contains("pull the image again"), "{text}");
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_content_that_is_not_the_engines_is_refused_with_what_to_do() {
    let range = Range::start(CONTAINERD).await;
    let published = published(1);
    let all: Vec<_> = published.blobs.iter().chain(&published.others).collect();
    load(&range.folder.path().join("docker.sock"), &archive(&published.index, NAME, &all));
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    let table = [
        (ContentWay::Files(folder.path().into()), "another engine's"),
        (ContentWay::Files(folder.path().join("blobs")), "io.containerd.content.v1.content"),
        (ContentWay::Socket(folder.path().join("no.sock")), "is this its socket"),
    ];
    for (way, expected) in table {
        let error = ContainerdContent::open(range.docker.clone(), way).await.unwrap_err();
        let text = transfer::explain(&error);
        assert!(matches!(error, EngineError::Files { .. }) && text.contains(expected), "{text}");
    }
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_containerd_range_has_the_registrys_digests() {
    let range = Range::start(CONTAINERD).await;
    let sink = DockerSink::new(range.docker.clone());
    let (one, store) = (published(1), MemoryStore::default());
    // Another image on the same two compressed layers.
    let stored: Vec<_> = one.image.layers.iter().zip(&one.blobs[2..]).take(2).collect();
    let forms: Vec<_> = stored
        .iter()
        .map(|(layer, bytes)| {
            (layer.blob.media_type.as_str().trim_start_matches(MediaType::LAYER), (*bytes).clone())
        })
        .collect();
    let (manifest, config) = manifest("amd64", &one.layers[..2], &forms);
    let other = Image::parse(manifest, config).unwrap();
    for blob in &one.blobs {
        store.insert(blob.clone());
    }

    assert_eq!(bring(&sink, &one.image, &store, NAME).await, Missing::all(&one.image));
    let proof = sink.prove(&one.image).await.unwrap().unwrap();
    // The index's digest, though nothing of its other platform is there.
    assert_eq!(proof.engine_image_id.0, Digest::of(&one.index));
    let by_digest = format!("published@{}", Digest::of(&one.index));
    let content = ContainerdContent::open(range.docker.clone(), ContentWay::Service).await.unwrap();
    let summary = content.resolve(&name(&by_digest)).await.unwrap();
    assert_eq!(summary.config_digest, one.image.config_digest);
    let given =
        content.open(&one.image.config_digest.into(), LayerForm::AsStored).await.unwrap().image;
    assert_eq!(given, one.image);
    contract::source(
        &*content.open(&one.image.config_digest.into(), LayerForm::AsStored).await.unwrap().blobs,
        &one.blobs,
    )
    .await;
    let export = Export::new(range.docker.clone(), Arc::new(MemoryStore::default()));
    export.resolve(&name(NAME)).await.unwrap();
    let given =
        export.open(&one.image.config_digest.into(), LayerForm::AsStored).await.unwrap().image;
    assert_eq!(given, one.image, "a save of the only platform has the index");

    // What is compressed is known by its blobs, and not sent twice.
    assert_eq!(sink.missing(&other).await.unwrap().0, [false, false]);
    bring(&sink, &other, &MemoryStore::default(), "docker.io/library/other:1").await;
    let proof = sink.prove(&other).await.unwrap().unwrap();
    assert_eq!(proof.engine_image_id.0, other.manifest_digest);
    range.remove().await;
}
