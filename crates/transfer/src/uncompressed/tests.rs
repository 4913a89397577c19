//! One image in two forms, decompressed once however many ask.

use bytes::Bytes;
use futures::future::join_all;

use super::*;
use crate::blob::MAX_FRAME;
use crate::decompress::tests::{gzip, zstd};
use crate::descriptor::MediaType;
use crate::fixture::{self, MemorySource, contract, drain};
use crate::image::Manifest;
use crate::metered::{Metered, MeteredStore};
use crate::store::MemoryStore;

/// The image with each layer compressed in turn by gzip, by zstd, and not at all.
fn compressed(image: &Image, blobs: &[(Descriptor, Bytes)]) -> (Image, Vec<(Descriptor, Bytes)>) {
    let layer = |(position, (plain, bytes)): (usize, &(Descriptor, Bytes))| {
        let (media_type, bytes) = match position % 3 {
            0 => ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(bytes).into()),
            1 => ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(bytes).into()),
            _ => (plain.media_type.as_str(), bytes.clone()),
        };
        (Descriptor::of(media_type, &bytes), bytes)
    };
    let blobs: Vec<_> = blobs.iter().enumerate().map(layer).collect();
    let manifest = Manifest {
        config: Descriptor::of(MediaType::CONFIG, &image.config),
        layers: blobs.iter().map(|(blob, _)| blob.clone()).collect(),
    };
    let image = Image::parse(manifest.encode().into(), image.config.clone()).unwrap();
    (image, blobs)
}

/// Counts what is read of a source's blobs.
struct Counted(MemorySource, Arc<crate::metered::Counters>);

#[async_trait]
impl ImageSource for Counted {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let counted = |blobs| Arc::new(Metered::with(blobs, self.1.clone())) as _;
        Ok(self.0.open(key, form).await?.through(counted))
    }
}

async fn open(source: &Uncompressed, image: &Image, form: LayerForm) -> OpenImage {
    source.open(&image.config_digest.into(), form).await.unwrap()
}

fn bytes_of(blobs: &[(Descriptor, Bytes)]) -> Vec<Bytes> {
    blobs.iter().map(|(_, bytes)| bytes.clone()).collect()
}

struct Host {
    source: Uncompressed,
    read: Arc<crate::metered::Counters>,
    far: MemorySource,
    store: Arc<MeteredStore<MemoryStore>>,
    near: MemoryStore,
}

fn host(image: (Image, Vec<(Descriptor, Bytes)>)) -> Host {
    let (far, read) = (MemorySource::default(), Arc::default());
    far.insert("app:1", image);
    let near = MemoryStore::default();
    let store = Arc::new(MeteredStore::new(near.clone()));
    let source = Counted(far.clone(), Arc::clone(&read));
    let source = Uncompressed::new(Arc::new(source), store.clone());
    Host { source, read, far, store, near }
}

#[tokio::test]
async fn each_form_is_the_image_it_says() {
    let (plain, blobs) = fixture::image(1, &[100_000, 2 * MAX_FRAME + 5, 300, 0]);
    let (stored, stored_blobs) = compressed(&plain, &blobs);
    let host = host((stored.clone(), stored_blobs.clone()));
    let given = open(&host.source, &plain, LayerForm::AsStored).await;
    assert_eq!(given.image, stored);
    assert_eq!(host.read.snapshot().opens, 0);
    contract::source(&*given.blobs, &bytes_of(&stored_blobs)).await;
    let given = open(&host.source, &plain, LayerForm::Uncompressed).await;
    assert_eq!(given.image, plain, "the manifest has the fixed layout of every graphdriver host");
    // The synthesised manifest is readable too, and the plain layer is not kept twice.
    let all = [bytes_of(&blobs), vec![plain.manifest.clone()]].concat();
    contract::source(&*given.blobs, &all).await;
    assert_eq!(host.near.stat(&blobs[2].0.digest).await.unwrap(), None);
    assert_eq!(host.near.stat(&plain.manifest_digest).await.unwrap(), None);
}

#[tokio::test]
async fn an_image_that_is_uncompressed_already_costs_nothing() {
    let (plain, blobs) = fixture::image(1, &[1000, 2000]);
    let host = host((plain.clone(), blobs));
    for form in [LayerForm::AsStored, LayerForm::Uncompressed] {
        assert_eq!(open(&host.source, &plain, form).await.image, plain);
    }
    assert_eq!(host.read.snapshot().opens, 0);
}

#[tokio::test]
async fn callers_at_once_share_each_decompression() {
    let (plain, blobs) = fixture::image(1, &[400_000, 500_000, 100, 600_000]);
    let host = host(compressed(&plain, &blobs));
    let asks = (0..8).map(|_| open(&host.source, &plain, LayerForm::Uncompressed));
    let given = join_all(asks).await;
    assert!(given.iter().all(|given| given.image == plain));
    assert_eq!(host.read.snapshot().opens, 3);
    // A blob that two ask for by digest, cold.
    let lost = blobs[0].0.digest;
    host.near.remove(&lost).await.unwrap();
    let blobs_of = &given[0].blobs;
    let reads = (0..4).map(|_| async { drain(blobs_of.open(&lost, 7).await.unwrap()).await });
    for (read, end) in join_all(reads).await {
        end.unwrap();
        assert_eq!(read, blobs[0].1[7..]);
    }
    assert_eq!(host.read.snapshot().opens, 4);
}

#[tokio::test]
async fn a_restarted_host_makes_again_only_what_is_gone() {
    let (plain, blobs) = fixture::image(1, &[4000, 5000]);
    let host = host(compressed(&plain, &blobs));
    open(&host.source, &plain, LayerForm::Uncompressed).await;
    host.near.remove(&blobs[1].0.digest).await.unwrap();
    let far = Counted(host.far.clone(), host.read.clone());
    let again = Uncompressed::new(Arc::new(far), host.store.clone());
    let blobs_of = open(&again, &plain, LayerForm::Uncompressed).await.blobs;
    assert_eq!(host.read.snapshot().opens, 3, "two at first, and the one that was gone");
    assert_eq!(blobs_of.stat(&blobs[1].0.digest).await.unwrap(), Some(blobs[1].0.size));
    assert_eq!(blobs_of.stat(&blobs[0].0.digest).await.unwrap(), Some(blobs[0].0.size));
    assert_eq!(blobs_of.stat(&fixture::unknown()).await.unwrap(), None);
}

#[tokio::test]
async fn whoever_leaves_does_not_end_what_others_wait_for() {
    let (plain, blobs) = fixture::image(1, &[3 * MAX_FRAME, 10]);
    let host = host(compressed(&plain, &blobs));
    let ask = || open(&host.source, &plain, LayerForm::Uncompressed);
    let mut leaves = Box::pin(ask());
    let stays = ask();
    tokio::select! {
        biased;
        _ = &mut leaves => panic!("nothing is that fast"),
        () = tokio::task::yield_now() => {}
    }
    let (_, given) = tokio::join!(async { drop(leaves) }, stays);
    assert_eq!(given.image, plain);
    assert!(lock(&host.source.0.flights).values().all(|flight| flight.upgrade().is_none()));
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_config_says_makes_the_image_malformed() {
    let (plain, blobs) = fixture::image(1, &[4000]);
    let bytes: Bytes = gzip(b"another layer").into();
    let blob = Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", &bytes);
    let manifest = Manifest {
        config: Descriptor::of(MediaType::CONFIG, &plain.config),
        layers: vec![blob.clone()],
    };
    let wrong = Image::parse(manifest.encode().into(), plain.config.clone()).unwrap();
    assert_eq!(wrong.layers, [Layer { diff_id: DiffId(blobs[0].0.digest), blob: blob.clone() }]);
    let host = host((wrong, vec![(blob, bytes)]));
    let key = plain.config_digest.into();
    let error = host.source.open(&key, LayerForm::Uncompressed).await.unwrap_err();
    assert!(matches!(error, SourceError::Malformed { .. }), "{error:?}");
    assert!(error.to_string().contains("its image says"), "{error}");
}
