//! The engine's own word that its images changed.

use futures::StreamExt as _;
use futures::stream;

use crate::docker::api::error::EngineError;
use crate::docker::api::http::percent_encoded;
use crate::docker::api::{Docker, UNARY_DEADLINE};
use crate::engine::ImageEvents;

impl Docker {
    /// Follows what happens to the engine's images: taken in, named, unnamed, deleted.
    ///
    /// An event does not say what the engine has now: the caller lists the images again. An engine
    /// answers a moment before it begins to follow, so a change at that moment has no event.
    ///
    /// # Errors
    /// Any [`EngineError`]; not found where the engine has no events.
    pub async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        const ACTION: &str = "following its image events";
        let path = format!("/events?filters={}", percent_encoded(r#"{"type":["image"]}"#));
        let answer = self.http.get(ACTION, &path, UNARY_DEADLINE).await?;
        let engine = self.address.clone();
        // A piece holds one event or several. Nothing in them is needed.
        let events = stream::unfold((answer, engine), |(mut answer, engine)| async {
            let event = answer.next_piece().await?;
            let event = event.map(drop);
            let event = event.map_err(|error| EngineError::transport(&engine, ACTION, error));
            Some((event, (answer, engine)))
        });
        Ok(events.boxed())
    }
}
