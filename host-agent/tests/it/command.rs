//! The command as people and scripts have it: a process, its output, its exit code, and kills.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use control::admin::NewRange;
use control::{RangeName, WantedSet};
use serde_json::Value;
use transfer::Reference;

use crate::host::{HostProcess, engine, folder};

async fn run(arguments: &[&str], state: &Path) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_longshore-host-agent"))
        .args(arguments)
        .arg("--state-dir")
        .arg(state)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_status_tells_how_the_agent_is_and_ends_accordingly() {
    let ((docker, _image), folder) = (engine(), folder());
    let absent = run(&["status"], folder.path()).await;
    assert_eq!(absent.status.code(), Some(1));
    let error = String::from_utf8(absent.stderr).unwrap();
    assert!(error.contains("is the host agent") && error.contains("admin.sock"), "{error}");

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let name: RangeName = "lab-1".parse().unwrap();
    admin.add_range(&NewRange::named(name.clone())).await.unwrap();
    admin.set_wanted(&name, &["app:1".parse().unwrap()], None).await.unwrap();
    let json = run(&["status", "--format", "json"], folder.path()).await;
    assert_eq!(json.status.code(), Some(0), "{json:?}");
    let status: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status["serving"], true);
    assert_eq!(
        (&status["ranges"][0]["name"], &status["ranges"][0]["wanted"]),
        (&"lab-1".into(), &1.into())
    );
    assert_eq!(status["ranges"][0]["in_step"], Value::Null, "there is no agent to say so");
    let table = run(&["status"], folder.path()).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("engine   docker") && table.contains("lab-1"), "{table}");
    agent.kill().await;

    let nowhere = format!("unix://{}", folder.path().join("no-engine.sock").display());
    let agent = HostProcess::start(folder.path(), &nowhere);
    agent.admin(folder.path()).await;
    let status = run(&["status"], folder.path()).await;
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    agent.kill().await;
}

/// Kills, each at another moment of a loop that writes the same range's set.
const KILLS: u32 = 12;

/// The last of these moments, where a write takes less: several are done until then.
const LAST_MOMENT: Duration = Duration::from_millis(25);

#[tokio::test]
async fn a_set_that_was_answered_survives_a_kill_at_any_moment() {
    let ((docker, _image), folder) = (engine(), folder());
    let name: RangeName = "lab-1".parse().unwrap();
    let mut answered = WantedSet::default();
    for kill in 0..=KILLS {
        let agent = HostProcess::start(folder.path(), &docker.address());
        let admin = agent.admin(folder.path()).await;
        admin.add_range(&NewRange::named(name.clone())).await.unwrap();
        let found = admin.wanted(&name).await.unwrap().wanted;
        // The one that was answered last, or the one after it, whose answer was lost.
        assert!(
            (&found.references, found.revision) == (&answered.references, answered.revision)
                || found.revision == answered.revision + 1,
            "kill {kill}: {answered:?} was answered, {found:?} is there"
        );
        assert_eq!(found.references.len(), usize::from(found.revision != 0), "{found:?}");
        answered = found;
        let set = async |before: &WantedSet| {
            let next: Reference = format!("app:{}", before.revision).parse().unwrap();
            admin.set_wanted(&name, &[next], Some(before.revision)).await.unwrap()
        };
        // One is answered before every kill, however long that takes here: the kill's moment is
        // within as long again, while the next are under way.
        let begun = Instant::now();
        answered = set(&answered).await;
        let moment = begun.elapsed().max(LAST_MOMENT) * kill / KILLS;
        let setting = async {
            loop {
                answered = set(&answered).await;
            }
        };
        tokio::select! {
            () = setting => unreachable!("it goes on until the kill"),
            () = tokio::time::sleep(moment) => agent.kill().await,
        }
    }
    assert!(u64::from(KILLS) < answered.revision, "not every round had an answer");
}
