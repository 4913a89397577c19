//! A second opinion on folders and archives: skopeo reads what we write, and we what it writes.

use std::path::Path;
use std::process::Command;

use engine::{Archive, OciLayout};
use transfer::fixture;
use transfer::{Digest, ImageSource, LayerForm, explain};

use super::put;
use crate::name;

const NAME: &str = "docker.io/longshore-demo/app:1";

/// Runs `skopeo` with words that are parted by spaces, and gives what it printed.
fn skopeo(words: &str) -> Vec<u8> {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(words.split(' '))
        .output()
        .expect("skopeo is on this machine; cargo xtask test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {words}: {errors}");
    output.stdout
}

/// The layers of the image that a source knows by that name.
async fn layers(source: &dyn ImageSource) -> Vec<Digest> {
    let summary = source.resolve(&name(NAME)).await.unwrap_or_else(|e| panic!("{}", explain(&e)));
    let image =
        source.open(&summary.config_digest.into(), LayerForm::AsStored).await.unwrap().image;
    image.layers.iter().map(|layer| layer.diff_id.0).collect()
}

#[tokio::test]
#[ignore = "needs skopeo: cargo xtask test runs it"]
async fn skopeo_reads_our_folders_and_we_read_what_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (image, blobs) = fixture::image(1, &[10_000, 20]);
    put(Path::new(&path("ours")), NAME, &(image.clone(), blobs)).await;
    let ours = format!("oci:{}:{NAME}", path("ours"));

    let raw = skopeo(&format!("inspect --raw {ours}"));
    assert_eq!(Digest::of(&raw), image.manifest_digest);
    let told: serde_json::Value =
        serde_json::from_slice(&skopeo(&format!("inspect {ours}"))).unwrap();
    assert_eq!(told["Digest"], image.manifest_digest.to_string());

    let expected: Vec<Digest> = image.diff_ids().map(|diff_id| diff_id.0).collect();
    skopeo(&format!("copy {ours} oci:{}:{NAME}", path("theirs")));
    assert_eq!(layers(&OciLayout::open(path("theirs")).await.unwrap()).await, expected);
    for kind in ["oci-archive", "docker-archive"] {
        skopeo(&format!("copy {ours} {kind}:{}:{NAME}", path(kind)));
        assert_eq!(layers(&Archive::open(path(kind)).await.unwrap()).await, expected, "{kind}");
    }
}
