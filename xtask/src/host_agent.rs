//! The host agent as a detached process: started once, and found again by the next command.
//!
//! It is started as `run`, a supervisor with the agent as its child: one that is killed is back by
//! itself, as under a unit.
//!
//! ```text
//! <state>/host/               its state: admin.sock, store/, ranges/
//!         run/host-agent.pid  the supervisor's process ID, also for teardown
//!         log/host-agent.log  what it says
//! ```

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::State;

/// How long it may take to answer after its start. It opens its store first.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to end when a newer one takes its place.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// How long one that was killed may take to be back: its supervisor's pause, and opening its store.
const AGAIN_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at an agent that starts or stops.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lines of its log that an error quotes.
const LOG_LINES: usize = 12;

/// Where it is looked at with grpcurl, unless somebody else has that port.
const INSPECT: &str = "127.0.0.1:7070";

/// The host agent that runs.
#[derive(Clone, Debug)]
pub(crate) struct HostAgent {
    /// Its administrator's listener, as `unix:///…`.
    pub(crate) admin: String,
    /// Its address for grpcurl; absent when it has none.
    pub(crate) inspect: Option<String>,
}

/// Sees to it that the host agent `binary` runs for the engine at `engine`.
///
/// One that runs from this very file for this engine is left alone; another is asked to end first.
/// Ranges reconnect by themselves, and what they were reading goes on where it was.
///
/// # Errors
/// When it does not start, with the end of its log.
pub(crate) fn ensure(state: &State, binary: &Path, engine: &str) -> Result<HostAgent> {
    let place = Place::in_state(state);
    if let Some(process) = place.process() {
        if process.runs(binary, engine) && place.answers_soon() {
            return Ok(place.agent(&process));
        }
        process.end()?;
    }
    let started = Instant::now();
    let process = place.start(binary, engine)?;
    eprintln!(
        "{:6.1} s  host agent: started, log in {}",
        started.elapsed().as_secs_f64(),
        place.log.display()
    );
    Ok(place.agent(&process))
}

/// Where the host agent is or would be, whether it runs or not.
pub(crate) fn endpoint(state: &State) -> String {
    Place::in_state(state).endpoint()
}

/// Whether it runs and takes connections.
pub(crate) fn answers(state: &State) -> bool {
    let place = Place::in_state(state);
    place.process().is_some() && place.answers_soon()
}

/// Where its things lie.
struct Place {
    folder: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
}

/// A process that is a host agent.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// The file that it runs; with a mark at its end when that was replaced.
    program: PathBuf,
    /// The words that it was started with.
    words: Vec<String>,
}

impl Place {
    fn in_state(state: &State) -> Self {
        Self {
            folder: state.host_agent(),
            pid_file: state.run().join("host-agent.pid"),
            log: state.log().join("host-agent.log"),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok()
    }

    /// Whether it takes connections, if not at once then when its supervisor has started it again.
    fn answers_soon(&self) -> bool {
        let begun = Instant::now();
        while !self.answers() {
            if AGAIN_LIMIT < begun.elapsed() {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    fn agent(&self, process: &Process) -> HostAgent {
        let inspect = process.flag("--inspect").filter(|address| *address != "off");
        HostAgent { admin: self.endpoint(), inspect: inspect.map(str::to_owned) }
    }

    /// The process that the pid file names, if it is a host agent: the number may be anybody's.
    fn process(&self) -> Option<Process> {
        let pid = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        Process::of(pid).filter(|process| process.flag("--state-dir") == self.folder.to_str())
    }

    fn start(&self, binary: &Path, engine: &str) -> Result<Process> {
        let inspect = inspect_address();
        let log = self.open_log().with_context(|| format!("opening {}", self.log.display()))?;
        let errors = log.try_clone().context("opening the host agent's log")?;
        // A session of its own: no terminal's hang-up or interrupt reaches it. Without --fork,
        // setsid becomes the supervisor, so the child's process ID is the supervisor's.
        let mut child = Command::new("setsid")
            .arg(binary)
            .args(["run", "--engine", engine, "--inspect", &inspect, "--state-dir"])
            .arg(&self.folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("starting the host agent by `setsid` (of the package util-linux)")?;
        fs::write(&self.pid_file, format!("{}\n", child.id()))
            .with_context(|| format!("writing {}", self.pid_file.display()))?;
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if let Some(process) = self.process().filter(|_| self.answers()) {
                return Ok(process);
            }
            if let Some(status) = child.try_wait().context("looking at the host agent")? {
                bail!(
                    "the host agent ended at once ({status}); the end of {}:\n{}",
                    self.log.display(),
                    self.log_tail()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!(
            "the host agent does not answer at {} after {} s; the end of {}:\n{}",
            self.socket().display(),
            START_LIMIT.as_secs(),
            self.log.display(),
            self.log_tail()
        )
    }

    fn open_log(&self) -> io::Result<fs::File> {
        for folder in [&self.pid_file, &self.log].into_iter().filter_map(|file| file.parent()) {
            fs::create_dir_all(folder)?;
        }
        // Each start begins a new log; the one before is kept beside it.
        match fs::rename(&self.log, self.log.with_extension("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::File::options().create(true).append(true).open(&self.log)
    }

    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let is_agent = program.file_name()?.to_string_lossy().starts_with("longshore-host-agent");
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words =
            words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        is_agent.then(|| Self { pid, program, words: words.collect() })
    }

    /// What follows `flag`.
    fn flag(&self, flag: &str) -> Option<&str> {
        let position = self.words.iter().position(|word| word == flag)?;
        self.words.get(position + 1).map(String::as_str)
    }

    /// Whether it runs this file, as it is now, for this engine.
    fn runs(&self, binary: &Path, engine: &str) -> bool {
        self.program == binary && self.flag("--engine") == Some(engine)
    }

    /// Asks it to end, and waits until it has.
    fn end(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid).context("process 0 is no host agent")?;
        for (signal, limit) in [
            (rustix::process::Signal::TERM, STOP_LIMIT),
            (rustix::process::Signal::KILL, Duration::from_secs(5)),
        ] {
            match rustix::process::kill_process(pid, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                result => result.with_context(|| {
                    format!("ending the host agent that ran before, process {}", self.pid)
                })?,
            }
            let asked = Instant::now();
            while asked.elapsed() < limit {
                if Self::of(self.pid).is_none() {
                    return Ok(());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        bail!("the host agent that ran before, process {}, does not end", self.pid)
    }
}

/// [`INSPECT`], or another port of the loopback address where that is somebody else's.
fn inspect_address() -> String {
    let free =
        |address: &str| -> io::Result<SocketAddr> { TcpListener::bind(address)?.local_addr() };
    let address = free(INSPECT).or_else(|_| free("127.0.0.1:0"));
    address.map_or_else(|_| "off".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_that_names_another_program_names_no_agent() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            folder: root.path().join("host"),
            pid_file: root.path().join("host-agent.pid"),
            log: root.path().join("host-agent.log"),
        };
        assert!(place.process().is_none());
        for text in ["", "x", "0", "-1", &std::process::id().to_string(), "1"] {
            fs::write(&place.pid_file, text).unwrap();
            assert!(place.process().is_none(), "{text:?}");
        }
        assert!(!place.answers());
    }

    #[test]
    fn only_the_same_file_for_the_same_engine_is_left_running() {
        let words =
            ["longshore-host-agent", "run", "--engine", "unix:///a", "--inspect", "off", ""];
        let process = |program: &str| Process {
            pid: 2,
            program: PathBuf::from(program),
            words: words.map(str::to_owned).into(),
        };
        let binary = Path::new("/s/bin/longshore-host-agent");
        assert!(process("/s/bin/longshore-host-agent").runs(binary, "unix:///a"));
        assert!(!process("/s/bin/longshore-host-agent").runs(binary, "unix:///b"));
        assert!(!process("/s/bin/longshore-host-agent (deleted)").runs(binary, "unix:///a"));
        assert_eq!(process("x").flag("--engine"), Some("unix:///a"));
        assert_eq!(process("x").flag("--state-dir"), None);
    }

    #[test]
    fn a_log_is_kept_until_the_start_after_the_next() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            folder: root.path().join("host"),
            pid_file: root.path().join("run/host-agent.pid"),
            log: root.path().join("log/host-agent.log"),
        };
        drop(place.open_log().unwrap());
        fs::write(&place.log, "one\ntwo\n").unwrap();
        assert_eq!(place.log_tail(), "one\ntwo");
        drop(place.open_log().unwrap());
        assert_eq!(place.log_tail(), "");
        assert_eq!(fs::read(place.log.with_extension("log.1")).unwrap(), b"one\ntwo\n");
    }
}
