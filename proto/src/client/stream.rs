//! A call's messages as events in the core's words.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Status, Streaming};

use crate::convert::Malformed;

/// Converts the messages with `read`. Messages of a kind that this version does not know are
/// skipped; an error is the last item.
pub(super) fn events<M, T, E>(
    messages: Streaming<M>,
    read: fn(M) -> Result<Option<T>, Malformed>,
    error: impl Fn(Status) -> E + Send + 'static,
) -> BoxStream<'static, Result<T, E>>
where
    M: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let state = Some((messages, error));
    let events = stream::unfold(state, move |state| async move {
        let (mut messages, error) = state?;
        match next_event(&mut messages, read).await {
            Ok(Some(event)) => Some((Ok(event), Some((messages, error)))),
            Ok(None) => None,
            Err(status) => Some((Err(error(status)), None)),
        }
    });
    events.boxed()
}

async fn next_event<M, T>(
    messages: &mut Streaming<M>,
    read: fn(M) -> Result<Option<T>, Malformed>,
) -> Result<Option<T>, Status> {
    while let Some(message) = messages.message().await? {
        let event = read(message).map_err(|error| Status::data_loss(error.to_string()))?;
        if event.is_some() {
            return Ok(event);
        }
    }
    Ok(None)
}
