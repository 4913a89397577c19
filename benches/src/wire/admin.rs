//! A stub of the administration service, which a host agent's listener needs besides the data path.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use proto::admin::{AdminError, HostStats, Pruned, Pruning, ServedRange, StoreCheck};
use proto::transfers::Transfer;
use proto::{Caller, HostAdmin, RangeName, WantedSet};
use transfer::Reference;

/// An administration without ranges. Never called, since the bench connects as a range.
#[derive(Clone, Copy, Debug)]
pub struct NoAdmin;

#[async_trait]
impl HostAdmin for NoAdmin {
    async fn stats(&self, _: &Caller) -> HostStats {
        HostStats::default()
    }

    async fn ranges(&self, _: &Caller) -> Vec<ServedRange> {
        Vec::new()
    }

    async fn add_range(
        &self,
        _: &Caller,
        _: RangeName,
        _: Option<SocketAddr>,
    ) -> Result<ServedRange, AdminError> {
        Err(AdminError::TooManyRanges { limit: 0 })
    }

    async fn remove_range(&self, _: &Caller, name: &RangeName) -> Result<(), AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn set_wanted(
        &self,
        _: &Caller,
        name: &RangeName,
        _: Vec<Reference>,
    ) -> Result<WantedSet, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn wanted(&self, _: &Caller, name: &RangeName) -> Result<WantedSet, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn watch_wanted(
        &self,
        _: &RangeName,
    ) -> Result<BoxStream<'static, WantedSet>, AdminError> {
        Ok(stream::empty().boxed())
    }

    async fn transfers(&self, _: &Caller) -> Vec<Transfer> {
        Vec::new()
    }

    async fn prune(&self, _: &Caller, _: Pruning) -> Result<Pruned, AdminError> {
        Ok(Pruned::default())
    }

    async fn verify_store(&self, _: &Caller) -> Result<StoreCheck, AdminError> {
        Ok(StoreCheck::default())
    }
}
