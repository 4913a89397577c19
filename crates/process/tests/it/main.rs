//! The supervisor with children of its own, in a process of its own: it reaps every process that
//! ends in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::time::{Duration, Instant};

use process::exit::Exit;
use process::shutdown::Shutdown;
use process::supervise::{Child, supervise};

/// A shell around an engine that takes `stopping` seconds to end.
fn wrapped(folder: &Path, stopping: &str, stop_limit: Duration) -> Child {
    let engine = format!(
        "trap 'sleep {stopping}; echo > {folder}/stopped; exit' TERM; echo $TOLD > {folder}/told; echo $$ > {folder}/up; \
         while :; do sleep 0.05; done",
        folder = folder.display()
    );
    // Something after it, or the shell would become the engine.
    let shell = ["sh", "-c", "sh -c \"$0\"; true", &engine];
    Child {
        name: "engine",
        command: shell.map(Into::into).into(),
        environment: vec![("TOLD", "so".into())],
        stop_limit,
        reloads: false,
        pid_files: Vec::new(),
        note: None,
        must_begin: false,
        hint: "a shell is needed",
    }
}

/// Supervises it, asks for the end once it is up, and says how long that took.
async fn stopped(folder: &Path, child: Child) -> Duration {
    let shutdown = Shutdown::default();
    let supervising = tokio::spawn(supervise(vec![child], shutdown.clone()));
    while !std::fs::read_to_string(folder.join("up")).is_ok_and(|pid| pid.ends_with('\n')) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = Instant::now();
    shutdown.drain();
    assert_eq!(supervising.await.unwrap().unwrap(), Exit::Ok);
    asked.elapsed()
}

/// One test, since two supervisors in a process would take each other's children.
#[tokio::test]
async fn an_engine_behind_a_shell_has_its_time_to_stop_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let patient = wrapped(folder.path(), "0.5", Duration::from_secs(60));
    let took = stopped(folder.path(), patient).await;
    assert!(folder.path().join("stopped").exists(), "it was killed after {took:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("told")).unwrap(), "so\n");
    assert!(took < Duration::from_secs(30), "the empty group was waited for: {took:?}");

    let (folder, asked) = (tempfile::tempdir().unwrap(), Instant::now());
    let hasty = wrapped(folder.path(), "60", Duration::from_millis(300));
    let took = stopped(folder.path(), hasty).await;
    assert!(took < Duration::from_secs(20), "the limit was not held: {took:?}");
    assert!(!folder.path().join("stopped").exists());
    let engine = std::fs::read_to_string(folder.path().join("up")).unwrap();
    // It is ours to reap, and nobody does any more: a zombie has no command line.
    let command = || std::fs::read(format!("/proc/{}/cmdline", engine.trim())).unwrap_or_default();
    while !command().is_empty() {
        assert!(asked.elapsed() < Duration::from_secs(40), "it lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
