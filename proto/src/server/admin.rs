//! `AdminService` over [`HostAdmin`].

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status};

use crate::convert::status::{from_admin_error, host_ending};
use crate::convert::{admin, ranges, transfers, wanted};
use crate::wire::generated as pb;
use crate::wire::generated::admin_service_server::AdminService;
use control::admin::HostAdmin;
use control::identity::Caller;

pub(super) struct Admin {
    pub(super) caller: Caller,
    pub(super) admin: Arc<dyn HostAdmin>,
}

#[tonic::async_trait]
impl AdminService for Admin {
    type WatchRangesStream = BoxStream<'static, Result<pb::WatchRangesResponse, Status>>;
    type VerifyRangeStream = BoxStream<'static, Result<pb::VerifyRangeResponse, Status>>;

    async fn get_stats(
        &self,
        _request: Request<pb::GetStatsRequest>,
    ) -> Result<Response<pb::GetStatsResponse>, Status> {
        Ok(Response::new(self.admin.stats(&self.caller).await.into()))
    }

    async fn list_ranges(
        &self,
        request: Request<pb::ListRangesRequest>,
    ) -> Result<Response<pb::ListRangesResponse>, Status> {
        let page = ranges::ranges_request(&request.into_inner())?;
        let listed = self.admin.ranges(&self.caller).await;
        Ok(Response::new(ranges::ranges_response(&page, listed)))
    }

    async fn watch_ranges(
        &self,
        request: Request<pb::WatchRangesRequest>,
    ) -> Result<Response<Self::WatchRangesStream>, Status> {
        let names = ranges::watch_request(&request.into_inner())?;
        let changes = self.admin.watch_ranges(&self.caller, names).await;
        let messages = changes.map(|change| Ok(ranges::watch_response(change)));
        Ok(Response::new(messages.chain(stream::once(async { Err(host_ending()) })).boxed()))
    }

    async fn add_range(
        &self,
        request: Request<pb::AddRangeRequest>,
    ) -> Result<Response<pb::AddRangeResponse>, Status> {
        let range = ranges::add_request(&request.into_inner())?;
        let range = self.admin.add_range(&self.caller, range).await;
        Ok(Response::new(ranges::add_response(range.map_err(|e| from_admin_error(&e))?)))
    }

    async fn remove_range(
        &self,
        request: Request<pb::RemoveRangeRequest>,
    ) -> Result<Response<pb::RemoveRangeResponse>, Status> {
        let name = ranges::remove_request(&request.into_inner())?;
        let removed = self.admin.remove_range(&self.caller, &name).await;
        removed.map_err(|error| from_admin_error(&error))?;
        Ok(Response::new(ranges::remove_response()))
    }

    async fn set_wanted(
        &self,
        request: Request<pb::SetWantedRequest>,
    ) -> Result<Response<pb::SetWantedResponse>, Status> {
        let (name, references, expected) = ranges::set_wanted_request(&request.into_inner())?;
        let set = self.admin.set_wanted(&self.caller, &name, references, expected).await;
        Ok(Response::new(wanted::set_response(set.map_err(|e| from_admin_error(&e))?)))
    }

    async fn get_wanted(
        &self,
        request: Request<pb::GetWantedRequest>,
    ) -> Result<Response<pb::GetWantedResponse>, Status> {
        let name = ranges::get_wanted_request(&request.into_inner())?;
        let wants = self.admin.wanted(&self.caller, &name).await;
        Ok(Response::new(wanted::get_response(wants.map_err(|e| from_admin_error(&e))?)))
    }

    async fn set_grants(
        &self,
        request: Request<pb::SetGrantsRequest>,
    ) -> Result<Response<pb::SetGrantsResponse>, Status> {
        let (name, grants) = ranges::set_grants_request(&request.into_inner())?;
        let grants = self.admin.set_grants(&self.caller, &name, grants).await;
        let grants = grants.map_err(|error| from_admin_error(&error))?;
        Ok(Response::new(ranges::set_grants_response(&grants)))
    }

    async fn sync_range(
        &self,
        request: Request<pb::SyncRangeRequest>,
    ) -> Result<Response<pb::SyncRangeResponse>, Status> {
        let name = ranges::sync_request(&request.into_inner())?;
        let round = self.admin.sync_range(&self.caller, &name).await;
        Ok(Response::new(ranges::sync_response(round.map_err(|e| from_admin_error(&e))?)))
    }

    async fn plan_range(
        &self,
        request: Request<pb::PlanRangeRequest>,
    ) -> Result<Response<pb::PlanRangeResponse>, Status> {
        let (name, references) = ranges::plan_request(&request.into_inner())?;
        let plans = self.admin.plan_range(&self.caller, &name, references).await;
        Ok(Response::new(ranges::plan_response(plans.map_err(|e| from_admin_error(&e))?)))
    }

    async fn verify_range(
        &self,
        request: Request<pb::VerifyRangeRequest>,
    ) -> Result<Response<Self::VerifyRangeStream>, Status> {
        let (name, references, deep) = ranges::verify_range_request(&request.into_inner())?;
        let events = self.admin.verify_range(&self.caller, &name, references, deep).await;
        let events = events.map_err(|error| from_admin_error(&error))?;
        let messages = events.map(|event| match event {
            Ok(event) => Ok(ranges::verify_range_response(event)),
            Err(error) => Err(from_admin_error(&error)),
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn list_transfers(
        &self,
        request: Request<pb::ListTransfersRequest>,
    ) -> Result<Response<pb::ListTransfersResponse>, Status> {
        let page = transfers::request(&request.into_inner())?;
        let moving = self.admin.transfers(&self.caller).await;
        Ok(Response::new(transfers::response(&page, moving)))
    }

    async fn prune(
        &self,
        request: Request<pb::PruneRequest>,
    ) -> Result<Response<pb::PruneResponse>, Status> {
        let pruning = admin::prune_request(request.into_inner());
        let pruned = self.admin.prune(&self.caller, pruning).await;
        Ok(Response::new(pruned.map_err(|error| from_admin_error(&error))?.into()))
    }

    async fn verify_store(
        &self,
        _request: Request<pb::VerifyStoreRequest>,
    ) -> Result<Response<pb::VerifyStoreResponse>, Status> {
        let check = self.admin.verify_store(&self.caller).await;
        Ok(Response::new(check.map_err(|error| from_admin_error(&error))?.into()))
    }
}
