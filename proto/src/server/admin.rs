//! `AdminService` over a host's administration.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::admin::HostAdmin;
use crate::convert::admin;
use crate::convert::status::from_admin_error;
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
        let name = admin::add_request(&request.into_inner())?;
        let range = self.admin.add_range(&self.caller, name).await;
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

    async fn verify_store(
        &self,
        _request: Request<pb::VerifyStoreRequest>,
    ) -> Result<Response<pb::VerifyStoreResponse>, Status> {
        let check = self.admin.verify_store(&self.caller).await;
        Ok(Response::new(check.map_err(|error| from_admin_error(&error))?.into()))
    }
}
