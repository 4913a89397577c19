//! The range's end of a link to its host.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tonic::Status;
use tonic::transport::Channel;

use super::stream::events;
use crate::channel::Endpoint;
use crate::convert::{link, status};
use crate::failure::Failure;
use crate::wire::{self, MAX_LINK_MESSAGE};
use control::link::{FromHostStream, FromRange, LinkError, LinkRange};

/// The host agent behind an endpoint, as a range attaches to it. Each link that breaks is followed
/// by a new one on a connection that comes back by itself.
#[derive(Clone, Debug)]
pub struct LinkClient {
    endpoint: Endpoint,
    channel: Channel,
}

impl LinkClient {
    /// The host agent at `endpoint`; nothing is connected yet. Must be called within a runtime.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let channel = endpoint.channel();
        Self { endpoint, channel }
    }
}

#[async_trait]
impl LinkRange for LinkClient {
    async fn attach(
        &self,
        messages: BoxStream<'static, FromRange>,
    ) -> Result<FromHostStream, LinkError> {
        let endpoint = self.endpoint.to_string();
        let error = move |status: Status| status::to_link_error(Failure::new(&endpoint, status));
        let mut client =
            wire::LinkClient::new(self.channel.clone()).max_decoding_message_size(MAX_LINK_MESSAGE);
        let attached = match client.attach(link::Requests(messages)).await {
            Ok(attached) => attached,
            Err(status) => return Err(error(status)),
        };
        Ok(events(attached.into_inner(), link::told, error))
    }
}
