//! Keeps a process running, as a unit with `Restart=always` would.

use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Default pause of systemd before it restarts a unit.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// A process that is started again whenever it ends, until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// 0 between an end and the next start.
    pid: i32,
    stopping: bool,
}

impl Keeper {
    /// Starts what `command` makes, at once and again whenever it ended.
    pub(crate) fn start(command: impl Fn() -> Command + Send + 'static) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let keeping = state.clone();
        let thread = std::thread::spawn(move || {
            while let Some(mut child) = begin(&keeping, &command) {
                drop(child.wait());
                keeping.lock().expect("invariant: no one panics with it").pid = 0;
                std::thread::sleep(RESTART_PAUSE);
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// The process under way; 0 between two.
    pub(crate) fn pid(&self) -> i32 {
        self.state.lock().unwrap().pid
    }
}

/// The next child; none once the end was asked for.
fn begin(state: &Mutex<State>, command: impl Fn() -> Command) -> Option<Child> {
    let mut state = state.lock().expect("invariant: no one panics with it");
    if state.stopping {
        return None;
    }
    let child = command().spawn().expect("invariant: it could be started before");
    state.pid = i32::try_from(child.id()).expect("invariant: a pid is positive");
    Some(child)
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Keeper {
    /// Kills the process, and starts it no more.
    pub(crate) fn stop(&mut self) {
        let pid = {
            let mut state = self.state.lock().expect("invariant: no one panics with it");
            state.stopping = true;
            state.pid
        };
        kill(pid);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// `kill -9`; whether there was such a process.
pub(crate) fn kill(pid: i32) -> bool {
    match Pid::from_raw(pid) {
        Some(process) if 1 < pid => kill_process(process, Signal::KILL).is_ok(),
        _ => false,
    }
}
