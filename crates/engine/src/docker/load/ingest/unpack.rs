//! Layers into snapshots: each as soon as its blob is there, while the blobs above it still come in.
//!
//! ```text
//!   Prepare(parent's chain ID) ─► Diff.Apply(blob) ─► Commit(chain ID)
//! ```
//! A snapshot that is there is used. containerd mounts, extracts and hashes; what it says that it
//! extracted must be the layer's diff ID.

use tokio::sync::oneshot;
use tonic::Code;
use transfer::{ChainId, DiffId, Image, Layer};

use super::api::{self, Labels};
use super::blob::Content;
use super::client::Fault;
use super::error::IngestError;
use super::lease::once;
use super::turns::Turns;

/// The label of a compressed blob that says what it is uncompressed.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Where the layers of one image are unpacked.
#[derive(Debug)]
pub(super) struct Unpacker<'a> {
    pub(super) content: Content<'a>,
    /// By its own name: `overlayfs`.
    pub(super) snapshotter: &'a str,
    pub(super) turns: &'a Turns,
}

impl Unpacker<'_> {
    /// Unpacks every layer of `image`, each when its blob is `ready`.
    pub(super) async fn unpack(
        &self,
        image: &Image,
        ready: Vec<oneshot::Receiver<()>>,
    ) -> Result<(), IngestError> {
        let diff_ids: Vec<DiffId> = image.diff_ids().collect();
        let chain = ChainId::chain(&diff_ids);
        let mut parent = None;
        for ((layer, ready), chain_id) in image.layers.iter().zip(ready).zip(chain) {
            if ready.await.is_err() {
                // Whoever fetches the blobs has failed, and tells why.
                return Ok(());
            }
            self.layer(layer, parent, chain_id).await?;
            self.content.progress.made();
            parent = Some(chain_id);
        }
        Ok(())
    }

    async fn layer(
        &self,
        layer: &Layer,
        parent: Option<ChainId>,
        chain_id: ChainId,
    ) -> Result<(), IngestError> {
        let _turn = self.turns.take(chain_id.0).await;
        if !self.holds(chain_id).await? {
            let key = format!("longshore-{} {chain_id}", once());
            if let Err(error) = self.extract(layer, parent, chain_id, &key).await {
                self.remove(&key).await;
                return Err(error);
            }
        }
        if layer.blob.digest != layer.diff_id.0 {
            let labels = Labels::from([(UNCOMPRESSED.into(), layer.diff_id.to_string())]);
            self.content.label(&layer.blob.digest, labels).await?;
        }
        Ok(())
    }

    /// Whether a snapshot is there; our lease holds it then.
    async fn holds(&self, chain_id: ChainId) -> Result<bool, Fault> {
        if !self.has(chain_id).await? {
            return Ok(false);
        }
        let kind = format!("snapshots/{}", self.snapshotter);
        self.content.lease.hold(kind, chain_id.to_string()).await?;
        // It may have gone before it was held.
        self.has(chain_id).await
    }

    async fn has(&self, chain_id: ChainId) -> Result<bool, Fault> {
        let request = self.named(chain_id.to_string());
        match self.content.containerd.tell(api::STAT, None, request).await {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(Code::NotFound) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn extract(
        &self,
        layer: &Layer,
        parent: Option<ChainId>,
        chain_id: ChainId,
        key: &str,
    ) -> Result<(), IngestError> {
        let containerd = self.content.containerd;
        let lease = self.content.lease.id().await?;
        let prepare = api::PrepareRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.map(|parent| parent.to_string()).unwrap_or_default(),
        };
        let prepared: api::Mounts = containerd.call(api::PREPARE, Some(&lease), prepare).await?;
        let apply = api::ApplyRequest { diff: Some((&layer.blob).into()), mounts: prepared.mounts };
        let applied: api::ApplyResponse =
            containerd.call_patiently(api::APPLY, Some(&lease), apply).await?;
        let applied = applied.applied.map(|applied| applied.digest).unwrap_or_default();
        if applied != layer.diff_id.to_string() {
            let (blob, diff_id) = (layer.blob.digest, layer.diff_id);
            let text = format!("unpacked {blob} to {applied:?}, and its diff ID is {diff_id}");
            return Err(Fault::Odd(text).into());
        }
        let commit = api::CommitRequest {
            snapshotter: self.snapshotter.to_owned(),
            name: chain_id.to_string(),
            key: key.to_owned(),
        };
        match containerd.tell(api::COMMIT, Some(&lease), commit).await {
            // Somebody else was faster.
            Err(fault) if fault.code() == Some(Code::AlreadyExists) => {
                self.remove(key).await;
                let kind = format!("snapshots/{}", self.snapshotter);
                self.content.lease.hold(kind, chain_id.to_string()).await?;
            }
            committed => committed?,
        }
        Ok(())
    }

    /// Removes a snapshot that did not become a layer. One that stays goes with the lease.
    async fn remove(&self, key: &str) {
        let request = self.named(key.to_owned());
        let removed = self.content.containerd.tell(api::REMOVE, None, request);
        if let Err(fault) = removed.await {
            tracing::debug!(key, %fault, "an unfinished snapshot stays until its lease ends");
        }
    }

    fn named(&self, key: String) -> api::SnapshotName {
        api::SnapshotName { snapshotter: self.snapshotter.to_owned(), key }
    }
}
