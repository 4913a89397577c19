//! What comes out of honest and of hostile blobs.

use std::io::Write as _;

use super::*;
use crate::blob::BlobSource as _;
use crate::fixture::{bytes, contract, descriptor_of, drain, frames, scripted, tar};
use crate::store::MemoryStore;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

/// Decompresses `blob`, cut into frames of `frame` bytes, as what should become `layer`.
async fn try_to(
    blob: &[u8],
    layer: &[u8],
    frame: usize,
    limits: Limits,
) -> (Result<u64, DecompressError>, MemoryStore) {
    let store = MemoryStore::default();
    let blob = Bytes::copy_from_slice(blob);
    let stream = scripted(frames(&blob, frame).into_iter().map(Ok));
    let diff_id = DiffId(Digest::of(layer));
    let made = decompress(stream, &descriptor_of(&blob), diff_id, &store, limits).await;
    (made, store)
}

#[tokio::test]
async fn every_lawful_compression_becomes_its_layer() {
    let layer = tar(&[("a", &bytes(1, 300_077)), ("b", &[0; 100_000])]);
    let (head, tail) = layer.split_at(layer.len() / 3);
    let skip = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let blobs = [
        ("gzip", gzip(&layer)),
        ("gzip in members", [gzip(head), gzip(tail)].concat()),
        ("gzip with an empty member", [gzip(&layer), gzip(b"")].concat()),
        ("zstd", zstd(&layer)),
        ("zstd in frames", [zstd(head), zstd(tail)].concat()),
        ("zstd with frames to skip", [&skip, &zstd(&layer)[..], &skip].concat()),
        ("a tar that only says to be compressed", layer.to_vec()),
    ];
    for (what, blob) in blobs {
        for frame in [1, 1000, MAX_FRAME] {
            // A frame of one byte each is slow, and tells all it has to on a small blob.
            let (layer, blob) = match (frame, what) {
                (1, "gzip") => (layer.slice(..5000), gzip(&layer[..5000])),
                (1, "zstd") => (layer.slice(..5000), zstd(&layer[..5000])),
                (1, _) => continue,
                _ => (layer.clone(), blob.clone()),
            };
            let (made, store) = try_to(&blob, &layer, frame, Limits::default()).await;
            assert_eq!(made.unwrap(), layer.len() as u64, "{what}");
            let (read, end) = drain(store.open(&Digest::of(&layer), 0).await.unwrap()).await;
            end.unwrap();
            assert!(read == layer, "{what}: other bytes came out");
        }
    }
}

#[tokio::test]
async fn layers_of_every_size_come_out_whole() {
    // The largest is only slow: decoders are not optimised in tests.
    for layer in contract::blobs().into_iter().filter(|blob| blob.len() < 2 * MAX_FRAME) {
        for blob in [gzip(&layer), zstd(&layer)] {
            let (made, _) = try_to(&blob, &layer, 65536, Limits::default()).await;
            assert_eq!(made.unwrap(), layer.len() as u64);
        }
    }
}

#[tokio::test]
async fn what_is_cut_short_or_has_a_tail_is_refused_and_leaves_nothing() {
    let layer = tar(&[("a", &bytes(1, 200_000))]);
    for (what, whole) in [("gzip", gzip(&layer)), ("zstd", zstd(&layer))] {
        let cuts = [10, whole.len() / 2, whole.len() - 9, whole.len() - 1];
        let cuts = cuts.map(|at| whole[..at].to_vec());
        let tails = [b"rubbish".as_slice(), &[0; 512]].map(|tail| [&whole, tail].concat());
        for blob in cuts.into_iter().chain(tails) {
            let (made, store) = try_to(&blob, &layer, 4096, Limits::default()).await;
            let error = made.unwrap_err();
            assert!(matches!(error, DecompressError::Corrupt { .. }), "{what}: {error:?}");
            assert_eq!(store.list(), [], "{what}");
        }
    }
    // Bytes turned over in the middle show in the check sum or in the diff ID.
    let mut turned = gzip(&layer);
    let middle = turned.len() / 2;
    turned[middle] ^= 1;
    assert!(try_to(&turned, &layer, 4096, Limits::default()).await.0.is_err());
}

#[tokio::test]
async fn a_bomb_is_stopped_at_its_limit() {
    let layer = vec![0; 5 << 20];
    let limits = Limits { floor: 1 << 20, ratio: NonZero::new(8).unwrap(), ceiling: 4 << 20 };
    for blob in [gzip(&layer), zstd(&layer)] {
        let (made, store) = try_to(&blob, &layer, 4096, limits).await;
        let error = made.unwrap_err();
        let DecompressError::TooLarge { limit, .. } = error else { panic!("{error:?}") };
        assert_eq!(limit, limits.of(blob.len() as u64));
        assert_eq!(store.list(), []);
    }
    assert_eq!(limits.of(1), 1 << 20);
    assert_eq!(limits.of(1 << 18), 2 << 20);
    assert_eq!(limits.of(u64::MAX), 4 << 20);
}

#[tokio::test]
async fn a_window_that_takes_too_much_memory_is_refused() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(MAX_WINDOW_LOG + 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(b"layer").unwrap();
    let blob = encoder.finish().unwrap();
    let (made, _) = try_to(&blob, b"layer", 4096, Limits::default()).await;
    let error = made.unwrap_err();
    assert!(matches!(error, DecompressError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn another_layer_than_the_image_says_is_not_kept() {
    let (made, store) = try_to(&gzip(b"one"), b"other", 4096, Limits::default()).await;
    let error = made.unwrap_err();
    let DecompressError::WrongDiffId { actual, .. } = error else { panic!("{error:?}") };
    assert_eq!(actual, DiffId(Digest::of(b"one")));
    assert_eq!(store.list(), []);
}

#[tokio::test]
async fn a_broken_stream_is_told_as_such() {
    let blob = Bytes::from(gzip(&bytes(1, 100_000)));
    let digest = Digest::of(&blob);
    let items = [Ok(blob.slice(..1000)), Err(BlobError::unavailable(digest, "broken pipe"))];
    let store = MemoryStore::default();
    let (descriptor, limits) = (descriptor_of(&blob), Limits::default());
    let made = decompress(scripted(items), &descriptor, DiffId(digest), &store, limits).await;
    let error = made.unwrap_err();
    assert!(matches!(error, DecompressError::Blob(_)), "{error:?}");
}
