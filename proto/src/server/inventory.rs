//! `InventoryService` over a library.

use std::sync::Arc;

use futures::StreamExt as _;
use tonic::{Request, Response, Status};

use crate::convert::inventory;
use crate::convert::status::{from_blob_error, from_source_error};
use crate::wire::generated as pb;
use crate::wire::generated::inventory_service_server::InventoryService;
use control::identity::Caller;
use control::lending::{Library, Loan};

/// Questions to the engine at once, of one request.
const QUESTIONS: usize = 4;

pub(super) struct Inventory {
    pub(super) caller: Caller,
    pub(super) library: Arc<Library>,
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let page = inventory::list_request(&request.into_inner())?;
        let images = self.library.list(&self.caller).await.map_err(|e| from_source_error(&e))?;
        Ok(Response::new(inventory::list_response(&page, images)))
    }

    async fn get_image(
        &self,
        request: Request<pb::GetImageRequest>,
    ) -> Result<Response<pb::GetImageResponse>, Status> {
        let (name, form, doubted) = inventory::image_request(request.into_inner())?;
        let image = self.library.image(&self.caller, &name, form).await;
        let (image, lease) = image.map_err(|error| from_source_error(&error))?;
        let loan = Loan { config_digest: image.config_digest, lease_id: lease.id.clone() };
        let doubted = self.library.doubt(&self.caller, &loan, &doubted);
        doubted.map_err(|error| from_blob_error(&error))?;
        Ok(Response::new(inventory::image_response(&image, lease)))
    }

    async fn resolve_images(
        &self,
        request: Request<pb::ResolveImagesRequest>,
    ) -> Result<Response<pb::ResolveImagesResponse>, Status> {
        let texts = inventory::resolve_request(request.into_inner())?;
        let resolutions = texts.into_iter().map(|text| async move {
            let result = match inventory::reference(&text) {
                Ok(reference) => {
                    let image = self.library.resolve(&self.caller, &reference).await;
                    image.map_err(|error| from_source_error(&error))
                }
                Err(status) => Err(status),
            };
            (text, result)
        });
        // A few at once: a thousand names must not be a thousand questions to the engine.
        let resolved = futures::stream::iter(resolutions).buffered(QUESTIONS).collect().await;
        Ok(Response::new(inventory::resolve_response(resolved)))
    }
}
