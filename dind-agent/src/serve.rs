//! The served agent: its parts, put together, and its sockets.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::try_join_all;
use process::exit::Exit;
use process::shutdown::Shutdown;
use process::supervise::note_path;
use proto::client::Manners;
use proto::server::{Caps, Health, Listener, RANGE_SERVICES, ServeError, Server, Services};
use proto::{LinkClient, RemoteHost};
use transfer::pull::Puller;

use crate::about::About;
use crate::config::{self, Serve};
use crate::engine::RangeEngine;
use crate::keeper::{Keeper, watch_engine};
use crate::link::Link;
use crate::service::Service;
use crate::syncs::Syncs;
use crate::verify::Checks;

/// Serves until shutdown, then finishes requests under way within the drain limit.
///
/// # Errors
/// A socket cannot be listened on, an address makes no sense, or serving ended by itself.
pub async fn serve(config: Serve, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let listeners = listen(&config).await?;
    let (engine, host) = ends(&config.path)?;
    let registry = config.registry.listen(host.clone()).await?;
    engine.look().await;
    let puller = Puller::new(host.clone(), engine.clone(), config.path.concurrency.into());
    let keeper = Arc::new(Keeper::new(puller, config.images));
    let syncs = Arc::new(Syncs::new(keeper.clone()));
    let checks = Arc::new(Checks::new(engine.clone()));
    let about = Arc::new(About::starting(note_path(&config.path.state_dir)));
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let link = Link { keeper: keeper.clone(), about: about.clone(), checks: checks.clone() };
    let to_host = LinkClient::new(config.path.host.clone());
    let service = Arc::new(Service {
        engine: engine.clone(),
        host,
        syncs: syncs.clone(),
        checks: checks.clone(),
        keeper: keeper.clone(),
        about,
    });
    let servers = listeners.into_iter().map(|listener| {
        tracing::info!(%listener, range = config.path.name, "serving");
        let services = Services::of_range(listener.caller(), service.clone(), &health);
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
        syncs.close();
        keeper.finish().await;
        checks.finish().await;
        Ok::<(), ServeError>(())
    };
    let kept = async {
        tokio::join!(
            keeper.keep(),
            watch_engine(&*engine, &keeper),
            link.keep(&to_host),
            tell(&keeper, &health, &shutdown),
        )
    };
    tokio::select! {
        done = shutdown.within(config.drain_timeout, served) => match done {
            Some(result) => result?,
            None => tracing::warn!(limit = ?config.drain_timeout, "syncs under way were ended"),
        },
        _never = kept => {}
    }
    Ok(Exit::Ok)
}

/// Both ends of the way of images, of which neither needs to answer yet.
///
/// # Errors
/// The state folder cannot be made, or no engine will ever answer at the address.
pub(crate) fn ends(path: &config::Path) -> anyhow::Result<(Arc<RangeEngine>, Arc<RemoteHost>)> {
    std::fs::create_dir_all(&path.state_dir)
        .with_context(|| format!("making the state folder {}", path.state_dir.display()))?;
    let engine = RangeEngine::at(&path.engine, path.state_dir.join("journal.json"))?
        .loading_by(path.load_way, path.containerd_socket.clone());
    let host = RemoteHost::new(path.host.clone(), Manners::default());
    Ok((Arc::new(engine), Arc::new(host)))
}

/// Binds before anything is served, so that an address that cannot be bound fails at once.
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

/// Says whether the range is well: once its engine answered and every wanted image was present, and
/// from then on while the engine answers and no wanted image failed, was removed or was replaced. An
/// image that is wanted later and still on its way makes no range unwell.
async fn tell(keeper: &Keeper, health: &Health, shutdown: &Shutdown) {
    let mut versions = keeper.versions();
    let (mut was_complete, mut was_well) = (false, false);
    loop {
        let standing = keeper.read().standing();
        was_complete |= keeper.is_settled() && standing.is_complete();
        let is_well = was_complete && standing.engine_up && standing.lost == 0;
        if std::mem::replace(&mut was_well, is_well) != is_well {
            health.set(is_well).await;
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            () = shutdown.draining() => break,
        }
    }
    health.set(false).await;
    std::future::pending::<()>().await;
}
