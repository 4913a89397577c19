//! One sync, without a served agent: images in, results out, done.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use agent::exit::Exit;
use agent::shutdown::Shutdown;
use anyhow::Context as _;
use transfer::pull::Puller;
use transfer::{Event, ImageSink as _, Outcome};

use crate::config::{Format, Sync};
use crate::parts::Parts;
use crate::report;

/// How long the host agent may take to say that it is there.
const HOST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Brings the images in and prints how it went. A signal ends it; no name was moved then by what
/// was not finished.
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
    let Parts { engine, host } = Parts::make(&config.path).await?;
    let info = engine.info().await.with_context(|| {
        format!("no engine to bring images into at {}; see --engine", engine.address())
    })?;
    agent::health::check(host.endpoint(), HOST_ANSWERS_WITHIN).await.with_context(|| {
        format!("no host agent to take images from at {}; see --host", config.path.host)
    })?;
    let puller = Puller::new(host, Arc::new(engine), config.path.concurrency.into());
    let reports = puller.pull(&config.images, Arc::new(log)).await;
    let lines = report::lines(&config.path.name, &info, &reports);
    let text = match config.format {
        Format::Table => report::table(&lines),
        Format::Json => report::json(&lines).context("writing results as JSON")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("printing results")?;
    let failed = reports.iter().any(|report| report.outcome == Outcome::Failed);
    Ok(if failed { Exit::SomeFailed } else { Exit::Ok })
}

fn log(event: Event) {
    tracing::debug!(image = %event.reference, kind = ?event.kind);
}
