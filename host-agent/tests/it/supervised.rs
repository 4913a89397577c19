//! The agent as a process under its own supervisor: killed, it is back; what cannot begin ends.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polling interval of conditions: real processes cannot be awaited otherwise.
const POLL: Duration = Duration::from_millis(5);

fn start(state: &Path, log: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_longshore-host-agent"))
        .args(["run", "--inspect", "off", "--drain-timeout", "1s"])
        .args(["--engine", "unix:///nowhere/docker.sock", "--state-dir"])
        .arg(state)
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .unwrap()
}

fn until(what: &str, log: &Path, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        let log = fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "not in time: {what}\n{log}");
        std::thread::sleep(POLL);
    }
}

/// The process IDs under which the agent was started so far.
fn started(log: &Path) -> Vec<i32> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains("started service=\"agent\""));
    lines.filter_map(|line| line.rsplit_once("pid=")?.1.trim().parse().ok()).collect()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_killed_agent_is_back_and_the_end_is_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    let mut supervisor = start(&state, &log);
    let answers = || UnixStream::connect(state.join("admin.sock")).is_ok();
    for kills in 0..3 {
        until("it is up", &log, || started(&log).len() == kills + 1 && answers());
        kill(*started(&log).last().unwrap(), Signal::KILL);
        until("it was missed", &log, || started(&log).len() == kills + 2);
    }
    until("it is up again", &log, answers);
    kill(supervisor.id().cast_signed(), Signal::TERM);
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(!answers());
}

#[test]
fn an_agent_does_not_outlive_its_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    let mut supervisor = start(&state, &log);
    let answers = || UnixStream::connect(state.join("admin.sock")).is_ok();
    until("it is up", &log, answers);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    until("it is gone", &log, || !answers());
    let mut next = start(&state, &log);
    until("the next has its place", &log, answers);
    kill(next.id().cast_signed(), Signal::TERM);
    assert_eq!(next.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_begin_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    fs::write(&state, "a file in the folder's place").unwrap();
    assert_eq!(start(&state, &log).wait().unwrap().code(), Some(1));
    let log = fs::read_to_string(&log).unwrap();
    for part in ["--state-dir", "the agent ended at once with exit status 1"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
}
