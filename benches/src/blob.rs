//! Blobs of incompressible bytes, the same on every machine.

use bytes::Bytes;
use transfer::{BlobStore, Descriptor, Hasher, MAX_FRAME, MediaType};

/// Noise of `size` bytes from `seed`, in frames of [`MAX_FRAME`]; the last one may be shorter.
///
/// Noise, so that no file system or socket gains by compression; seeded, so that two runs move the
/// same bytes.
pub fn frames(seed: u64, size: u64) -> impl Iterator<Item = Bytes> {
    let mut noise = Noise(seed);
    let mut left = size;
    std::iter::from_fn(move || {
        let len = usize::try_from(left).unwrap_or(MAX_FRAME).min(MAX_FRAME);
        left -= len as u64;
        (0 < len).then(|| noise.frame(len))
    })
}

/// Ingests the blob of `seed` and `size` into `store`.
///
/// # Errors
/// An error of the store, most likely a full disk.
pub async fn ingest(
    store: &dyn BlobStore,
    seed: u64,
    size: u64,
) -> Result<Descriptor, transfer::BlobError> {
    let mut ingest = store.ingest().await?;
    let mut hasher = Hasher::default();
    for frame in frames(seed, size) {
        hasher.update(&frame);
        ingest.write(frame).await?;
    }
    let media_type = MediaType::new(MediaType::LAYER);
    let descriptor = Descriptor { media_type, digest: hasher.digest(), size };
    ingest.commit(&descriptor).await?;
    Ok(descriptor)
}

/// Splitmix64, by Vigna: small, fast, and without visible structure.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn frame(&mut self, len: usize) -> Bytes {
        let words = len.div_ceil(size_of::<u64>());
        let mut frame: Vec<u8> = Vec::with_capacity(words * size_of::<u64>());
        for _ in 0..words {
            frame.extend_from_slice(&self.next().to_le_bytes());
        }
        frame.truncate(len);
        frame.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_in_frames_of_the_right_size() {
        let frame = MAX_FRAME as u64;
        for size in [0, 1, 7, 8, 9, frame - 1, frame, frame + 1, 3 * frame] {
            let lens: Vec<_> = frames(1, size).map(|frame| frame.len()).collect();
            assert_eq!(lens.iter().sum::<usize>() as u64, size);
            assert!(lens.iter().all(|len| (1..=MAX_FRAME).contains(len)), "{size}: {lens:?}");
            assert!(lens.iter().rev().skip(1).all(|len| *len == MAX_FRAME), "{size}: {lens:?}");
            assert!(frames(1, size).eq(frames(1, size)), "{size}");
        }
        assert_ne!(frames(1, 8).next(), frames(2, 8).next());
    }
}
