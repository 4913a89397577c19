//! The blob store's life in this process: opened by nobody else, and kept within its marks.

use anyhow::anyhow;
use transfer::store::{FsStore, Policy, StoreError};

use crate::state::StateDir;

/// Opens the store of the state folder.
///
/// # Errors
/// Another agent has it, or this one may not write there; says what to do about it.
pub async fn open(state: &StateDir) -> anyhow::Result<FsStore> {
    let store = FsStore::open(state.store()).await;
    store.map_err(|error| match error {
        StoreError::InUse { .. } => anyhow!(
            "{error}: two agents cannot share a store; stop the other one, or give this one a \
             --state-dir of its own"
        ),
        error => anyhow!(error).context(
            "opening the blob store, which the agent must be able to write; see --state-dir",
        ),
    })
}

/// Keeps the store within its marks for ever.
pub(crate) async fn keep(store: &FsStore, policy: Policy) {
    let told = |result: Result<transfer::store::Collected, StoreError>| match result {
        Ok(collected) => {
            let (blobs, bytes) = (collected.blobs, collected.bytes);
            tracing::info!(blobs, bytes, kept = collected.kept_leased, "store collected");
        }
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "the store could not be collected");
        }
    };
    store.keep_within(policy, told).await;
}

/// The marks in bytes; zeros where the store is not collected, or its file system does not tell.
pub(crate) async fn marks(store: &FsStore, policy: &Policy) -> (u64, u64) {
    let space = store.space().await.unwrap_or_default();
    policy.marks(space.size).unwrap_or_default()
}
