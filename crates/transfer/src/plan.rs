//! The layers that an engine lacks of an image: one rule for each kind of
//! [`Sharing`](crate::Sharing), as pure functions.
//!
//! An engine that shares by chain knows a layer by its chain ID, so only a present *prefix* of an
//! image's layers can be left out. One that shares by blob can do without any layer that it has. A
//! plain set difference of diff IDs is wrong for both.

use std::collections::HashSet;

use crate::digest::{ChainId, DiffId, Digest};
use crate::image::Image;
use crate::sink::Missing;

/// The chain IDs of an engine whose images have these layers: every prefix of each image.
#[must_use]
pub fn present_chains<'a>(images: impl IntoIterator<Item = &'a [DiffId]>) -> HashSet<ChainId> {
    images.into_iter().flat_map(ChainId::chain).collect()
}

/// The rule of sharing by chain: everything above the longest present prefix is missing.
#[must_use]
pub fn missing_above_prefix(image: &Image, present: &HashSet<ChainId>) -> Missing {
    let diff_ids: Vec<DiffId> = image.layers.iter().map(|layer| layer.diff_id).collect();
    let chain = ChainId::chain(&diff_ids);
    let prefix = chain.iter().take_while(|chain_id| present.contains(chain_id)).count();
    Missing((0..chain.len()).map(|position| prefix <= position).collect())
}

/// The rule of sharing by blob: a layer is missing when its blob is.
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
    fn any_blob_can_be_left_out() {
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
