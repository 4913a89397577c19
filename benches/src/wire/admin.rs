//! What a host agent's listener needs beside the data path: an administration with nothing to do.

use async_trait::async_trait;
use proto::admin::{AdminError, HostStats, ServedRange, StoreCheck};
use proto::{Caller, HostAdmin, RangeName};

/// Knows no range. Never called: the bench's listener is a range's.
pub(super) struct NoAdmin;

#[async_trait]
impl HostAdmin for NoAdmin {
    async fn stats(&self, _: &Caller) -> HostStats {
        HostStats::default()
    }

    async fn ranges(&self, _: &Caller) -> Vec<ServedRange> {
        Vec::new()
    }

    async fn add_range(&self, _: &Caller, _: RangeName) -> Result<ServedRange, AdminError> {
        Err(AdminError::TooManyRanges { limit: 0 })
    }

    async fn remove_range(&self, _: &Caller, name: &RangeName) -> Result<(), AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn verify_store(&self, _: &Caller) -> Result<StoreCheck, AdminError> {
        Ok(StoreCheck::default())
    }
}
