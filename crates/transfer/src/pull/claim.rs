//! Who is bringing which layer in: so that a layer that several images lack goes in once.

use std::collections::HashSet;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::digest::Digest;
use crate::image::Image;
use crate::sink::Missing;

/// The blobs that pulls under way are bringing in.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<HashSet<Digest>>,
    released: Notify,
}

/// The right to bring some blobs in; dropping it lets whoever waits go on.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    digests: Vec<Digest>,
    waited: bool,
}

impl Claims {
    /// Waits until nobody else is bringing in this image or one of its missing layers.
    ///
    /// All or nothing, so two images that lack each other's layers cannot wait for one another.
    pub(super) async fn claim(&self, image: &Image, missing: &Missing) -> Claim<'_> {
        let layers = image.layers.iter().zip(&missing.0).filter(|(_, missing)| **missing);
        let mut digests: Vec<Digest> = layers.map(|(layer, _)| layer.blob.digest).collect();
        digests.push(image.config_digest.0);
        let mut waited = false;
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Listen before looking, or a release between the two is missed.
            released.as_mut().enable();
            if self.try_hold(&digests) {
                return Claim { claims: self, digests, waited };
            }
            waited = true;
            released.await;
        }
    }

    fn try_hold(&self, digests: &[Digest]) -> bool {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = digests.iter().all(|digest| !held.contains(digest));
        if free {
            held.extend(digests);
        }
        free
    }
}

impl Claim<'_> {
    /// Whether somebody else held some of it first: then the plan is old.
    pub(super) fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for digest in &self.digests {
            held.remove(digest);
        }
        drop(held);
        self.claims.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::fixture;

    #[tokio::test]
    async fn a_layer_is_brought_in_by_one_at_a_time() {
        let (first, _) = fixture::image(1, &[10, 20]);
        let (mut second, _) = fixture::image(2, &[30]);
        second.layers.insert(0, first.layers[0].clone());
        let claims = Claims::default();

        let held = claims.claim(&first, &Missing::all(&first)).await;
        assert!(!held.waited());
        let all = Missing::all(&second);
        let mut waiting = Box::pin(claims.claim(&second, &all));
        assert!(waiting.as_mut().now_or_never().is_none(), "the shared base was claimed twice");
        // Without the shared layer there is nothing to wait for.
        let other = claims.claim(&second, &Missing(vec![false, true])).await;
        drop(other);
        drop(held);
        assert!(waiting.await.waited());
    }
}
