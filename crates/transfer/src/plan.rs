//! What an engine lacks of an image: the two stores' rules, as pure functions.
//!
//! A graphdriver knows a layer by its chain ID, so only a present *prefix* of an image's layers can
//! be left out of an archive. The containerd store knows blobs, so any layer can. A plain set
//! difference of diff IDs is wrong on the first and right on the second only for the digests that
//! are really in the content store.

use std::collections::HashSet;

use crate::digest::{ChainId, DiffId, Digest};
use crate::image::Image;
use crate::sink::Missing;

/// The chain IDs that a graphdriver has, when these are the layers of all its images: each image's
/// every prefix.
#[must_use]
pub fn present_chains<'a>(images: impl IntoIterator<Item = &'a [DiffId]>) -> HashSet<ChainId> {
    images.into_iter().flat_map(ChainId::chain).collect()
}

/// The graphdriver's rule: everything above the longest present prefix is missing.
#[must_use]
pub fn missing_above_prefix(image: &Image, present: &HashSet<ChainId>) -> Missing {
    let diff_ids: Vec<DiffId> = image.layers.iter().map(|layer| layer.diff_id).collect();
    let chain = ChainId::chain(&diff_ids);
    let prefix = chain.iter().take_while(|chain_id| present.contains(chain_id)).count();
    Missing((0..chain.len()).map(|position| prefix <= position).collect())
}

/// The containerd store's rule: a layer is missing when its blob is.
#[must_use]
pub fn missing_blobs(image: &Image, present: &HashSet<Digest>) -> Missing {
    Missing(image.layers.iter().map(|layer| !present.contains(&layer.blob.digest)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn only_a_prefix_of_the_chain_can_be_left_out() {
        let (image, _) = fixture::image(1, &[10, 20, 30]);
        let ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
        let check = |held: &[&[DiffId]], expected: [bool; 3]| {
            let present = present_chains(held.iter().copied());
            assert_eq!(missing_above_prefix(&image, &present).0, expected, "held: {held:?}");
        };
        check(&[], [true, true, true]);
        check(&[&ids[..1]], [false, true, true]);
        check(&[&ids[..2]], [false, false, true]);
        check(&[&ids], [false, false, false]);
        // The upper layers alone are other chains, whatever their diff IDs.
        check(&[&ids[1..]], [true, true, true]);
        check(&[&ids[1..], &ids[..1]], [false, true, true]);
    }

    #[test]
    fn any_blob_can_be_left_out_of_an_archive_for_the_containerd_store() {
        let (image, _) = fixture::image(1, &[10, 20, 30]);
        let present = HashSet::from([image.layers[1].blob.digest]);
        assert_eq!(missing_blobs(&image, &present).0, [true, false, true]);
    }

    #[test]
    fn a_layer_that_occurs_twice_is_judged_by_its_place() {
        let (mut image, _) = fixture::image(1, &[10, 20]);
        image.layers.push(image.layers[0].clone());
        let ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
        let present = present_chains([&ids[..2]]);
        assert_eq!(missing_above_prefix(&image, &present).0, [false, false, true]);
    }
}
