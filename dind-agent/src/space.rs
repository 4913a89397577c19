//! Whether a load fits on the engine's disk, found out before anything is moved.

use std::path::Path;

use transfer::{Image, LoadError, Missing};

/// What an engine keeps in its data-root whatever its store. A folder that lacks one of these is
/// somebody else's: an agent beside its engine may see another folder under the same path.
const ENGINES: [&str; 2] = ["containers", "volumes"];

/// How often the bytes of an uncompressed layer are written: the graphdriver's temporary copy or the
/// containerd store's blob, and then its files.
const TIMES: u64 = 2;

/// The same for a compressed layer, whose files take at least twice its blob.
const TIMES_COMPRESSED: u64 = 3;

/// An error when the layers of `image` that are missing do not fit where the engine keeps its data.
/// Where that cannot be seen, nothing is said.
pub(crate) fn check(root: &Path, image: &Image, missing: &Missing) -> Result<(), LoadError> {
    let Some(free) = free(root) else { return Ok(()) };
    let need = need(image, missing);
    if need <= free {
        return Ok(());
    }
    let message = format!(
        "this image takes about {} MiB more in {}, and {} MiB are free",
        mebibytes(need),
        root.display(),
        free >> 20
    );
    Err(LoadError::NoSpace { message })
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

/// Free bytes for whom the engine runs as; `None` where its data-root is not to be seen.
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

    #[test]
    fn a_load_that_does_not_fit_is_refused_with_both_numbers() {
        let root = tempfile::tempdir().unwrap();
        let (mut image, _) = image(1, &[1000]);
        image.layers[0].blob.size = u64::MAX / 4;
        let missing = Missing(vec![true]);
        // Not an engine's folder: nothing is said.
        check(root.path(), &image, &missing).unwrap();
        check(Path::new("/nowhere"), &image, &missing).unwrap();
        for folder in ENGINES {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let error = check(root.path(), &image, &missing).unwrap_err().to_string();
        for part in ["no space", "8796093022208 MiB", "are free", root.path().to_str().unwrap()] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        image.layers[0].blob.size = 1;
        check(root.path(), &image, &missing).unwrap();
    }
}
