//! PID 1 of a range: a reaping supervisor with the engine and the agent as its children.
//!
//! It serves nothing and holds no layer, so there is little in it that could end a range. Whatever
//! is orphaned in the container becomes its child and is reaped. The agent starts beside the
//! engine and waits for it; an engine or agent that ends is started again after a pause.
//!
//! ```text
//! SIGTERM ─► agent drains, ends ─► SIGTERM to the engine, it ends ─► exit 0
//! SIGHUP  ─► passed on to the engine, which reads its configuration again
//! ```
//!
//! This process must never use tokio's own children: both would wait for the same pids.

mod note;
pub(crate) mod pidfile;
mod service;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::exit::Exit;
use agent::shutdown::Shutdown;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub use note::{Note, path as note_path};
use service::Service;

/// What is supervised.
#[derive(Clone, Debug)]
pub struct Supervision {
    /// The engine's entry point with its arguments; never empty.
    pub engine: Vec<OsString>,
    /// The agent's own program with its arguments; never empty.
    pub agent: Vec<OsString>,
    /// Pid files that would keep the engine from starting when they are left from before.
    pub pid_files: Vec<PathBuf>,
    /// Where the agent reads how the engine has fared.
    pub note: PathBuf,
    /// How long the agent has to end once asked.
    pub agent_stop: Duration,
    /// How long the engine has to end once asked.
    pub engine_stop: Duration,
}

/// Runs engine and agent until the end is asked for, and stops them in order.
///
/// Cancel safe: dropping the future kills both.
///
/// # Errors
/// Signals cannot be listened to, or a program cannot be started even once.
pub async fn supervise(supervision: Supervision, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let mut family = Family::gather(supervision)?;
    family.start_first()?;
    tokio::select! {
        () = family.keep_alive() => {}
        () = shutdown.draining() => {}
    }
    family.stop().await;
    Ok(Exit::Ok)
}

struct Family {
    engine: Service,
    agent: Service,
    supervision: Supervision,
    child_ended: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    note: Note,
}

impl Family {
    fn gather(supervision: Supervision) -> anyhow::Result<Self> {
        let child_ended = signal(SignalKind::child()).context("listening to SIGCHLD")?;
        let hangup = signal(SignalKind::hangup()).context("listening to SIGHUP")?;
        // Under another init, orphans would go to that one; as PID 1 they come here anyway.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("becoming the parent of orphans")?;
        let engine = Service::new("engine", supervision.engine.clone());
        let agent = Service::new("agent", supervision.agent.clone());
        Ok(Self { engine, agent, supervision, child_ended, hangup, note: Note::default() })
    }

    /// A first start that fails is a mistake in the command line, and trying again cannot help.
    fn start_first(&mut self) -> anyhow::Result<()> {
        self.write_note();
        self.clear_pid_files();
        self.engine
            .start()
            .context("give the image's own entry point after `--`, as `docker inspect` shows it")?;
        self.agent.start()
    }

    async fn keep_alive(&mut self) {
        loop {
            let due = [&self.engine, &self.agent].into_iter().filter_map(Service::due).min();
            tokio::select! {
                _ = self.child_ended.recv() => self.reap(),
                _ = self.hangup.recv() => self.engine.signal(Signal::HUP),
                () = sleep_until(due) => self.start_due(),
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        if self.engine.due().is_some_and(|due| due <= now) {
            self.clear_pid_files();
            start_again(&mut self.engine);
        }
        if self.agent.due().is_some_and(|due| due <= now) {
            start_again(&mut self.agent);
        }
    }

    /// Agent first, while the engine still answers it; then the engine.
    async fn stop(&mut self) {
        let Supervision { agent_stop, engine_stop, .. } = self.supervision;
        self.stop_one(|family| &mut family.agent, agent_stop).await;
        self.stop_one(|family| &mut family.engine, engine_stop).await;
    }

    async fn stop_one(&mut self, child: fn(&mut Self) -> &mut Service, limit: Duration) {
        self.reap();
        child(self).stop();
        let deadline = Instant::now() + limit;
        // Listening began before the signal was sent, so no end is missed between the two.
        while child(self).pid().is_some() {
            tokio::select! {
                _ = self.child_ended.recv() => self.reap(),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(service = child(self).name(), ?limit, "did not stop in time: killing it");
                    return child(self).kill();
                }
            }
        }
    }

    fn reap(&mut self) {
        for (pid, status) in reap_all() {
            let end = service::describe(status);
            if self.engine.pid() == Some(pid) {
                self.engine.ended(&end);
                self.note = Note { restarts: self.engine.restarts(), last_end: Some(end) };
                self.write_note();
            } else if self.agent.pid() == Some(pid) {
                self.agent.ended(&end);
            }
        }
    }

    fn clear_pid_files(&self) {
        let files = self.supervision.pid_files.iter().map(PathBuf::as_path);
        for file in pidfile::clear_stale(files) {
            tracing::info!(file = %file.display(), "removed a stale pid file");
        }
    }

    /// The note is for people; an engine runs as well without it.
    fn write_note(&self) {
        let path: &Path = &self.supervision.note;
        if let Err(error) = self.note.write(path) {
            tracing::warn!(path = %path.display(), %error, "the supervisor's note was not written");
        }
    }
}

fn start_again(service: &mut Service) {
    if let Err(error) = service.start() {
        tracing::error!(service = service.name(), error = format!("{error:#}"), "not started");
        service.not_started();
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Every child that has ended since, adopted ones included. Signals merge: one SIGCHLD may stand
/// for many ends.
fn reap_all() -> Vec<(Pid, WaitStatus)> {
    std::iter::from_fn(|| rustix::process::wait(WaitOptions::NOHANG).ok().flatten()).collect()
}
