//! Room on the engine's disk, found out before anything is moved: each load reserves what it will
//! write, and waits while others under way may still take it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use transfer::{Image, LoadError, Missing, Room};

/// Folders in the data-root of every engine, whatever its store. A folder that lacks one of these is
/// somebody else's: an agent beside its engine may see another folder under the same path.
const ENGINES: [&str; 2] = ["containers", "volumes"];

/// How often the bytes of an uncompressed layer are written: the graphdriver's temporary copy or the
/// containerd store's blob, and then its files.
const TIMES: u64 = 2;

/// The same for a compressed layer, whose files take at least twice its blob.
const TIMES_COMPRESSED: u64 = 3;

/// The disk that an engine keeps its data on, as loads share it.
#[derive(Debug, Default)]
pub(super) struct Space {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that loads under way may write. They count in full until a load is over, though some are
    /// on the disk by then: a load may wait longer than it must, and never fails.
    promised: Mutex<u64>,
    freed: Notify,
}

/// Bytes that a load may write, until it is over.
#[derive(Debug)]
struct Promise {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        *self.shared.promised() -= self.bytes;
        self.shared.freed.notify_waiters();
    }
}

impl Shared {
    fn promised(&self) -> MutexGuard<'_, u64> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// Room for the layers of `image` that are missing, where the engine keeps its data. Where that
    /// cannot be seen, there is always room.
    ///
    /// # Errors
    /// [`LoadError::NoSpace`] with both numbers, when they do not fit and nobody else is loading.
    pub(super) async fn room(
        &self,
        root: &Path,
        image: &Image,
        missing: &Missing,
    ) -> Result<Room, LoadError> {
        let need = need(image, missing);
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            // Listen before looking, or what is freed between the two is missed.
            freed.as_mut().enable();
            if let Some(room) = self.take(root, need)? {
                return Ok(room);
            }
            tracing::info!(mebibytes = mebibytes(need), "waiting for room on the engine's disk");
            freed.await;
        }
    }

    /// Room for `need` bytes; `None` when others may still take it.
    fn take(&self, root: &Path, need: u64) -> Result<Option<Room>, LoadError> {
        let Some(free) = free(root) else { return Ok(Some(Room::default())) };
        let mut promised = self.shared.promised();
        if promised.saturating_add(need) <= free {
            *promised += need;
            return Ok(Some(Room::held_by(Promise { shared: self.shared.clone(), bytes: need })));
        }
        if 0 < *promised {
            return Ok(None);
        }
        let message = format!(
            "this image takes about {} MiB more in {}, and {} MiB are free",
            mebibytes(need),
            root.display(),
            free >> 20
        );
        Err(LoadError::NoSpace { message })
    }
}

/// Bytes that a load will write, about.
fn need(image: &Image, missing: &Missing) -> u64 {
    let layers = image.layers.iter().zip(&missing.0).filter(|(_, missing)| **missing);
    let needs = layers.map(|(layer, _)| {
        let times = if layer.blob.digest == layer.diff_id.0 { TIMES } else { TIMES_COMPRESSED };
        layer.blob.size.saturating_mul(times)
    });
    needs.fold(0, u64::saturating_add)
}

/// Free bytes for the engine's user; `None` where its data-root is not visible here.
fn free(root: &Path) -> Option<u64> {
    if !ENGINES.iter().all(|folder| root.join(folder).is_dir()) {
        return None;
    }
    let stat = rustix::fs::statvfs(root).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use transfer::Digest;
    use transfer::fixture::image;

    use super::*;

    #[test]
    fn only_missing_layers_need_space_and_compressed_ones_more() {
        let (mut image, _) = image(1, &[1000, 50]);
        let missing = |layers: &[bool]| Missing(layers.to_vec());
        let size = |position: usize| image.layers[position].blob.size;
        let (first, second) = (size(0), size(1));
        assert_eq!(need(&image, &missing(&[true, true])), 2 * (first + second));
        assert_eq!(need(&image, &missing(&[false, true])), 2 * second);
        assert_eq!(need(&image, &missing(&[false, false])), 0);
        image.layers[1].blob.digest = Digest::of(b"gzip");
        assert_eq!(need(&image, &missing(&[true, true])), 2 * first + 3 * second);
        image.layers[0].blob.size = u64::MAX;
        assert_eq!(need(&image, &missing(&[true, true])), u64::MAX);
    }

    /// A folder that looks like an engine's, and an image that takes a share of its disk.
    fn disk(share: impl Fn(u64) -> u64) -> (tempfile::TempDir, Image) {
        let root = tempfile::tempdir().unwrap();
        for folder in ENGINES {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let (mut image, _) = image(1, &[1000]);
        image.layers[0].blob.size = share(free(root.path()).unwrap()) / TIMES;
        (root, image)
    }

    #[tokio::test]
    async fn a_load_that_does_not_fit_is_refused_with_both_numbers() {
        let (root, image) = disk(|_| u64::MAX / 2);
        let (space, missing) = (Space::default(), Missing(vec![true]));
        // Not an engine's folder: nothing is said.
        let elsewhere = tempfile::tempdir().unwrap();
        space.room(elsewhere.path(), &image, &missing).await.unwrap();
        space.room(Path::new("/nowhere"), &image, &missing).await.unwrap();
        let error = space.room(root.path(), &image, &missing).await.unwrap_err().to_string();
        for part in ["no space", "8796093022208 MiB", "are free", root.path().to_str().unwrap()] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        space.room(root.path(), &image, &Missing(vec![false])).await.unwrap();
    }

    #[tokio::test]
    async fn loads_that_do_not_fit_together_come_one_after_the_other() {
        // Others write to this disk too, so nothing here is close.
        let (root, image) = disk(|free| free / 10 * 6);
        let (space, missing) = (Space::default(), Missing(vec![true]));
        let first = space.room(root.path(), &image, &missing).await.unwrap();
        let mut second = Box::pin(space.room(root.path(), &image, &missing));
        assert!(second.as_mut().now_or_never().is_none(), "both were let in");
        // What needs nothing waits for nobody.
        space.room(root.path(), &image, &Missing(vec![false])).await.unwrap();
        drop(first);
        second.await.unwrap();
    }
}
