//! The demo's agents: processes that end with it, and are found again when it was killed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, State};

/// How long an agent may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long an agent may take to end before it is killed; it finishes what it does within less.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at an agent that starts.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the names of the demo's pid files begin with.
const PREFIX: &str = "embedded-agent-";

/// Lines of a log that an error quotes.
const LOG_LINES: usize = 12;

/// An agent that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Agent {
    name: String,
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts `program`, whose output goes to a log of its own.
    ///
    /// # Errors
    /// When it cannot be started or its files cannot be written.
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

    /// Waits until it takes connections on `socket`.
    ///
    /// # Errors
    /// When it does not, with the end of its log.
    pub(super) fn wait_for(&self, socket: &Path) -> Result<()> {
        let started = Instant::now();
        while UnixStream::connect(socket).is_err() {
            // What ended is a zombie until it is reaped, and that has no program any more.
            let ended = fs::read_link(format!("/proc/{}/exe", self.child.id())).is_err();
            if ended || START_LIMIT < started.elapsed() {
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
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Asks it to end. Until it is dropped, its process ID is nobody else's.
    pub(super) fn ask_to_end(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // One that has ended already is what was asked for.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits until it has ended; kills it when that takes too long.
    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.ask_to_end();
        }
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if STOP_LIMIT < asked.elapsed() {
                self.child.kill()?;
                self.child.wait()?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        fs::remove_file(&self.pid_file)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{} may still run, `cargo xtask teardown` ends it: {error:#}", self.name);
        }
    }
}

/// Ends the agents of a demo that was killed before it could.
///
/// # Errors
/// When one of them does not end.
pub(super) fn end_forgotten(state: &State) -> Result<()> {
    setup::stop_agents(state, PREFIX).map(|_| ())
}
