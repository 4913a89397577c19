//! A range's agent, from outside.

use futures::stream::BoxStream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use transfer::Reference;

use super::failure::RemoteError;
use super::paging::Pages;
use super::retry::{BRIEFLY, until_answered};
use super::stream::events;
use crate::channel::Endpoint;
use crate::convert::{check, range};
use crate::failure::Failure;
use crate::wire::{MAX_RESPONSE, PLAN_DEADLINE, RangeServiceClient, UNARY_DEADLINE};
use control::range::{ImagePlan, RangeImage, RangeStatus, SyncEvent, VerifyEvent};

/// Events of a sync. The stream ends after [`SyncEvent::Finished`], or with the error that took its
/// place.
pub type SyncEvents = BoxStream<'static, Result<SyncEvent, RemoteError>>;

/// Events of a check. The stream ends after [`VerifyEvent::Finished`], or with the error that took
/// its place.
pub type VerifyEvents = BoxStream<'static, Result<VerifyEvent, RemoteError>>;

/// The agent of a range behind an endpoint. Connects when it is first asked, and again by itself.
#[derive(Clone, Debug)]
pub struct RangeClient {
    endpoint: Endpoint,
    channel: Channel,
}

impl RangeClient {
    /// The range agent at `endpoint`; nothing is connected yet. Must be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let channel = endpoint.channel();
        Self { endpoint, channel }
    }

    fn client(&self) -> RangeServiceClient {
        RangeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    fn error(&self, action: &'static str) -> impl Fn(Status) -> RemoteError + use<> {
        let endpoint = self.endpoint.to_string();
        move |status| RemoteError::new(action, Failure::new(&endpoint, status))
    }

    /// Brings images into the range's engine, and tells what happens. Dropping the events cancels
    /// nothing.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn sync(&self, references: &[Reference]) -> Result<SyncEvents, RemoteError> {
        const ACTION: &str = "syncing the range";
        let error = self.error(ACTION);
        let wanted = || async { self.client().sync(range::sync_wanted(references)).await };
        let messages = until_answered(BRIEFLY, wanted).await.map_err(&error)?;
        Ok(events(messages, range::synced, error))
    }

    /// Plans bringing images in; nothing changes in the range.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn plan(&self, references: &[Reference]) -> Result<Vec<ImagePlan>, RemoteError> {
        const ACTION: &str = "planning what the range lacks";
        let plans = until_answered(BRIEFLY, || async {
            let mut request = Request::new(check::plan_wanted(references));
            request.set_timeout(PLAN_DEADLINE);
            self.client().plan(request).await
        });
        let plans = plans.await.map_err(self.error(ACTION))?;
        check::planned(plans).map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }

    /// Has the range's engine confirm its images again, and with `deep` reads every file of them;
    /// without references, every image that it has. Dropping the events ends the work.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn verify(
        &self,
        references: &[Reference],
        deep: bool,
    ) -> Result<VerifyEvents, RemoteError> {
        let error = self.error("verifying the range");
        let wanted =
            || async { self.client().verify(check::verify_wanted(references, deep)).await };
        let messages = until_answered(BRIEFLY, wanted).await.map_err(&error)?;
        Ok(events(messages, check::verified, error))
    }

    /// The images that the range's engine has.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn images(&self) -> Result<Vec<RangeImage>, RemoteError> {
        const ACTION: &str = "listing the range's images";
        let (mut images, mut pages) = (Vec::new(), Pages::new());
        while let Some(page_token) = pages.token() {
            let page = until_answered(BRIEFLY, || async {
                let mut request = Request::new(range::next_images(page_token.clone()));
                request.set_timeout(UNARY_DEADLINE);
                self.client().list_images(request).await
            });
            let page = page.await.map_err(self.error(ACTION))?;
            let (piece, next) =
                range::images_listed(page).map_err(|e| RemoteError::unavailable(ACTION, e))?;
            pages.read(next).map_err(|endless| RemoteError::unavailable(ACTION, endless))?;
            images.extend(piece);
        }
        Ok(images)
    }

    /// Returns the state of the agent and its engine.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn status(&self) -> Result<RangeStatus, RemoteError> {
        const ACTION: &str = "asking the range for its status";
        let status = until_answered(BRIEFLY, || async {
            let mut request = Request::new(range::status_request());
            request.set_timeout(UNARY_DEADLINE);
            self.client().get_status(request).await
        });
        let status = status.await.map_err(self.error(ACTION))?;
        status.try_into().map_err(|malformed| RemoteError::unavailable(ACTION, malformed))
    }
}
