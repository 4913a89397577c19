//! Compression of blobs: of those that gain by it, on a link that is slower than compressing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use control::lending::AllImages;
use proto::RemoteHost;
use transfer::fixture::{MemorySource, bytes, drain};
use transfer::{
    BlobSource as _, Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm, MAX_FRAME,
    MediaType, OpenImage, Reference, SourceError,
};

use crate::pipe::{LARGE, Served, lent, library, manners, memory_of, range, services};

/// 10 MB/s, on a clock that stands still while anything works: so compressing takes no time, and
/// all that is waited for is the link.
const SLOW: Duration = Duration::from_nanos(100);

/// A layer as they mostly are: half its size after zstd, or less.
fn text(size: usize) -> Bytes {
    "usr/share/doc/longshore/README\n".bytes().cycle().take(size).collect()
}

async fn serve(images: Arc<dyn ImageSource>) -> Served {
    Served::new(services(range("a"), library(images, Arc::new(AllImages))).await, LARGE)
}

/// Reads blobs one after the other, and says how many bytes each took on the way.
async fn read(served: &Served, image: &Image, blobs: &[&Bytes]) -> Vec<u64> {
    let host = RemoteHost::new(served.endpoint(), manners());
    let source = lent(&host, image).await;
    let mut moved = Vec::new();
    for blob in blobs {
        let before = served.moved();
        let read = source.open(&Digest::of(blob), 0).await.unwrap();
        let (read, end) = drain(read).await;
        end.unwrap();
        assert!(read == **blob, "other bytes came");
        moved.push(served.moved() - before);
    }
    moved
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_carries_layers_compressed_once_it_is_known_to_be_slow() {
    let (noise, layer) = (bytes(1, 12 * MAX_FRAME), text(20 * MAX_FRAME));
    let (memory, image) = memory_of(&[noise.clone(), layer.clone()]);
    let served = serve(Arc::new(memory)).await.slow(SLOW);
    let moved = read(&served, &image, &[&noise, &layer, &noise]).await;
    assert!(noise.len() as u64 <= moved[0], "{moved:?}");
    assert!(moved[1] < layer.len() as u64 / 10, "{moved:?}");
    let most = noise.len() as u64 + 100_000;
    assert!(moved[2] < most, "what does not compress costs next to nothing: {moved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_layer_is_asked_for_anew_when_its_beginning_was_slow() {
    let layer = text(80 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&layer));
    let served = serve(Arc::new(memory)).await.slow(SLOW);
    let moved = read(&served, &image, &[&layer]).await;
    assert!(moved[0] < layer.len() as u64 / 4, "{moved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fast_link_carries_everything_as_it_is() {
    let layer = text(40 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&layer));
    let served = serve(Arc::new(memory)).await;
    for moved in read(&served, &image, &[&layer, &layer]).await {
        assert!(layer.len() as u64 <= moved, "{moved} bytes for {}", layer.len());
    }
}

/// The image's layers under the name of compressed ones.
struct Gzipped(MemorySource);

#[async_trait]
impl ImageSource for Gzipped {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let OpenImage { mut image, blobs } = self.0.open(key, form).await?;
        for layer in &mut image.layers {
            layer.blob.media_type = MediaType::new(format!("{}+gzip", MediaType::LAYER));
        }
        Ok(OpenImage { image, blobs })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_compressed_already_is_left_alone() {
    let layer = text(20 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&layer));
    let served = serve(Arc::new(Gzipped(memory))).await.slow(SLOW);
    for moved in read(&served, &image, &[&layer, &layer]).await {
        assert!(layer.len() as u64 <= moved, "{moved} bytes for {}", layer.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_that_breaks_goes_on_where_it_was() {
    let (noise, layer) = (bytes(1, 12 * MAX_FRAME), text(20 * MAX_FRAME));
    let (memory, image) = memory_of(&[noise.clone(), layer.clone()]);
    let served = serve(Arc::new(memory)).await.slow(SLOW);
    let host = RemoteHost::new(served.endpoint(), manners());
    let source = lent(&host, &image).await;
    // In the midst of the layer, whose every frame comes to a few hundred bytes.
    served.cut(&[noise.len() as u64 + 3000]);
    for blob in [&noise, &layer] {
        let read = source.open(&Digest::of(blob), 0).await.unwrap();
        let (read, end) = drain(read).await;
        end.unwrap();
        assert!(read == *blob, "other bytes came");
    }
    assert_eq!(served.dials(), 3, "one for control, two for blobs");
}
