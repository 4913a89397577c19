//! One child of the supervisor: started, ended, started again after a pause.
//!
//! ```text
//! Waiting(due) ──due──► Running(pid) ──reaped──► Waiting(due + pause)
//! ```

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{
    Pid, Signal, WaitStatus, kill_process, kill_process_group, test_kill_process_group,
};
use tokio::time::Instant;

/// First pause before a child is started again; each failure in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause: an operator who mends an engine's configuration should not wait for longer, and a
/// start that fails costs little in this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A child that ran for this long was well: its next failure is a first one again. An engine that
/// cannot start says so sooner.
const STEADY: Duration = Duration::from_secs(5);

/// A child, and when it is to be started.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    command: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    state: State,
    /// The process group of the run before, while something may still be left of it.
    leftovers: Option<Pid>,
    /// Failures in a row.
    failures: u32,
    /// Starts after the first.
    restarts: u32,
    /// True once it was asked to end.
    stopping: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { due: Instant },
    Running { pid: Pid, since: Instant },
}

impl Service {
    /// A child to be started at once.
    pub(super) fn new(
        name: &'static str,
        command: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
    ) -> Self {
        Self {
            name,
            command,
            environment,
            state: State::Waiting { due: Instant::now() },
            leftovers: None,
            failures: 0,
            restarts: 0,
            stopping: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The running process; `None` while it waits to be started.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } => None,
        }
    }

    /// Time of the next start; `None` while it runs.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { due } => Some(due),
            State::Running { .. } => None,
        }
    }

    /// Starts it, in a process group of its own: a terminal's ctrl-C must not reach the engine
    /// before the agent has drained.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        // Waiting → Running
        self.kill_leftovers();
        let (program, arguments) =
            self.command.split_first().expect("invariant: a command names a program");
        // The handle is dropped on purpose: the supervisor reaps every child by itself.
        let child = Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("starting the {} as {}", self.name, program.to_string_lossy())
            })?;
        let pid = Pid::from_child(&child);
        tracing::info!(service = self.name, pid = pid.as_raw_nonzero().get(), "started");
        self.state = State::Running { pid, since: Instant::now() };
        Ok(())
    }

    /// Takes note that it could not be started again.
    pub(super) fn not_started(&mut self) {
        self.pause(Duration::ZERO);
    }

    /// Takes note that its process was reaped, and says whether it ended soon after its start.
    pub(super) fn ended(&mut self, end: &str) -> bool {
        // Running → Waiting
        let State::Running { pid, since } = self.state else { return false };
        // An entry point may be a shell around the engine: what it left must not meet the next
        // run on the same data.
        self.leftovers = Some(pid);
        signal_group(pid, Signal::TERM);
        let stopping = self.stopping;
        let ran = since.elapsed();
        let pause = self.pause(ran);
        if stopping {
            tracing::info!(service = self.name, end, "stopped");
        } else {
            tracing::warn!(service = self.name, end, ?pause, "ended by itself, starting it again");
        }
        ran < STEADY
    }

    fn pause(&mut self, ran: Duration) -> Duration {
        self.failures = if STEADY <= ran { 1 } else { self.failures.saturating_add(1) };
        self.restarts = self.restarts.saturating_add(1);
        let pause = pause_after(self.failures);
        self.state = State::Waiting { due: Instant::now() + pause };
        pause
    }

    /// Passes a signal on to the process itself; nothing while it does not run.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // Between its end and our reaping there is nobody to take the signal.
            let _gone = kill_process(pid, signal);
        }
    }

    /// Asks it to end; it is not to be started again.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.signal(Signal::TERM);
    }

    /// True if its process and all the others of its group are gone. The group of a run that ended
    /// was asked to end then.
    pub(super) fn is_gone(&mut self) -> bool {
        // A group that is empty may become another's, and is none of ours from then on.
        self.leftovers = self.leftovers.filter(|group| test_kill_process_group(*group).is_ok());
        self.pid().is_none() && self.leftovers.is_none()
    }

    /// Kills the rest of it at once.
    pub(super) fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            signal_group(pid, Signal::KILL);
        }
        self.kill_leftovers();
    }

    fn kill_leftovers(&mut self) {
        if let Some(group) = self.leftovers.take() {
            signal_group(group, Signal::KILL);
        }
    }
}

impl Drop for Service {
    /// A supervisor that ends, however it ends, leaves no engine without one.
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // An empty group is what we want to reach.
    let _gone = kill_process_group(group, signal);
}

/// Pause after this many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Describes the end of a process for people.
pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let milliseconds = |failures| pause_after(failures).as_millis();
        let expected = [250, 250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(milliseconds), expected);
        assert_eq!(milliseconds(u32::MAX), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_ran_well_begins_with_a_short_pause_again() {
        let mut service = Service::new("engine", vec!["true".into()], Vec::new());
        for _ in 0..4 {
            service.not_started();
        }
        let pause = |service: &Service| service.due().map(|due| due - Instant::now());
        assert_eq!(pause(&service), Some(Duration::from_secs(2)));
        service.pause(STEADY);
        assert_eq!(pause(&service), Some(FIRST_PAUSE));
        assert_eq!(service.restarts(), 5);
    }
}
