//! The dind agent: keeps the engine of one range in step with the wanted images.
//!
//! ```text
//!   run   = PID 1 of a range: a supervisor, with the engine and `serve` as its children
//!   serve = the keeper: host agent ──puller──► engine, a link to the host agent, RangeService inside
//!   sync  = the same way once, and the result on stdout
//! ```

pub mod config;
pub mod engine;
pub mod registry;
pub mod seed;

mod about;
mod bring;
mod healthcheck;
mod keeper;
mod link;
mod plan;
mod report;
mod serve;
mod service;
mod sync_command;
mod syncs;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use ::engine::docker::daemon;
use anyhow::Context as _;
use process::exit::Exit;
use process::run::{self, Threads};
use process::shutdown::Shutdown;
use process::supervise::{Child, end_with_supervisor, note_path, supervise};

pub use serve::serve;

use config::{Command, Config, Run, Serve};

/// Time beyond its drain limit before an agent is killed: for the last file work, and for the last
/// spans on their way to a collector.
const AGENT_END: Duration = Duration::from_secs(5);

/// The whole process, from its command line to its exit code.
///
/// It is not in the binary: the body of an `async fn` is compiled in the crate that runs it, and this
/// crate has most of them compiled anyhow.
#[must_use]
pub fn main() -> ExitCode {
    let config = Config::read();
    let threads = threads(&config.command);
    run::run("longshore-dind-agent", &config.telemetry, threads, |shutdown| {
        run(config.command, shutdown)
    })
}

/// Threads for a command: a supervisor only waits.
fn threads(command: &Command) -> Threads {
    match command {
        Command::Run(Run { supervised: false, .. })
        | Command::Healthcheck(_)
        | Command::Seed(_)
        | Command::Completions(_)
        | Command::Manual(_) => Threads::One,
        _ => Threads::Cores,
    }
}

/// Does what the command line says.
///
/// # Errors
/// What could not be done, on what, why, and what to do about it.
pub async fn run(command: Command, shutdown: Shutdown) -> anyhow::Result<Exit> {
    match command {
        Command::Run(run) if run.supervised => {
            end_with_supervisor().context("binding the agent's life to its supervisor's")?;
            let registry = run.serve.registry.in_range();
            serve(Serve { registry, ..run.serve }, shutdown).await
        }
        Command::Run(run) => supervise(children(run)?, shutdown).await,
        Command::Serve(config) => serve(config, shutdown).await,
        Command::Sync(config) => sync_command::sync(config, shutdown).await,
        Command::Healthcheck(config) => healthcheck::healthcheck(config).await,
        Command::Seed(seed) => seed::run(seed).await,
        Command::Completions(completions) => completions.print::<Config>(),
        Command::Manual(manual) => manual.write::<Config>(),
    }
}

/// The engine, and the agent, which is this same program with the same arguments, told that it is
/// supervised.
fn children(run: Run) -> anyhow::Result<Vec<Child>> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut agent: Vec<_> = std::iter::once(program.into_os_string())
        .chain(std::env::args_os().skip(1).take_while(|argument| argument != "--"))
        .collect();
    agent.push("--supervised".into());
    agent.push("--".into());
    agent.extend(run.entry_point.iter().cloned());
    let registry = run.serve.registry.clone().in_range().address();
    let command = match registry.filter(|_| run.registry_mirror) {
        Some(registry) => daemon::with_mirror(run.entry_point, registry),
        None => run.entry_point,
    };
    let engine = Child {
        name: "engine",
        command,
        environment: daemon::environment(std::env::var_os(daemon::PLACES).is_some()),
        stop_limit: run.engine_stop_timeout,
        reloads: true,
        pid_files: run.pid_files,
        note: Some(note_path(&run.serve.path.state_dir)),
        must_begin: false,
        hint: "give the image's own entry point after `--`, as `docker inspect` shows it",
    };
    let agent = Child {
        name: "agent",
        command: agent,
        environment: Vec::new(),
        stop_limit: run.serve.drain_timeout + AGENT_END,
        reloads: false,
        pid_files: Vec::new(),
        note: None,
        must_begin: false,
        hint: "the agent is this program itself, whose file must stay where it is",
    };
    Ok(vec![engine, agent])
}
