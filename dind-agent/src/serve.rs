//! The served agent: a way from the host agent into the engine, and who may ask for it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::exit::Exit;
use agent::shutdown::Shutdown;
use agent::supervise::note_path;
use anyhow::Context as _;
use futures::future::try_join_all;
use proto::server::{Caps, Health, Listener, RANGE_SERVICES, ServeError, Server, Services};
use tokio::time::{Instant, sleep};
use transfer::Reference;

use crate::config::Serve;
use crate::control::Control;
use crate::engine::RangeEngine;
use crate::parts::Parts;
use crate::syncs::Syncs;
use crate::wanted;

/// How often an engine that does not answer yet is asked: a range is ready this much later than it
/// could be.
const UNTIL_UP: Duration = Duration::from_millis(200);

/// How often an engine that answers is asked whether it still does.
const WHILE_UP: Duration = Duration::from_secs(5);

/// Serves until the end is asked for; then finishes what is under way, within the drain's time.
///
/// # Errors
/// A socket cannot be listened on, an address makes no sense, or serving ended by itself.
pub async fn serve(config: Serve, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let listeners = listen(&config).await?;
    let Parts { engine, host } = Parts::make(&config.path).await?;
    let engine = Arc::new(engine);
    let syncs = Arc::new(Syncs::new(host.clone(), engine.clone(), config.path.concurrency.into()));
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let control = Arc::new(Control {
        engine: engine.clone(),
        host,
        syncs: syncs.clone(),
        started: Instant::now(),
        note: note_path(&config.path.state_dir),
    });
    let servers = listeners.into_iter().map(|listener| {
        tracing::info!(%listener, range = config.path.name, "serving");
        let services = Services::of_range(listener.caller(), control.clone(), &health);
        Server::new(listener, services, Caps::default()).run(shutdown.token())
    });
    let served = async {
        try_join_all(servers).await?;
        syncs.finish().await;
        Ok::<(), ServeError>(())
    };
    tokio::select! {
        done = shutdown.within(config.drain_timeout, served) => match done {
            Some(result) => result?,
            None => tracing::warn!(limit = ?config.drain_timeout, "syncs under way were ended"),
        },
        () = tend(&engine, &health, config.images, &syncs, &shutdown) => {}
    }
    Ok(Exit::Ok)
}

/// Binds before anything is served, so that what cannot be bound is found at once.
async fn listen(config: &Serve) -> anyhow::Result<Vec<Listener>> {
    let path = &config.listen;
    let socket = make_folder(path.parent().unwrap_or(Path::new("/")))
        .and_then(|()| Listener::unix(path, 0o600))
        .with_context(|| format!("listening on {}; see --listen", path.display()))?;
    let mut listeners = vec![socket];
    if let Some(address) = config.inspect_address()? {
        let inspect = Listener::tcp(address).await;
        listeners.push(inspect.with_context(|| format!("listening on {address}; see --inspect"))?);
    }
    Ok(listeners)
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Brings in what is wanted from the start, and tells whether the range is well: it is once its
/// engine answers and every wanted image is there, and as long as the engine answers. Never returns
/// before draining began.
async fn tend(
    engine: &RangeEngine,
    health: &Health,
    wanted: Vec<Reference>,
    syncs: &Syncs,
    shutdown: &Shutdown,
) {
    let tending = async {
        until_up(engine).await;
        wanted::bring_in(wanted, syncs).await;
        loop {
            health.set(true).await;
            while_up(engine).await;
            tracing::warn!(engine = engine.address(), "the engine does not answer");
            health.set(false).await;
            until_up(engine).await;
            tracing::info!(engine = engine.address(), "the engine answers again");
        }
    };
    tokio::select! {
        () = tending => {}
        () = shutdown.draining() => {
            health.set(false).await;
            std::future::pending::<()>().await;
        }
    }
}

async fn until_up(engine: &RangeEngine) {
    while engine.ping().await.is_err() {
        sleep(UNTIL_UP).await;
    }
}

async fn while_up(engine: &RangeEngine) {
    while engine.ping().await.is_ok() {
        sleep(WHILE_UP).await;
    }
}
