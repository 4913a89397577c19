//! `AdminService` over a host's administration.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::admin::HostAdmin;
use crate::convert::status::from_admin_error;
use crate::convert::{admin, transfers, wanted};
use crate::identity::Caller;
use crate::wire::generated as pb;
use crate::wire::generated::admin_service_server::AdminService;

pub(super) struct Admin {
    pub(super) caller: Caller,
    pub(super) admin: Arc<dyn HostAdmin>,
}

#[tonic::async_trait]
impl AdminService for Admin {
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
        let page = admin::ranges_request(&request.into_inner())?;
        let ranges = self.admin.ranges(&self.caller).await;
        Ok(Response::new(admin::ranges_response(&page, ranges)))
    }

    async fn add_range(
        &self,
        request: Request<pb::AddRangeRequest>,
    ) -> Result<Response<pb::AddRangeResponse>, Status> {
        let (name, tcp) = admin::add_request(&request.into_inner())?;
        let range = self.admin.add_range(&self.caller, name, tcp).await;
        Ok(Response::new(admin::add_response(range.map_err(|e| from_admin_error(&e))?)))
    }

    async fn remove_range(
        &self,
        request: Request<pb::RemoveRangeRequest>,
    ) -> Result<Response<pb::RemoveRangeResponse>, Status> {
        let name = admin::remove_request(&request.into_inner())?;
        let removed = self.admin.remove_range(&self.caller, &name).await;
        removed.map_err(|error| from_admin_error(&error))?;
        Ok(Response::new(admin::remove_response()))
    }

    async fn set_wanted(
        &self,
        request: Request<pb::SetWantedRequest>,
    ) -> Result<Response<pb::SetWantedResponse>, Status> {
        let (name, references) = admin::set_wanted_request(&request.into_inner())?;
        let set = self.admin.set_wanted(&self.caller, &name, references).await;
        Ok(Response::new(wanted::set_response(set.map_err(|e| from_admin_error(&e))?)))
    }

    async fn get_wanted(
        &self,
        request: Request<pb::GetWantedRequest>,
    ) -> Result<Response<pb::GetWantedResponse>, Status> {
        let name = admin::get_wanted_request(&request.into_inner())?;
        let set = self.admin.wanted(&self.caller, &name).await;
        Ok(Response::new(wanted::get_response(set.map_err(|e| from_admin_error(&e))?)))
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
