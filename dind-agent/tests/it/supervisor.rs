//! The supervisor with real children: shell scripts in the engine's place.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// Longest wait for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polling interval of conditions: real processes cannot be awaited otherwise.
const POLL: Duration = Duration::from_millis(5);

/// A range's supervisor over a script, in a folder of its own.
struct Range {
    folder: TempDir,
    process: Child,
}

impl Range {
    /// Starts the supervisor over a script, which finds its folder in `$1`.
    fn start(script: &str) -> Self {
        Self::start_patient(script, "1s")
    }

    /// The same, with another limit for the engine's stop.
    fn start_patient(script: &str, engine_stop: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_longshore-dind-agent"))
            .arg("run")
            .arg("--engine")
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--host")
            .arg(format!("unix://{}", path("host.sock").display()))
            .arg("--listen")
            .arg(path("agent.sock"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--pid-file")
            .arg(path("docker.pid"))
            .args(["--drain-timeout", "1s", "--engine-stop-timeout", engine_stop])
            .args(["--", "/bin/sh", "-c", script, "engine"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { folder, process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // A container's kernel takes everything along with its PID 1; here nobody would. Held
            // still meanwhile, so that it starts nothing anew.
            let own = Pid::from_child(&self.process);
            let _held = rustix::process::kill_process(own, Signal::STOP);
            for child in stats().filter(|stat| child_of(self.process.id(), stat).is_some()) {
                let pid = child.split(' ').next().and_then(|pid| pid.parse().ok());
                if let Some(group) = pid.and_then(Pid::from_raw) {
                    let _gone = rustix::process::kill_process_group(group, Signal::KILL);
                }
            }
        }
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The kernel's record of every process: `/proc/<pid>/stat`.
fn stats() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
}

/// The processes whose parent is `pid`, with their state letter and name.
fn children(pid: u32) -> Vec<(char, String)> {
    stats().filter_map(|stat| child_of(pid, &stat)).collect()
}

fn child_of(pid: u32, stat: &str) -> Option<(char, String)> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    (fields.next()?.parse() == Ok(pid)).then(|| (state, name.to_owned()))
}

fn exists(path: &Path) -> bool {
    path.exists()
}

const ENGINE: &str = r#"
    trap 'echo engine >> "$1/stopped"; exit 0' TERM
    trap 'echo hup >> "$1/reloaded"' HUP
    echo up >> "$1/started"
    while :; do sleep 0.05; done
"#;

const STUBBORN: &str = r#"
    trap '' TERM
    echo up > "$1/started"
    while :; do sleep 0.05; done
"#;

#[test]
fn the_agent_stops_before_the_engine_and_the_range_ends_well() {
    let mut range = Range::start(ENGINE);
    range.until("both are up", || {
        exists(&range.path("started")) && exists(&range.path("agent.sock"))
    });
    range.signal(Signal::HUP);
    range.until("the engine was told to reload", || exists(&range.path("reloaded")));
    range.signal(Signal::TERM);
    let status = range.wait();
    assert_eq!(status.code(), Some(0), "{}", range.log());
    assert_eq!(range.lines("stopped"), ["engine"]);
    let log = range.log();
    let position = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    let agent = position("stopped service=\"agent\"");
    assert!(agent < position("stopped service=\"engine\""), "{log}");
}

#[test]
fn an_engine_that_ends_is_started_again_without_its_stale_pid_file() {
    let range = Range::start(
        r#"echo up >> "$1/started"
           test -e "$1/docker.pid" && echo stale >> "$1/refused"
           echo 999999999 > "$1/docker.pid"
           test -e "$1/second" && while :; do sleep 0.05; done
           touch "$1/second"; exit 7"#,
    );
    range.until("the engine is up again", || range.lines("started").len() == 2);
    assert_eq!(range.lines("refused"), [""; 0], "a stale pid file was left");
    let note = fs::read_to_string(range.path("state/supervisor.json")).unwrap();
    assert_eq!(note, r#"{"restarts":1,"last_end":"exit status 7"}"#);
}

#[test]
fn orphans_are_reaped() {
    let range = Range::start(
        r#"(sleep 0.01 & echo $! > "$1/orphan") ; echo up > "$1/started"
           while :; do sleep 0.05; done"#,
    );
    range.until("the orphan is there", || !range.lines("orphan").is_empty());
    let orphan = PathBuf::from("/proc").join(&range.lines("orphan")[0]);
    range.until("the orphan is gone", || !exists(&orphan));
    range.until("no zombie is left", || {
        children(range.process.id()).iter().all(|(state, _)| *state != 'Z')
    });
}

/// The process IDs under which a service was started so far.
fn started(range: &Range, service: &str) -> Vec<i32> {
    let mark = format!("started service=\"{service}\"");
    let log = range.log();
    let lines = log.lines().filter(|line| line.contains(&mark));
    lines.filter_map(|line| line.rsplit_once("pid=")?.1.trim().parse().ok()).collect()
}

#[test]
fn what_is_killed_is_started_again_each_time() {
    // More often than pauses double; `survival.rs` of the ranges does it to real engines.
    const KILLS: usize = 4;
    let range = Range::start(ENGINE);
    for service in ["agent", "engine"] {
        for kill in 1..=KILLS {
            range.until("it is up", || started(&range, service).len() == kill);
            let pid = *started(&range, service).last().unwrap();
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        range.until("it is up again", || started(&range, service).len() == KILLS + 1);
    }
    let note = fs::read_to_string(range.path("state/supervisor.json")).unwrap();
    assert_eq!(note, r#"{"restarts":4,"last_end":"signal 9"}"#);
    range.until("no zombie is left", || {
        children(range.process.id()).iter().all(|(state, _)| *state != 'Z')
    });
}

#[test]
fn an_engine_that_ends_at_once_is_not_started_in_a_hurry() {
    let range = Range::start(r#"echo up >> "$1/started"; exit 1"#);
    let begun = Instant::now();
    range.until("it was started four times", || range.lines("started").len() == 4);
    assert!(Duration::from_millis(1700) < begun.elapsed(), "{}", range.log());
}

#[test]
fn an_engine_that_does_not_stop_is_killed() {
    let mut range = Range::start(STUBBORN);
    range.until("the engine is up", || exists(&range.path("started")));
    range.signal(Signal::TERM);
    assert_eq!(range.wait().code(), Some(0));
    assert!(range.log().contains("did not stop in time"), "{}", range.log());
}

#[test]
fn a_second_signal_ends_the_range_at_once() {
    let mut range = Range::start_patient(STUBBORN, "1h");
    range.until("the engine is up", || exists(&range.path("started")));
    range.signal(Signal::TERM);
    range.until("draining", || range.log().contains("draining"));
    range.signal(Signal::INT);
    assert_eq!(range.wait().code(), Some(130), "{}", range.log());
}

#[test]
fn an_entry_point_that_is_not_there_is_a_failure_that_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_longshore-dind-agent"))
        .args(["run", "--state-dir"])
        .arg(tempfile::tempdir().unwrap().path())
        .args(["--", "/no/such/entry-point"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    for part in ["/no/such/entry-point", "No such file", "entry point after `--`"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}
