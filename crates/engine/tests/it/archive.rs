//! Tar files of images: what engines and tools write, and what an attacker would.

mod hostile;
mod tar;

use std::path::PathBuf;

use bytes::Bytes;
use engine::{Archive, ArchiveError};
use transfer::fixture::{self, contract, drain};
use transfer::{
    BlobSource as _, Descriptor, Digest, Image, ImageSource, LayerForm, MediaType, OpenImage,
    SourceError,
};

use self::tar::{Tar, pax_records};
use crate::{image_of, name};

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn on_disk(bytes: &[u8]) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.tar");
    std::fs::write(&path, bytes).unwrap();
    File { _folder: folder, path }
}

async fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let file = on_disk(bytes);
    Archive::open(&file.path).await
}

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// Two images that share their first layer, as engine 20.10 saves them.
struct Saved {
    first: Image,
    second: Image,
    layers: Vec<Bytes>,
}

impl Saved {
    fn new() -> Self {
        let (first, blobs) = fixture::image(1, &[70_000, 500]);
        let (other, other_blobs) = fixture::image(2, &[300]);
        let second = image_of(&[&first.layers[..1], &other.layers[..]].concat());
        let layers = blobs.into_iter().chain(other_blobs).map(|(_, bytes)| bytes).collect();
        Self { first, second, layers }
    }

    fn manifest(&self) -> String {
        let config = |image: &Image| image.config_digest.0.hex();
        format!(
            r#"[{{"Config":"{}.json","RepoTags":["first:1","quay.io/x/first:2"],"Layers":["{}/layer.tar","{}/layer.tar"]}},
               {{"Config":"{}.json","RepoTags":["second:1"],"Layers":["{}/layer.tar","{}/layer.tar"]}}]"#,
            config(&self.first),
            id(0),
            id(1),
            config(&self.second),
            id(2),
            id(3)
        )
    }

    /// With the shared layer as a link for the second image.
    fn tar(&self, prefix: &str) -> Tar {
        let layer = |tar: Tar, number: u8, bytes: &[u8]| {
            let folder = format!("{prefix}{}", id(number));
            tar.folder(&format!("{folder}/")).file(&format!("{folder}/layer.tar"), bytes)
        };
        let tar = layer(Tar::default(), 0, &self.layers[0]);
        let tar = layer(tar, 1, &self.layers[1]);
        let tar = tar.folder(&format!("{prefix}{}/", id(2))).link(
            b'2',
            &format!("{prefix}{}/layer.tar", id(2)),
            &format!("../{}/layer.tar", id(0)),
        );
        let tar = layer(tar, 3, &self.layers[2]);
        let config = |image: &Image| format!("{prefix}{}.json", image.config_digest.0.hex());
        tar.file(&config(&self.first), &self.first.config)
            .file(&config(&self.second), &self.second.config)
    }
}

fn id(number: u8) -> String {
    hex(&[number])
}

#[tokio::test]
async fn a_save_of_an_old_engine_gives_its_images_and_layers() {
    let saved = Saved::new();
    for prefix in ["", "./"] {
        let tar =
            saved.tar(prefix).file(&format!("{prefix}manifest.json"), saved.manifest().as_bytes());
        let file = on_disk(&tar.end());
        let archive = Archive::open(&file.path).await.unwrap();
        for (reference, image) in [
            ("first:1", &saved.first),
            ("quay.io/x/first:2", &saved.first),
            ("second:1", &saved.second),
        ] {
            let summary = archive.resolve(&name(reference)).await.unwrap();
            let opened = archive.open(&summary.key(), LayerForm::Uncompressed).await.unwrap();
            let OpenImage { image: read, blobs } = opened;
            assert_eq!(&read, image, "{reference}");
            for layer in &read.layers {
                let (bytes, end) = drain(blobs.open(&layer.blob.digest, 0).await.unwrap()).await;
                end.unwrap();
                assert_eq!(Digest::of(&bytes), layer.diff_id.0, "{reference}");
                let (tail, _) = drain(blobs.open(&layer.blob.digest, 100).await.unwrap()).await;
                assert_eq!(tail, bytes[100..], "{reference}");
            }
        }
        assert_eq!(archive.list().await.unwrap().len(), 2);
        let absent = archive.resolve(&name("third:1")).await;
        assert!(matches!(absent, Err(SourceError::NotFound { .. })), "{absent:?}");
    }
}

/// An OCI layout of one image as a tar, whose layers are `layers` of one media type.
fn oci_archive(
    config: &[u8],
    layers: &[Bytes],
    media_type: &str,
    reference: &str,
) -> (Tar, Digest) {
    let manifest = transfer::image::Manifest {
        config: Descriptor::of(MediaType::CONFIG, config),
        layers: layers.iter().map(|layer| Descriptor::of(media_type, layer)).collect(),
    };
    let manifest = manifest.encode();
    let digest = Digest::of(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":{},"annotations":{{"io.containerd.image.name":"{reference}","org.opencontainers.image.ref.name":"1"}}}}]}}"#,
        MediaType::MANIFEST,
        manifest.len()
    );
    let blob = |tar: Tar, bytes: &[u8]| tar.file(&format!("blobs/sha256/{}", hex(bytes)), bytes);
    let tar = Tar::default().folder("blobs/").folder("blobs/sha256/");
    let tar = layers.iter().fold(blob(tar, config), |tar, layer| blob(tar, layer));
    let tar = blob(tar, manifest.as_bytes()).file("index.json", index.as_bytes());
    (tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), digest)
}

fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap().into()
}

#[tokio::test]
async fn an_archive_is_a_blob_source() {
    let blobs = contract::blobs();
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| transfer::Layer {
            diff_id: transfer::DiffId(Digest::of(blob)),
            blob: fixture::descriptor_of(blob),
        })
        .collect();
    let image = image_of(&layers);
    let (tar, _) = oci_archive(&image.config, &blobs, MediaType::LAYER, "docker.io/library/all:1");
    let file = on_disk(&tar.end());
    let archive = Archive::open(&file.path).await.unwrap();
    let opened = crate::open(&archive, &image).await;
    contract::source(&opened.blobs, &blobs).await;
    contract::image_source(&archive, &[(name("all:1"), opened.image)]).await;
}

#[tokio::test]
async fn an_oci_archive_keeps_the_digests_of_its_registry() {
    let (image, blobs) = fixture::image(1, &[40_000]);
    let layers = [gzip(&blobs[0].1)];
    let media_type = format!("{}+gzip", MediaType::LAYER);
    let (tar, manifest) =
        oci_archive(&image.config, &layers, &media_type, "docker.io/library/app:1");
    // Docker writes its own table of contents beside it; the layer is named by its blob.
    let own = format!(
        r#"[{{"Config":"blobs/sha256/{}","RepoTags":["app:1"],"Layers":["blobs/sha256/{}"]}}]"#,
        image.config_digest.0.hex(),
        hex(&layers[0])
    );
    let file = on_disk(&tar.file("manifest.json", own.as_bytes()).end());
    let archive = Archive::open(&file.path).await.unwrap();
    let summary = archive.resolve(&name("app:1")).await.unwrap();
    assert_eq!(summary.references, [name("app:1")]);
    let OpenImage { image: read, blobs } =
        archive.open(&summary.key(), LayerForm::AsStored).await.unwrap();
    assert_eq!(read.manifest_digest, manifest);
    assert_eq!(read.layers[0].blob.digest, Digest::of(&layers[0]));
    let (bytes, end) = drain(blobs.open(&Digest::of(&layers[0]), 0).await.unwrap()).await;
    end.unwrap();
    assert_eq!(bytes, layers[0]);
}

#[tokio::test]
async fn a_compressed_layer_of_a_save_has_its_own_digest() {
    let (image, blobs) = fixture::image(1, &[40_000, 10]);
    let compressed = gzip(&blobs[0].1);
    let manifest = r#"[{"Config":"config.json","RepoTags":null,"Layers":["a.tar.gz","b.tar"]}]"#;
    let tar = Tar::default()
        .file("config.json", &image.config)
        .file("a.tar.gz", &compressed)
        .file("b.tar", &blobs[1].1)
        .file("manifest.json", manifest.as_bytes());
    let file = on_disk(&tar.end());
    let archive = Archive::open(&file.path).await.unwrap();
    let OpenImage { image: read, blobs: source } = crate::open(&archive, &image).await;
    assert_eq!(read.layers[0].blob.digest, Digest::of(&compressed));
    assert_eq!(read.layers[0].blob.media_type.as_str(), format!("{}+gzip", MediaType::LAYER));
    assert_eq!(read.layers[0].diff_id, image.layers[0].diff_id);
    assert_eq!(read.layers[1], image.layers[1]);
    for blob in [&compressed, &blobs[1].1] {
        let (bytes, end) = drain(source.open(&Digest::of(blob), 0).await.unwrap()).await;
        end.unwrap();
        assert_eq!(bytes, *blob);
    }
    assert!(archive.list().await.unwrap()[0].references.is_empty());
}

#[tokio::test]
async fn long_names_are_read_as_every_tool_writes_them() {
    let saved = Saved::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let pax = saved.tar("").pax(&[("path", &long), ("mtime", "1.5")]).file(&long[..100], b"x");
    let gnu = saved.tar("").raw("././@LongLink", b'L', format!("{long}\0").as_bytes(), |_| {}).raw(
        &long[..100],
        b'0',
        b"x",
        |header| header[257..265].copy_from_slice(b"ustar  \0"),
    );
    let global = saved.tar("").raw("g", b'g', pax_records(&[("comment", "x")]).as_bytes(), |_| {});
    let prefixed =
        saved.tar("").raw("f", b'0', b"x", |header| header[345..348].copy_from_slice(b"d/e"));
    for tar in [pax, gnu, global, prefixed] {
        let tar = tar.file("manifest.json", saved.manifest().as_bytes());
        let file = on_disk(&tar.end());
        let archive = Archive::open(&file.path).await.unwrap();
        archive.resolve(&name("second:1")).await.unwrap();
    }
}
