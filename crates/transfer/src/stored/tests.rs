//! What is read how often, and what is kept of it.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;

use super::*;
use crate::fixture::{self, MemorySource, contract, drain};
use crate::image::Image;
use crate::store::MemoryStore;
use crate::{Layer, MAX_FRAME};

struct Host {
    image: Image,
    store: MemoryStore,
    stored: Stored<MemorySource>,
}

async fn open(stored: &Stored<MemorySource>, image: &Image) -> OpenImage {
    stored.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap()
}

impl Host {
    /// One image of these layers, none of which was read yet.
    fn of(sizes: &[usize]) -> Self {
        let (source, store) = (MemorySource::default(), MemoryStore::default());
        let (image, blobs) = fixture::image(1, sizes);
        source.insert("app:1", (image.clone(), blobs));
        let stored = Stored::new(source, Arc::new(store.clone()));
        Self { image, store, stored }
    }

    fn passing(self, alone: Alone) -> Self {
        Self { stored: self.stored.passing(alone), ..self }
    }

    async fn open(&self, layer: &Layer, offset: u64) -> BlobStream {
        let opened = open(&self.stored, &self.image).await;
        opened.blobs.open(&layer.blob.digest, offset).await.unwrap()
    }

    /// Opens of the source so far, and the bytes that it gave.
    fn read(&self) -> (u64, u64) {
        let read = self.stored.read().snapshot();
        (read.opens, read.bytes)
    }
}

#[tokio::test]
async fn a_layer_is_read_from_the_source_once_however_many_ask() {
    let host = Host::of(&[1000, 2000]);
    let image = &host.image;
    assert_eq!(open(&host.stored, image).await.image, *image);
    for _ in 0..2 {
        let reads = (0..4).flat_map(|_| &image.layers);
        let reads = reads.map(|layer| async { drain(host.open(layer, 0).await).await.1 });
        join_all(reads).await.into_iter().for_each(Result::unwrap);
    }
    let whole: u64 = image.layers.iter().map(|layer| layer.blob.size).sum();
    assert_eq!(host.read(), (2, whole));
    assert_eq!(host.store.list().len(), 2);

    host.store.remove(&image.layers[0].blob.digest).await.unwrap();
    drain(host.open(&image.layers[0], 0).await).await.1.unwrap();
    assert_eq!(host.read().0, 3);
}

#[tokio::test]
async fn passing_or_not_the_blobs_are_a_source() {
    for alone in [false, true] {
        let source = MemorySource::default();
        let (image, _) = fixture::image(1, &[]);
        let blobs = contract::blobs().into_iter().map(|blob| (fixture::descriptor_of(&blob), blob));
        source.insert("app:1", (image.clone(), blobs.collect()));
        let stored = Stored::new(source, Arc::new(MemoryStore::default()));
        let stored = stored.passing(Arc::new(move || alone));
        contract::source(&*open(&stored, &image).await.blobs, &contract::blobs()).await;
        stored.drained().await;
    }
}

#[tokio::test]
async fn what_only_one_can_want_is_kept_nowhere_and_resumes_at_its_offset() {
    let host = Host::of(&[3 * MAX_FRAME]).passing(Arc::new(|| true));
    let layer = &host.image.layers[0];
    let mut broken = host.open(layer, 0).await;
    let mut bytes = broken.next().await.unwrap().unwrap().to_vec();
    drop(broken);
    let (rest, end) = drain(host.open(layer, bytes.len() as u64).await).await;
    end.unwrap();
    bytes.extend(rest);
    assert_eq!(Digest::of(&bytes), layer.blob.digest);
    assert_eq!(host.read(), (2, layer.blob.size), "no byte was read twice");
    assert_eq!(host.store.list(), []);
}

#[tokio::test]
async fn a_second_reader_has_the_blob_kept_while_the_first_goes_on() {
    let host = Host::of(&[3 * MAX_FRAME]).passing(Arc::new(|| true));
    let layer = &host.image.layers[0];
    let mut first = host.open(layer, 0).await;
    first.next().await.unwrap().unwrap();
    let others = join_all((0..3).map(|_| async { drain(host.open(layer, 0).await).await.1 }));
    others.await.into_iter().for_each(Result::unwrap);
    assert_eq!(host.read().0, 2, "one read for the first, one for all the others");
    assert_eq!(host.store.list(), [layer.blob.digest]);
    drain(first).await.1.unwrap();
    drain(host.open(layer, 0).await).await.1.unwrap();
    assert_eq!(host.read().0, 2, "what is kept is read from the store");
}

#[tokio::test]
async fn whoever_is_alone_no_more_has_blobs_kept() {
    let alone = Arc::new(AtomicBool::new(true));
    let asked = alone.clone();
    let host = Host::of(&[1000, 2000]).passing(Arc::new(move || asked.load(Ordering::Relaxed)));
    let [first, second] = [0, 1].map(|n| &host.image.layers[n]);
    drain(host.open(first, 0).await).await.1.unwrap();
    alone.store(false, Ordering::Relaxed);
    for layer in [second, second, first, first] {
        drain(host.open(layer, 0).await).await.1.unwrap();
    }
    assert_eq!(host.read().0, 3);
    assert_eq!(host.store.list().len(), 2);
}
