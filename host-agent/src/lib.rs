//! The host agent: serves what this host's engine holds.
//!
//! ```text
//!   engine, folder, archive ──► HostEngine ──► Library ──► a listener per caller
//!                                │    ▲         granted,    admin.sock, TCP,
//!                                ▼    │         leased      one socket a range
//!                            MeteredStore(FsStore)
//!                            counted, verified, each layer once; or none while a range is alone
//! ```

pub mod admin;
pub mod config;
pub mod engine;
pub mod grants;
pub mod link;
pub mod ranges;
pub mod record;
pub mod state;
pub mod store;
pub mod watcher;

mod listeners;
mod names;
mod notify;
mod status;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::Library;
use control::lending::Terms;
use futures::future::try_join_all;
use process::exit::Exit;
use process::run::{self, Threads};
use process::shutdown::Shutdown;
use process::supervise::{Child, end_with_supervisor, supervise};
use proto::Endpoint;
use proto::server::{Caps, HOST_SERVICES, Health, Listener, ServeError, Server};
use tokio::time::{Instant, sleep};
use transfer::metered::MeteredStore;
use transfer::store::FsStore;

use admin::Admin;
use config::{Command, Config, Run, Serve};
use engine::{HostEngine, Near};
use grants::Grants;
use ranges::Ranges;
use state::{StateDir, admin_socket};

/// Interval of checks that the engine answers.
const ENGINE_WATCH: Duration = Duration::from_secs(2);

/// Time beyond its drain limit before a supervised agent is killed: for the last file work, and for
/// the last spans on their way to a collector.
const AGENT_END: Duration = Duration::from_secs(5);

/// The whole process, from its command line to its exit code.
///
/// It is not in the binary: the body of an `async fn` is compiled in the crate that runs it, and this
/// crate has most of them compiled anyhow.
#[must_use]
pub fn main() -> ExitCode {
    let config = Config::read();
    let threads = threads(&config.command);
    run::run("longshore-host-agent", &config.telemetry, threads, |shutdown| {
        run(config.command, shutdown)
    })
}

/// Does what the command line says.
async fn run(command: Command, shutdown: Shutdown) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(config) => serve(config, shutdown).await,
        Command::Run(run) if run.supervised => {
            end_with_supervisor().context("binding the agent's life to its supervisor's")?;
            serve(run.serve, shutdown).await
        }
        Command::Run(run) => supervise(vec![child(&run)?], shutdown).await,
        Command::Healthcheck(config) => {
            let admin = Endpoint::unix(admin_socket(&config.state_dir));
            process::health::check(&admin, config.timeout).await?;
            Ok(Exit::Ok)
        }
        Command::Status(config) => status::status(config).await,
        Command::Completions(completions) => completions.print::<Config>(),
        Command::Manual(manual) => manual.write::<Config>(),
    }
}

/// Threads for a command: a supervisor only waits.
fn threads(command: &Command) -> Threads {
    match command {
        Command::Run(Run { supervised: false, .. })
        | Command::Healthcheck(_)
        | Command::Status(_)
        | Command::Completions(_)
        | Command::Manual(_) => Threads::One,
        _ => Threads::Cores,
    }
}

/// The agent as a supervisor's child: this same program with the same arguments, told that it is
/// supervised.
fn child(run: &Run) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let arguments = std::env::args_os().skip(1).chain(["--supervised".into()]);
    Ok(Child {
        name: "agent",
        command: std::iter::once(program.into_os_string()).chain(arguments).collect(),
        environment: Vec::new(),
        stop_limit: run.serve.drain_timeout + AGENT_END,
        reloads: false,
        pid_files: Vec::new(),
        note: None,
        must_begin: true,
        hint: "the agent is this program itself, whose file must stay where it is",
    })
}

/// Serves until the end is asked for; then finishes the streams under way, within the drain's time.
///
/// # Errors
/// The state cannot be opened, a socket cannot be listened on, or serving ended by itself.
pub async fn serve(config: Serve, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if let Some(grant) = config.grants.iter().find(|grant| !config.ranges.contains(&grant.range)) {
        anyhow::bail!(
            "--grant {}={} is for a range that is not served from the start: add --range {}",
            grant.range,
            grant.pattern,
            grant.range
        );
    }
    let state = StateDir::open(&config.state_dir).with_context(|| {
        format!("opening the state folder {}; see --state-dir", config.state_dir.display())
    })?;
    let store = store::open(&state).await?;
    store.set_reserve(config.store.policy().reserve);
    let listeners = listen(&config, &state).await?;
    let admin = compose(&config, state, store, &shutdown).await?;
    admin.restore().await.context("reading the records of ranges")?;
    for name in &config.ranges {
        let of_range = config.grants.iter().filter(|grant| grant.range == *name);
        let patterns = of_range.map(|grant| grant.pattern.clone()).collect();
        let served = admin.serve_from_the_start(name, patterns).await;
        served.with_context(|| format!("serving range {name}"))?;
    }
    let servers = listeners.into_iter().map(|listener| {
        tracing::info!(%listener, "serving");
        let services = admin.services(listener.caller());
        Server::new(listener, services, Caps::default()).run(shutdown.token())
    });
    let served = async {
        try_join_all(servers).await?;
        admin.ranges.finish().await;
        admin.engine.drained().await;
        Ok::<(), ServeError>(())
    };
    tokio::select! {
        done = shutdown.within(config.drain_timeout, served) => match done {
            Some(result) => result?,
            None => tracing::warn!(limit = ?config.drain_timeout, "streams under way were ended"),
        },
        () = tend(&admin, &shutdown) => {}
    }
    Ok(Exit::Ok)
}

/// The agent in one expression: an engine's images, exported into a store that counts, lent to
/// whom they are granted.
async fn compose(
    config: &Serve,
    state: StateDir,
    store: FsStore,
    shutdown: &Shutdown,
) -> anyhow::Result<Admin> {
    let metered = MeteredStore::new(store.clone());
    let ingests = metered.ingests().clone();
    let grants = Grants::default();
    let ranges = Ranges::new(state, grants.clone(), shutdown.token(), config.remote_any);
    let alone = config.store.keep_layers.alone(ranges.count());
    let near = Near { store: Arc::new(metered), alone };
    let engine = Arc::new(HostEngine::at(config.source.origin(), near).await);
    let terms = Terms {
        lease: config.lease,
        reads: config.reads.into(),
        reads_per_caller: config.reads_per_range.into(),
        bytes_in_flight: config.in_flight.0,
        bytes_in_flight_per_caller: config.in_flight_per_range.0,
    };
    Ok(Admin {
        library: Arc::new(Library::new(
            engine.clone(),
            Arc::new(grants.clone()),
            store.leases().clone(),
            terms,
        )),
        engine,
        store,
        policy: config.store.policy(),
        ingests,
        ranges: Arc::new(ranges),
        grants,
        health: Health::not_serving(&HOST_SERVICES).await,
        started: Instant::now(),
    })
}

/// The administrator's listeners, bound before anything is served.
async fn listen(config: &Serve, state: &StateDir) -> anyhow::Result<Vec<Listener>> {
    let path = state.admin_socket();
    let socket =
        Listener::unix(&path, 0o600).with_context(|| format!("listening on {}", path.display()))?;
    let mut listeners = vec![socket];
    if let Some(address) = config.inspect_address()? {
        let inspect = Listener::tcp(address).await.with_context(|| {
            format!("listening on {address}; choose another with --inspect, or `off`")
        })?;
        listeners.push(inspect);
    }
    Ok(listeners)
}

/// Tells the service manager that the agent is there, and everyone whether its engine answers.
/// Never returns before draining began.
async fn tend(admin: &Admin, shutdown: &Shutdown) {
    let manager = std::env::var_os("NOTIFY_SOCKET");
    notify::tell(manager.as_deref(), notify::READY);
    tokio::select! {
        () = watch_engine(admin) => {}
        () = store::keep(&admin.store, admin.policy) => {}
        () = names::keep(admin) => {}
        () = shutdown.draining() => {
            notify::tell(manager.as_deref(), notify::STOPPING);
            admin.health.set(false).await;
            std::future::pending::<()>().await;
        }
    }
}

async fn watch_engine(admin: &Admin) {
    let mut answered = None;
    loop {
        let answers = admin.engine.ping().await;
        if answered != Some(answers.is_ok()) {
            let before = answered.replace(answers.is_ok());
            admin.health.set(answers.is_ok()).await;
            match answers {
                Ok(()) => {
                    tracing::info!("the engine answers");
                    if before == Some(false) {
                        // If it stops answering at this moment, the next look finds out.
                        let _looked = admin.engine.came_back().await;
                    }
                }
                Err(error) => {
                    let error = transfer::explain(&error);
                    tracing::warn!(error, "the engine does not answer");
                }
            }
        }
        sleep(ENGINE_WATCH).await;
    }
}
