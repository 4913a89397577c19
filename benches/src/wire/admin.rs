//! A stub of the administration service, which a host agent's listener needs besides the data path.

use async_trait::async_trait;
use control::admin::{
    AdminError, HostStats, NewRange, Pruned, Pruning, RangeChange, RangeWants, ServedRange,
    StoreCheck,
};
use control::link::{FromRangeStream, LinkEnd, LinkHost, ToRangeStream};
use control::range::{ImagePlan, VerifyEvent};
use control::transfers::Transfer;
use control::{Caller, HostAdmin, Pattern, RangeName, WantedSet};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
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

    async fn watch_ranges(&self, _: &Caller, _: Vec<RangeName>) -> BoxStream<'static, RangeChange> {
        stream::empty().boxed()
    }

    async fn add_range(&self, _: &Caller, _: NewRange) -> Result<ServedRange, AdminError> {
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
        _: Option<u64>,
    ) -> Result<WantedSet, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn wanted(&self, _: &Caller, name: &RangeName) -> Result<RangeWants, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn set_grants(
        &self,
        _: &Caller,
        name: &RangeName,
        _: Vec<Pattern>,
    ) -> Result<Vec<Pattern>, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn sync_range(&self, _: &Caller, name: &RangeName) -> Result<u64, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn plan_range(
        &self,
        _: &Caller,
        name: &RangeName,
        _: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn verify_range(
        &self,
        _: &Caller,
        name: &RangeName,
        _: Vec<Reference>,
        _: bool,
    ) -> Result<BoxStream<'static, Result<VerifyEvent, AdminError>>, AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
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

#[async_trait]
impl LinkHost for NoAdmin {
    async fn attach(
        &self,
        range: &RangeName,
        _: FromRangeStream,
    ) -> Result<ToRangeStream, LinkEnd> {
        Err(LinkEnd::UnknownRange { name: range.clone() })
    }
}
