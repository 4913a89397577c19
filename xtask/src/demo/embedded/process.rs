//! The demo's agents: processes that end with the demo, and that the next demo ends after a kill.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, State};

/// Timeout for an agent to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for an agent to end before it is killed. A normal end takes less.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between checks of a starting agent.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Prefix of the demo's pid files.
const PREFIX: &str = "embedded-agent-";

/// Number of log lines that an error quotes.
const LOG_LINES: usize = 12;

/// A running agent, which ends on drop.
#[derive(Debug)]
pub(super) struct Agent {
    name: String,
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts `program` with its output in a log file.
    ///
    /// # Errors
    /// It cannot be started, or its files cannot be written.
    pub(super) fn start(
        state: &State,
        name: &str,
        program: &Path,
        arguments: &[&OsStr],
    ) -> Result<Self> {
        let name = format!("{PREFIX}{name}");
        let pid_file = state.run().join(format!("{name}.pid"));
        let log = state.log().join(format!("{name}.log"));
        fs::create_dir_all(state.log())
            .with_context(|| format!("making {}", state.log().display()))?;
        let output = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let errors = output.try_clone().context("opening an agent's log")?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let agent = Self { name, child, pid_file, log };
        fs::write(&agent.pid_file, format!("{}\n", agent.child.id()))
            .with_context(|| format!("writing {}", agent.pid_file.display()))?;
        Ok(agent)
    }

    /// Waits until the agent accepts connections on `socket`.
    ///
    /// # Errors
    /// It does not in time; the message has the end of its log.
    pub(super) fn wait_for(&self, socket: &Path) -> Result<()> {
        let started = Instant::now();
        while UnixStream::connect(socket).is_err() {
            // An ended process is a zombie until it is reaped, and a zombie has no program.
            let ended = fs::read_link(format!("/proc/{}/exe", self.child.id())).is_err();
            if ended || START_TIMEOUT < started.elapsed() {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                bail!(
                    "{} does not answer at {}; the end of {}:\n{}",
                    self.name,
                    socket.display(),
                    self.log.display(),
                    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Sends SIGTERM. The process ID is still the agent's, because it is reaped only on drop.
    pub(super) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Ends the agent; kills it after a timeout.
    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.terminate();
        }
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if STOP_TIMEOUT < asked.elapsed() {
                self.child.kill()?;
                self.child.wait()?;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        fs::remove_file(&self.pid_file)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!(
                "could not end {}, run `cargo xtask teardown` to end it: {error:#}",
                self.name
            );
        }
    }
}

/// Ends the agents of an earlier, killed demo.
///
/// # Errors
/// An agent does not end.
pub(super) fn stop_leftovers(state: &State) -> Result<()> {
    setup::stop_agents(state, PREFIX).map(|_| ())
}
