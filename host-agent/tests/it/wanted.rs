//! Wanted images of ranges, also remote ones: sent over their links at once, and remembered.

use std::fs;
use std::net::SocketAddr;

use control::admin::{NewRange, ServedRange};
use control::link::{FromHostStream, LinkError, LinkRange as _, ToRange};
use control::{RangeName, WantedSet};
use futures::{StreamExt as _, stream};
use proto::client::{Manners, RemoteError};
use proto::{AdminClient, Endpoint, LinkClient, RemoteHost};
use transfer::{ImageSource as _, Reference};

use crate::host::{HostAgent, HostProcess, app, engine, folder, read_all, size};
use crate::link::report;

fn names(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn lab(number: u32) -> RangeName {
    format!("lab-{number}").parse().unwrap()
}

/// A range that nothing was set for.
fn is_unset(set: &WantedSet) -> bool {
    set.references.is_empty() && set.revision == 0 && set.round != 0
}

/// The link of the range that reads from `host`, after a first report without images.
async fn attach(host: &RemoteHost) -> FromHostStream {
    let said = stream::iter([report(true, Vec::new())]).chain(stream::pending());
    LinkClient::new(host.endpoint().clone()).attach(said.boxed()).await.unwrap()
}

async fn next_set(link: &mut FromHostStream) -> WantedSet {
    match link.next().await {
        Some(Ok(ToRange::Wanted(set))) => set,
        other => panic!("{other:?}"),
    }
}

async fn first_set(host: &RemoteHost) -> WantedSet {
    next_set(&mut attach(host).await).await
}

async fn wanted(admin: &AdminClient, range: &RangeName) -> WantedSet {
    admin.wanted(range).await.unwrap().wanted
}

async fn add_remote(
    admin: &AdminClient,
    range: RangeName,
    address: SocketAddr,
) -> Result<ServedRange, RemoteError> {
    admin.add_range(&NewRange { tcp: Some(address), ..NewRange::named(range) }).await
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
    let mut told = attach(&first).await;
    let unset = next_set(&mut told).await;
    assert!(is_unset(&unset), "{unset:?}");
    let set = admin.set_wanted(&lab(1), &names(&["b:1", "a:1", "b:1"]), None).await.unwrap();
    assert_eq!((&set.references, set.revision), (&names(&["b:1", "a:1"]), 1));
    assert!(unset.round < set.round);
    assert_eq!(next_set(&mut told).await, set);
    let same = admin.set_wanted(&lab(1), &names(&["b:1", "a:1"]), None).await.unwrap();
    assert_eq!(same, set, "the same set again is no change");
    let emptied = admin.set_wanted(&lab(1), &[], Some(1)).await.unwrap();
    assert_eq!((&emptied.references, emptied.revision), (&vec![], 2));
    assert_eq!(next_set(&mut told).await, emptied);
    let others = first_set(&second).await;
    assert!(is_unset(&others), "{others:?}");
    assert_eq!(reason(&admin.set_wanted(&lab(3), &[], None).await.unwrap_err()), "RANGE_NOT_FOUND");

    // A link does not hold up the end.
    let began = tokio::time::Instant::now();
    agent.stop().await.unwrap();
    assert!(began.elapsed().as_millis() < 900, "took {:?}", began.elapsed());
    let end = told.next().await.unwrap().unwrap_err();
    assert!(matches!(end, LinkError::Broken(_)), "{end:?}");
}

#[tokio::test]
async fn what_is_wanted_survives_a_kill_and_is_forgotten_with_its_range() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let range = admin.add_range(&NewRange::named(lab(1))).await.unwrap();
    let host = RemoteHost::new(Endpoint::unix(range.socket_path), Manners::default());
    let set = admin.set_wanted(&lab(1), &names(&["app:1"]), None).await.unwrap();
    agent.kill().await;
    // The remains of an interrupted write.
    fs::write(folder.path().join("ranges/lab-1/range.json.new"), "{\"rev").unwrap();

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    assert_eq!(wanted(&admin, &lab(1)).await, set);
    assert_eq!(admin.ranges().await.unwrap()[0].wanted, set);
    assert_eq!(first_set(&host).await, set);
    admin.remove_range(&lab(1)).await.unwrap();
    assert_eq!(reason(&admin.wanted(&lab(1)).await.unwrap_err()), "RANGE_NOT_FOUND");
    admin.add_range(&NewRange::named(lab(1))).await.unwrap();
    assert!(is_unset(&wanted(&admin, &lab(1)).await));
    agent.kill().await;
}

#[tokio::test]
async fn a_record_that_is_none_costs_the_set_and_the_grants_and_nothing_else() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    agent.admin().set_wanted(&lab(1), &names(&["app:1"]), None).await.unwrap();
    agent.stop().await.unwrap();
    fs::write(folder.path().join("ranges/lab-1/range.json"), "not a record").unwrap();

    let agent = HostAgent::start(folder.path(), &docker.address());
    let error = read_all(&host, &image).await.unwrap_err();
    assert!(error.to_string().contains("is not on the host"), "{error:?}");
    assert!(is_unset(&wanted(&agent.admin(), &lab(1)).await));
    let set = agent.admin().set_wanted(&lab(1), &names(&["app:1"]), None).await.unwrap();
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    agent.stop().await.unwrap();
    let agent = HostAgent::start(folder.path(), &docker.address());
    assert_eq!(wanted(&agent.admin(), &lab(1)).await, set);
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
    let first = add_remote(&admin, lab(1), any).await.unwrap().tcp_endpoint.unwrap();
    assert_ne!(first.port(), 0);
    let second = add_remote(&admin, lab(2), any).await.unwrap().tcp_endpoint.unwrap();
    assert_ne!(first, second);
    let again = add_remote(&admin, lab(1), any).await.unwrap();
    assert_eq!(again.tcp_endpoint, Some(first), "asking again took another port");
    let set = admin.set_wanted(&lab(1), &names(&["app:1"]), None).await.unwrap();

    let host = remote(first);
    assert_eq!(host.resolve(&app()).await.unwrap().config_digest, image.config_digest);
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    assert_eq!(first_set(&host).await, set);
    let unset = first_set(&remote(second)).await;
    assert!(is_unset(&unset), "{unset:?}");
    let as_admin = AdminClient::new(host.endpoint().clone());
    assert_eq!(reason(&as_admin.set_wanted(&lab(1), &[], None).await.unwrap_err()), "NOT_ALLOWED");
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
    let refused = add_remote(&agent.admin(), lab(1), open).await.unwrap_err();
    assert_eq!(reason(&refused), "REMOTE_NOT_ALLOWED");
    assert_eq!(agent.admin().ranges().await.unwrap(), [], "a refused range was added");
    let taken = add_remote(&agent.admin(), lab(1), "127.0.0.1:0".parse().unwrap()).await;
    let taken = taken.unwrap().tcp_endpoint.unwrap();
    let error = add_remote(&agent.admin(), lab(2), taken).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.contains(&taken.to_string()) && error.contains("in use"), "{error}");
    agent.stop().await.unwrap();

    let mut config = crate::host::config(folder.path(), &docker.address());
    config.remote_any = true;
    let agent = HostAgent::start_with(config);
    assert!(add_remote(&agent.admin(), lab(3), open).await.is_ok());
    agent.stop().await.unwrap();
}
