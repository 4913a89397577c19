//! Contents of the range's engine, as its events and its list report them.

use std::time::Duration;

use async_trait::async_trait;
use engine::{EngineError, HeldImage, ImageEvents};
use futures::StreamExt as _;
use futures::future::pending;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use transfer::EngineInfo;

use super::Keeper;
use crate::engine::RangeEngine;

/// Interval of checks of an engine that does not answer yet: it delays a range by at most this
/// much.
const UNTIL_UP: Duration = Duration::from_millis(200);

/// Interval of checks of an engine that answers.
const WHILE_UP: Duration = Duration::from_secs(1);

/// Maximum time for the engine to answer. One that unpacks layers on few cores takes seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Pause between an event and the list that follows it: a load or a build is many events.
const AFTER_EVENT: Duration = Duration::from_millis(300);

/// Shortest time between two lists that follow events.
const BETWEEN_LISTS: Duration = Duration::from_secs(2);

/// Interval of lists without an event. An engine begins to send events a moment after it says so,
/// and some changes have none.
const LIST_EVERY: Duration = Duration::from_secs(30);

/// The same for an engine without events.
const LIST_OFTEN: Duration = Duration::from_secs(5);

/// Interval of inspections of every image, also of the proven ones: a layer can be lost without an
/// event.
const INSPECT_EVERY: Duration = Duration::from_secs(300);

/// An engine, as far as the keeper asks it.
#[async_trait]
pub(crate) trait WatchedEngine: Send + Sync {
    /// The address as people write it.
    fn address(&self) -> &str;

    /// Returns the engine's identity.
    async fn who(&self) -> Result<EngineInfo, EngineError>;

    /// Asks for a sign of life.
    async fn ping(&self) -> Result<(), EngineError>;

    /// Every image; those that are proven in `known` need not be inspected again.
    async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError>;

    /// An item for each change of images or names.
    async fn image_events(&self) -> Result<ImageEvents, EngineError>;
}

#[async_trait]
impl WatchedEngine for RangeEngine {
    fn address(&self) -> &str {
        self.address()
    }

    async fn who(&self) -> Result<EngineInfo, EngineError> {
        self.who().await
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.ping().await
    }

    async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        self.images_since(known).await
    }

    async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        self.image_events().await
    }
}

/// Keeps the table in step with what the engine has, until it is dropped.
pub(crate) async fn watch_engine(engine: &dyn WatchedEngine, keeper: &Keeper) {
    loop {
        match answer(engine, engine.who()).await {
            Ok(info) => {
                let reason = Watch::begin(engine, keeper, info).await.run().await;
                tracing::warn!(engine = engine.address(), reason, "the engine does not answer");
                keeper.act(|table| table.engine_down(reason));
            }
            Err(reason) => {
                keeper.act(|table| table.engine_down(reason));
                sleep(UNTIL_UP).await;
            }
        }
    }
}

/// Returns the engine's answer, or the reason why there is none.
async fn answer<T>(
    engine: &dyn WatchedEngine,
    asking: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, String> {
    match timeout(ANSWERS_WITHIN, asking).await {
        Ok(answer) => answer.map_err(|error| transfer::explain(&error)),
        Err(_) => Err(format!(
            "the engine at {} did not answer within {} s",
            engine.address(),
            ANSWERS_WITHIN.as_secs()
        )),
    }
}

/// An engine that answers.
struct Watch<'a> {
    engine: &'a dyn WatchedEngine,
    keeper: &'a Keeper,
    info: EngineInfo,
    events: Option<ImageEvents>,
    known: Vec<HeldImage>,
    inspect_at: Instant,
    listed_at: Instant,
    list_at: Instant,
}

impl<'a> Watch<'a> {
    async fn begin(engine: &'a dyn WatchedEngine, keeper: &'a Keeper, info: EngineInfo) -> Self {
        let events = open(engine).await;
        let now = Instant::now();
        let (inspect_at, listed_at, list_at, known) = (now, now, now, Vec::new());
        Self { engine, keeper, info, events, known, inspect_at, listed_at, list_at }
    }

    /// Returns, with the reason, when the engine does not answer any more.
    async fn run(&mut self) -> String {
        let mut ping_at = Instant::now() + WHILE_UP;
        loop {
            tokio::select! {
                () = sleep_until(self.list_at) => self.list().await,
                event = next(&mut self.events) => self.take(event),
                () = sleep_until(ping_at) => {
                    if let Err(reason) = answer(self.engine, self.engine.ping()).await {
                        return reason;
                    }
                    ping_at = Instant::now() + WHILE_UP;
                }
            }
        }
    }

    /// Has the images listed soon. A stream that ended is opened again with the next list.
    fn take(&mut self, event: Option<Result<(), EngineError>>) {
        if !matches!(event, Some(Ok(()))) {
            self.events = None;
        }
        let soon = (Instant::now() + AFTER_EVENT).max(self.listed_at + BETWEEN_LISTS);
        self.list_at = self.list_at.min(soon);
    }

    async fn list(&mut self) {
        if self.events.is_none() {
            self.events = open(self.engine).await;
        }
        let began = Instant::now();
        let inspects = self.inspect_at <= began;
        let known = if inspects { &[][..] } else { &self.known };
        match self.engine.images_since(known).await {
            Ok(images) => {
                if inspects {
                    self.inspect_at = began + INSPECT_EVERY;
                }
                self.keeper.act(|table| table.hold(&self.info, &images, began));
                self.known = images;
            }
            Err(error) => {
                let error = transfer::explain(&error);
                tracing::debug!(engine = self.engine.address(), error, "its images are not listed");
            }
        }
        let every = if self.events.is_some() { LIST_EVERY } else { LIST_OFTEN };
        (self.listed_at, self.list_at) = (began, Instant::now() + every);
    }
}

/// The engine's events; `None` if it has none.
async fn open(engine: &dyn WatchedEngine) -> Option<ImageEvents> {
    let events = engine.image_events().await;
    let failed = |error: &EngineError| {
        let error = transfer::explain(error);
        tracing::debug!(engine = engine.address(), error, "it sends no events");
    };
    events.inspect_err(failed).ok()
}

async fn next(events: &mut Option<ImageEvents>) -> Option<Result<(), EngineError>> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}
