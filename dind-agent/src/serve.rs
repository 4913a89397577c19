//! The served agent: a way from the host agent into the engine, and who may ask for it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::try_join_all;
use process::exit::Exit;
use process::shutdown::Shutdown;
use process::supervise::note_path;
use proto::RemoteHost;
use proto::server::{Caps, Health, Listener, RANGE_SERVICES, ServeError, Server, Services};
use tokio::time::Instant;

use crate::config::Serve;
use crate::control::Control;
use crate::engine::RangeEngine;
use crate::parts::Parts;
use crate::syncs::Syncs;
use crate::verify::Checks;
use crate::wanted::Keeper;

/// Serves until the end is asked for; then finishes what is under way, within the drain's time.
///
/// # Errors
/// A socket cannot be listened on, an address makes no sense, or serving ended by itself.
pub async fn serve(config: Serve, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let listeners = listen(&config).await?;
    let Parts { engine, host } = Parts::make(&config.path).await?;
    let registry = config.registry.listen(host.clone()).await?;
    engine.look().await;
    let engine = Arc::new(engine);
    let syncs = Arc::new(Syncs::new(host.clone(), engine.clone(), config.path.concurrency.into()));
    let checks = Arc::new(Checks::new(engine.clone()));
    let keeper = Arc::new(Keeper::new(config.images));
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let control = Arc::new(Control {
        engine: engine.clone(),
        host: host.clone(),
        syncs: syncs.clone(),
        checks: checks.clone(),
        keeper: keeper.clone(),
        started: Instant::now(),
        note: note_path(&config.path.state_dir),
    });
    let servers = listeners.into_iter().map(|listener| {
        tracing::info!(%listener, range = config.path.name, "serving");
        let services = Services::of_range(listener.caller(), control.clone(), &health);
        Server::new(listener, services, Caps::default()).run(shutdown.token())
    });
    let pulls = async {
        if let Some(registry) = registry {
            registry.serve(shutdown.draining()).await;
        }
        Ok(())
    };
    let served = async {
        tokio::try_join!(try_join_all(servers), pulls)?;
        syncs.finish().await;
        checks.finish().await;
        Ok::<(), ServeError>(())
    };
    tokio::select! {
        done = shutdown.within(config.drain_timeout, served) => match done {
            Some(result) => result?,
            None => tracing::warn!(limit = ?config.drain_timeout, "syncs under way were ended"),
        },
        () = tend(&engine, &host, &health, &keeper, &syncs, &shutdown) => {}
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

/// Keeps the engine in step, and tells whether the range is well: it is once its engine answers and
/// all that was wanted at first is there, and as long as the engine answers. Never returns before
/// draining began.
async fn tend(
    engine: &RangeEngine,
    host: &RemoteHost,
    health: &Health,
    keeper: &Keeper,
    syncs: &Syncs,
    shutdown: &Shutdown,
) {
    let tending = async {
        tokio::join!(keeper.keep(engine, host, syncs), tell(keeper, health));
    };
    tokio::select! {
        () = tending => {}
        () = shutdown.draining() => {
            health.set(false).await;
            std::future::pending::<()>().await;
        }
    }
}

async fn tell(keeper: &Keeper, health: &Health) {
    let mut standing = keeper.watch();
    let mut was_complete = false;
    while standing.changed().await.is_ok() {
        let now = standing.borrow_and_update().clone();
        was_complete |= now.complete;
        health.set(was_complete && now.engine_up).await;
    }
}
