//! The command `sync`: brings images in once, and prints the results.
//!
//! An agent that is served beside the engine already does the work: it knows which blobs it brought
//! before, and never loads one image twice at once.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use control::range::{RangeStatus, Reach, SyncEvent};
use futures::TryStreamExt as _;
use process::exit::Exit;
use process::shutdown::Shutdown;
use proto::client::is_serving;
use proto::{Endpoint, RangeClient, RemoteHost};
use tokio::time::{Instant, sleep, timeout};
use transfer::event::{EventKind, ImageReport};
use transfer::pull::Puller;
use transfer::{EngineInfo, Event, ImageSource as _, Outcome, Reference};

use crate::config::{Format, Sync};
use crate::report;
use crate::serve::ends;

/// Maximum time for the host agent to answer.
const HOST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Maximum time until an agent that has just started has asked its engine.
const ENGINE_ASKED_WITHIN: Duration = Duration::from_secs(15);

/// Pause between two looks at such an agent.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Brings the images in and prints the results. A signal ends it; an image that is not finished then
/// has moved no name.
///
/// # Errors
/// The engine or the host agent does not answer.
pub(crate) async fn sync(config: Sync, shutdown: Shutdown) -> anyhow::Result<Exit> {
    tokio::select! {
        exit = Box::pin(sync_all(config)) => exit,
        () = shutdown.draining() => Ok(Exit::Interrupted),
    }
}

async fn sync_all(config: Sync) -> anyhow::Result<Exit> {
    let (engine, reports) = match served_agent(&config).await {
        Some(agent) => through(&agent, &config.images).await?,
        None => alone(&config).await?,
    };
    let lines = report::lines(&config.path.name, &engine, &reports);
    let text = match config.format {
        Format::Table => report::table(&lines),
        Format::Json => report::json(&lines).context("writing results as JSON")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("printing results")?;
    let failed = reports.iter().any(|report| report.outcome == Outcome::Failed);
    Ok(if failed { Exit::SomeFailed } else { Exit::Ok })
}

/// The agent that is served beside this engine; `None` where none answers or none may be asked.
async fn served_agent(config: &Sync) -> Option<RangeClient> {
    if !config.may_ask() {
        return None;
    }
    let endpoint = Endpoint::unix(&config.listen);
    match is_serving(&endpoint).await {
        Ok(_) => Some(RangeClient::new(endpoint)),
        Err(error) => {
            tracing::debug!(%endpoint, %error, "no agent to ask");
            None
        }
    }
}

async fn through(
    agent: &RangeClient,
    images: &[Reference],
) -> anyhow::Result<(EngineInfo, Vec<ImageReport>)> {
    let status = known_status(agent).await?;
    let engine = match status.engine {
        Reach::Up(engine) => engine,
        Reach::Down(why) => bail!("the range's agent has no engine to bring images into: {why}"),
        Reach::Unknown => bail!("the range's agent has not asked its engine yet; sync again"),
    };
    if let Reach::Down(why) = status.host {
        bail!("the range's agent has no host agent to take images from: {why}");
    }
    let mut events = agent.sync(images).await?;
    let mut reports = Vec::new();
    while let Some(event) = events.try_next().await? {
        if let SyncEvent::Image(Event { kind: EventKind::Done(report), .. }) = event {
            reports.push(report);
        }
    }
    reports.sort_by_key(|report| images.iter().position(|image| *image == report.reference));
    Ok((engine, reports))
}

/// The status of an agent that has asked its engine. One that has just started needs a moment; after
/// [`ENGINE_ASKED_WITHIN`] the status says that the engine is unknown.
async fn known_status(agent: &RangeClient) -> anyhow::Result<RangeStatus> {
    let started = Instant::now();
    loop {
        let status = agent.status().await?;
        let is_known = !matches!(status.engine, Reach::Unknown);
        if is_known || ENGINE_ASKED_WITHIN < started.elapsed() {
            return Ok(status);
        }
        sleep(ASK_EVERY).await;
    }
}

async fn alone(config: &Sync) -> anyhow::Result<(EngineInfo, Vec<ImageReport>)> {
    let (engine, host) = ends(&config.path)?;
    engine.look().await;
    let info = engine.who().await.with_context(|| {
        format!("no engine to bring images into at {}; see --engine", engine.address())
    })?;
    host_serves(&host).await.with_context(|| {
        format!("no host agent to take images from at {}; see --host", config.path.host)
    })?;
    let puller = Puller::new(host, engine, config.path.concurrency.into());
    let reports = puller.pull(&config.images, Arc::new(log)).await;
    Ok((info, reports))
}

/// Checks that the host agent serves images. One that does not can give the reason.
async fn host_serves(host: &RemoteHost) -> anyhow::Result<()> {
    let Err(error) = process::health::check(host.endpoint(), HOST_ANSWERS_WITHIN).await else {
        return Ok(());
    };
    match timeout(HOST_ANSWERS_WITHIN, host.list()).await {
        Ok(Err(why)) => Err(error.context(transfer::explain(&why))),
        Ok(Ok(_)) | Err(_) => Err(error),
    }
}

fn log(event: Event) {
    tracing::debug!(image = %event.reference, kind = ?event.kind);
}
