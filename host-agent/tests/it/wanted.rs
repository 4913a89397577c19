//! What ranges are to have, and remote ranges: told at once, and remembered.

use std::fs;
use std::net::SocketAddr;

use futures::StreamExt as _;
use proto::client::{Manners, RemoteError};
use proto::{AdminClient, Endpoint, RangeName, RemoteHost, WantedSet};
use transfer::{ImageSource as _, Reference};

use crate::host::{HostAgent, HostProcess, app, engine, folder, read_all, size};

fn names(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn lab(number: u32) -> RangeName {
    format!("lab-{number}").parse().unwrap()
}

fn reason(error: &RemoteError) -> &str {
    match error {
        RemoteError::Refused { reason, .. } => reason,
        RemoteError::Unavailable { .. } => "UNAVAILABLE",
    }
}

#[tokio::test]
async fn a_range_hears_of_its_own_set_and_of_no_other() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    let (first, second) = (agent.range("lab-1").await, agent.range("lab-2").await);
    let mut told = first.watch_wanted().await.unwrap();
    assert_eq!(told.next().await.unwrap().unwrap(), WantedSet::default());
    let set = admin.set_wanted(&lab(1), &names(&["b:1", "a:1", "b:1"])).await.unwrap();
    assert_eq!(set, WantedSet { references: names(&["b:1", "a:1"]), revision: 1 });
    assert_eq!(told.next().await.unwrap().unwrap(), set);
    let same = admin.set_wanted(&lab(1), &names(&["b:1", "a:1"])).await.unwrap();
    assert_eq!(same.revision, 1, "the same set again is no change");
    admin.set_wanted(&lab(1), &[]).await.unwrap();
    let emptied = WantedSet { references: vec![], revision: 2 };
    assert_eq!(told.next().await.unwrap().unwrap(), emptied);
    let others = second.watch_wanted().await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(others, WantedSet::default());
    assert_eq!(reason(&admin.set_wanted(&lab(3), &[]).await.unwrap_err()), "RANGE_NOT_FOUND");

    // A watcher does not hold up the end.
    let began = tokio::time::Instant::now();
    agent.stop().await.unwrap();
    assert!(began.elapsed().as_millis() < 900, "took {:?}", began.elapsed());
    assert!(told.next().await.unwrap().is_err(), "the watch ended as if nothing more could come");
}

#[tokio::test]
async fn what_is_wanted_survives_a_kill_and_is_forgotten_with_its_range() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let range = admin.add_range(&lab(1)).await.unwrap();
    let host = RemoteHost::new(Endpoint::unix(range.socket_path), Manners::default());
    let set = admin.set_wanted(&lab(1), &names(&["app:1"])).await.unwrap();
    agent.kill().await;
    // What a kill in the midst of the next write would leave.
    fs::write(folder.path().join("ranges/lab-1/range.json.new"), "{\"rev").unwrap();

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    assert_eq!(admin.wanted(&lab(1)).await.unwrap(), set);
    assert_eq!(admin.ranges().await.unwrap()[0].wanted, 1);
    assert_eq!(host.watch_wanted().await.unwrap().next().await.unwrap().unwrap(), set);
    admin.remove_range(&lab(1)).await.unwrap();
    assert_eq!(reason(&admin.wanted(&lab(1)).await.unwrap_err()), "RANGE_NOT_FOUND");
    admin.add_range(&lab(1)).await.unwrap();
    assert_eq!(admin.wanted(&lab(1)).await.unwrap(), WantedSet::default());
    agent.kill().await;
}

#[tokio::test]
async fn a_record_that_is_none_costs_the_set_and_nothing_else() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    agent.admin().set_wanted(&lab(1), &names(&["app:1"])).await.unwrap();
    agent.stop().await.unwrap();
    fs::write(folder.path().join("ranges/lab-1/range.json"), "not a record").unwrap();

    let agent = HostAgent::start(folder.path(), &docker.address());
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    assert_eq!(agent.admin().wanted(&lab(1)).await.unwrap(), WantedSet::default());
    let set = agent.admin().set_wanted(&lab(1), &names(&["app:1"])).await.unwrap();
    agent.stop().await.unwrap();
    let agent = HostAgent::start(folder.path(), &docker.address());
    assert_eq!(agent.admin().wanted(&lab(1)).await.unwrap(), set);
    agent.stop().await.unwrap();
}

fn remote(address: SocketAddr) -> RemoteHost {
    let endpoint: Endpoint = format!("http://{address}").parse().unwrap();
    RemoteHost::new(endpoint, Manners::default())
}

#[tokio::test]
async fn a_remote_range_is_known_by_its_address_also_after_a_kill() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let any = "127.0.0.1:0".parse().unwrap();
    let first = admin.add_remote_range(&lab(1), any).await.unwrap().tcp_endpoint.unwrap();
    assert_ne!(first.port(), 0);
    let second = admin.add_remote_range(&lab(2), any).await.unwrap().tcp_endpoint.unwrap();
    assert_ne!(first, second);
    let again = admin.add_remote_range(&lab(1), any).await.unwrap();
    assert_eq!(again.tcp_endpoint, Some(first), "asking again took another port");
    let set = admin.set_wanted(&lab(1), &names(&["app:1"])).await.unwrap();

    let host = remote(first);
    assert_eq!(host.resolve(&app()).await.unwrap().config_digest, image.config_digest);
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    assert_eq!(host.watch_wanted().await.unwrap().next().await.unwrap().unwrap(), set);
    let unset = remote(second).watch_wanted().await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(unset, WantedSet::default());
    let as_admin = AdminClient::new(host.endpoint().clone());
    assert_eq!(reason(&as_admin.set_wanted(&lab(1), &[]).await.unwrap_err()), "NOT_ALLOWED");
    agent.kill().await;

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let ranges = admin.ranges().await.unwrap();
    let addresses: Vec<_> = ranges.iter().map(|range| range.tcp_endpoint).collect();
    assert_eq!(addresses, [Some(first), Some(second)]);
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    admin.remove_range(&lab(1)).await.unwrap();
    assert!(host.list().await.is_err(), "a removed range is still served");
    agent.kill().await;
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_somebody_who_insists() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let open = "0.0.0.0:0".parse().unwrap();
    let refused = agent.admin().add_remote_range(&lab(1), open).await.unwrap_err();
    assert_eq!(reason(&refused), "REMOTE_NOT_ALLOWED");
    assert_eq!(agent.admin().ranges().await.unwrap(), [], "a refused range was added");
    let taken = agent.admin().add_remote_range(&lab(1), "127.0.0.1:0".parse().unwrap()).await;
    let taken = taken.unwrap().tcp_endpoint.unwrap();
    let error = agent.admin().add_remote_range(&lab(2), taken).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.contains(&taken.to_string()) && error.contains("in use"), "{error}");
    agent.stop().await.unwrap();

    let mut config = crate::host::config(folder.path(), &docker.address());
    config.remote_any = true;
    let agent = HostAgent::start_with(config);
    assert!(agent.admin().add_remote_range(&lab(3), open).await.is_ok());
    agent.stop().await.unwrap();
}
