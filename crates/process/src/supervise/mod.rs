//! A reaping supervisor: programs as children, started again when they end, stopped in order.
//!
//! It serves nothing and holds no layer, so there is little in it that could end. As PID 1 of a range
//! its children are the engine and the agent; where no unit does it, it keeps a host agent alive.
//! Every orphan beneath it becomes its child and is reaped. Children are started in the order
//! given and not waited for; one that ends is started again after a pause.
//!
//! ```text
//! SIGTERM ─► the last child: SIGTERM, it ends ─► … ─► the first child: SIGTERM, it ends ─► exit 0
//! SIGHUP  ─► passed on to the children that read their configuration again
//! ```
//!
//! This process must never use tokio's own children: both would wait for the same pids.

mod note;
mod pidfile;
mod service;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::shutdown::Shutdown;

pub use note::Note;
use service::Service;

/// Interval of checks that a process group that is to end is empty.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A program that is kept alive.
#[derive(Clone, Debug)]
pub struct Child {
    /// Name in the log.
    pub name: &'static str,
    /// The program with its arguments; never empty.
    pub command: Vec<OsString>,
    /// Environment variables besides ours.
    pub environment: Vec<(&'static str, OsString)>,
    /// Time for the program and its process group to end once asked; then the group is killed.
    pub stop_limit: Duration,
    /// True for a program that reads its configuration again on SIGHUP and does not end: the signal
    /// is passed on to it.
    pub reloads: bool,
    /// Pid files that would keep it from starting when they are left from before.
    pub pid_files: Vec<PathBuf>,
    /// File of the note for others on how the program has fared; `None` for no note.
    pub note: Option<PathBuf>,
    /// True if an early failure of the first run ends the supervisor too: the cause is a mistake in
    /// the command line or in its surroundings, and the user is there to read it.
    pub must_begin: bool,
    /// Advice for the author of the command line if the program cannot be started at all.
    pub hint: &'static str,
}

/// Runs the children until the end is asked for, and stops them in the order opposite to their
/// start's.
///
/// Cancel safe: dropping the future kills them all.
///
/// # Errors
/// Signals cannot be listened to, a program cannot be started even once, or the first run of one
/// that [must begin](Child::must_begin) failed.
pub async fn supervise(children: Vec<Child>, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let mut family = Family::gather(children)?;
    family.start_first()?;
    let exit = tokio::select! {
        error = family.keep_alive() => Err(error),
        () = shutdown.draining() => Ok(Exit::Ok),
    };
    family.stop().await;
    exit
}

/// Ends this process by SIGTERM when its supervisor is killed: a child that nobody keeps alive any
/// more would be in the way of the one that is started next.
///
/// # Errors
/// The system's own.
pub fn end_with_supervisor() -> std::io::Result<()> {
    let supervisor = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have gone between the two.
    if rustix::process::getppid() != supervisor {
        rustix::process::kill_process(rustix::process::getpid(), Signal::TERM)?;
    }
    Ok(())
}

/// One child with its process.
struct Member {
    child: Child,
    service: Service,
}

struct Family {
    members: Vec<Member>,
    child_ended: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Family {
    fn gather(children: Vec<Child>) -> anyhow::Result<Self> {
        let child_ended = signal(SignalKind::child()).context("listening to SIGCHLD")?;
        let hangup = signal(SignalKind::hangup()).context("listening to SIGHUP")?;
        // Under another init, orphans would go to that one; as PID 1 they come here anyway.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("becoming the parent of orphans")?;
        let members = children.into_iter().map(Member::new).collect();
        Ok(Self { members, child_ended, hangup })
    }

    /// A first start that fails is a mistake in the command line, and trying again cannot help.
    fn start_first(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.write_note(&Note::default());
            member.clear_pid_files();
            member.service.start().context(member.child.hint)?;
        }
        Ok(())
    }

    /// Goes on until a child that must begin did not; the error says so.
    async fn keep_alive(&mut self) -> anyhow::Error {
        loop {
            let due = self.members.iter().filter_map(|member| member.service.due()).min();
            tokio::select! {
                _ = self.child_ended.recv() => {
                    if let Some(failure) = self.reap() {
                        return failure;
                    }
                }
                _ = self.hangup.recv() => self.reload(),
                () = sleep_until(due) => self.start_due(),
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        let due = |member: &&mut Member| member.service.due().is_some_and(|due| due <= now);
        self.members.iter_mut().filter(due).for_each(Member::start_again);
    }

    fn reload(&self) {
        for member in self.members.iter().filter(|member| member.child.reloads) {
            member.service.signal(Signal::HUP);
        }
    }

    /// The last first, while those that it needs still answer it.
    async fn stop(&mut self) {
        for position in (0..self.members.len()).rev() {
            self.stop_one(position).await;
        }
    }

    /// An entry point may be a shell around the engine, which ends at once: the engine has its time
    /// all the same.
    async fn stop_one(&mut self, position: usize) {
        self.reap_ending();
        self.members[position].service.stop();
        let limit = self.members[position].child.stop_limit;
        let deadline = Instant::now() + limit;
        // Listening began before the signal was sent, so no end is missed between the two.
        while !self.members[position].service.is_gone() {
            tokio::select! {
                _ = self.child_ended.recv() => self.reap_ending(),
                // The last of a group may have another parent, so its end is not told to us.
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = tokio::time::sleep_until(deadline) => {
                    let service = &mut self.members[position].service;
                    tracing::warn!(service = service.name(), ?limit, "did not stop in time: killing it");
                    return service.kill();
                }
            }
        }
    }

    /// Takes note of every end since; an error when one of them is the supervisor's too.
    fn reap(&mut self) -> Option<anyhow::Error> {
        let mut failure = None;
        for (pid, status) in reap_all() {
            let of_pid = |member: &&mut Member| member.service.pid() == Some(pid);
            if let Some(member) = self.members.iter_mut().find(of_pid) {
                failure = failure.or(member.ended(status));
            }
        }
        failure
    }

    /// The same once all are to end: no end is a failure any more.
    fn reap_ending(&mut self) {
        drop(self.reap());
    }
}

impl Member {
    fn new(child: Child) -> Self {
        let (command, environment) = (child.command.clone(), child.environment.clone());
        Self { service: Service::new(child.name, command, environment), child }
    }

    fn start_again(&mut self) {
        self.clear_pid_files();
        if let Err(error) = self.service.start() {
            let error = format!("{error:#}");
            tracing::error!(service = self.child.name, error, "not started");
            self.service.not_started();
        }
    }

    /// Notes its end; returns an error if a restart is useless.
    fn ended(&mut self, status: WaitStatus) -> Option<anyhow::Error> {
        let end = service::describe(status);
        let soon = self.service.ended(&end);
        let restarts = self.service.restarts();
        let failed = status.exit_status().is_some_and(|code| code != 0);
        let name = self.child.name;
        let failure = (self.child.must_begin && restarts == 1 && soon && failed)
            .then(|| anyhow::anyhow!("the {name} ended at once with {end}; its log says why"));
        self.write_note(&Note { restarts, last_end: Some(end) });
        failure
    }

    fn clear_pid_files(&self) {
        let files = self.child.pid_files.iter().map(PathBuf::as_path);
        for file in pidfile::clear_stale(files) {
            tracing::info!(file = %file.display(), "removed a stale pid file");
        }
    }

    /// The note is for people; the child runs as well without it.
    fn write_note(&self, note: &Note) {
        let Some(path) = &self.child.note else { return };
        if let Err(error) = note.write(path) {
            tracing::warn!(path = %path.display(), %error, "the supervisor's note was not written");
        }
    }
}

/// Path of the note about an engine, in the state folder of the agent beside it.
#[must_use]
pub fn note_path(state_dir: &Path) -> PathBuf {
    state_dir.join("supervisor.json")
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
