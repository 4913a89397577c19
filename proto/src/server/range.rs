//! `RangeService` over a range's control.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::convert::status::from_control_error;
use crate::convert::{check, range};
use crate::wire::generated as pb;
use crate::wire::generated::range_service_server::RangeService;
use control::identity::Caller;
use control::range::RangeControl;

pub(super) struct Range {
    pub(super) caller: Caller,
    pub(super) control: Arc<dyn RangeControl>,
}

#[tonic::async_trait]
impl RangeService for Range {
    type SyncStream = BoxStream<'static, Result<pb::SyncResponse, Status>>;
    type VerifyStream = BoxStream<'static, Result<pb::VerifyResponse, Status>>;

    async fn sync(
        &self,
        request: Request<pb::SyncRequest>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let references = range::sync_request(&request.into_inner())?;
        let events = self.control.sync(&self.caller, references).await;
        let events = events.map_err(|error| from_control_error(&error))?;
        Ok(Response::new(events.map(|event| Ok(range::sync_response(event))).boxed()))
    }

    async fn list_images(
        &self,
        request: Request<pb::RangeServiceListImagesRequest>,
    ) -> Result<Response<pb::RangeServiceListImagesResponse>, Status> {
        let page = range::images_request(&request.into_inner())?;
        let images = self.control.images(&self.caller).await;
        let images = images.map_err(|error| from_control_error(&error))?;
        Ok(Response::new(range::images_response(&page, images)))
    }

    async fn plan(
        &self,
        request: Request<pb::PlanRequest>,
    ) -> Result<Response<pb::PlanResponse>, Status> {
        let references = check::plan_request(&request.into_inner())?;
        let plans = self.control.plan(&self.caller, references).await;
        let plans = plans.map_err(|error| from_control_error(&error))?;
        Ok(Response::new(check::plan_response(plans)))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let (references, deep) = check::verify_request(&request.into_inner())?;
        let events = self.control.verify(&self.caller, references, deep).await;
        let events = events.map_err(|error| from_control_error(&error))?;
        Ok(Response::new(events.map(|event| Ok(check::verify_response(event))).boxed()))
    }

    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.control.status(&self.caller).await.into()))
    }
}
