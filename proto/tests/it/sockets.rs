//! Real sockets: health, drains, and how many connections there may be.

use std::sync::Arc;

use control::lending::AllImages;
use futures::TryStreamExt as _;
use proto::client::is_serving;
use proto::server::{Caps, HOST_SERVICES, Health, Listener, Server, Services};
use proto::{Endpoint, RemoteHost};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use transfer::fixture::{MemorySource, bytes};
use transfer::{BlobSource as _, Digest, MAX_FRAME};

use crate::pipe::{Idle, lent, library, manners, memory_of, range};

fn serve(
    listener: Listener,
    images: MemorySource,
    health: &Health,
    caps: Caps,
) -> (Server, Endpoint) {
    let endpoint = listener.to_string().parse().unwrap();
    let library = library(Arc::new(images), Arc::new(AllImages));
    let services = Services::of_host(range("a"), library, Arc::new(Idle), Arc::new(Idle), health);
    (Server::new(listener, services, caps), endpoint)
}

#[tokio::test]
async fn health_is_told_over_tcp_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = [
        Listener::unix(&folder.path().join("a.sock"), 0o600).unwrap(),
        Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap(),
    ];
    for listener in listeners {
        let health = Health::not_serving(&HOST_SERVICES).await;
        let (server, endpoint) = serve(listener, MemorySource::default(), &health, Caps::default());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        assert!(!is_serving(&endpoint).await.unwrap(), "{endpoint}");
        health.set(true).await;
        assert!(is_serving(&endpoint).await.unwrap(), "{endpoint}");
        shutdown.cancel();
        running.await.unwrap().unwrap();
        assert!(is_serving(&endpoint).await.is_err(), "{endpoint}");
    }
}

#[tokio::test]
async fn what_is_under_way_is_finished_before_a_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let blob = bytes(1, 16 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let health = Health::not_serving(&HOST_SERVICES).await;
    let listener = Listener::unix(&folder.path().join("a.sock"), 0o600).unwrap();
    let (server, endpoint) = serve(listener, memory, &health, Caps::default());
    let connections = server.connections();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    let host = RemoteHost::new(endpoint, manners());
    let source = lent(&host, &image).await;
    let mut read = source.open(&Digest::of(&blob), 0).await.unwrap();
    assert_eq!(connections.open(), 2);
    let mut size = read.try_next().await.unwrap().unwrap().len();
    shutdown.cancel();
    while let Some(frame) = read.try_next().await.unwrap() {
        size += frame.len();
    }
    assert_eq!(size, blob.len());
    running.await.unwrap().unwrap();
    assert_eq!(connections.open(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the socket was left");
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_connections() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let health = Health::not_serving(&HOST_SERVICES).await;
    let listener = Listener::unix(&path, 0o600).unwrap();
    let caps = Caps { connections: 1, ..Caps::default() };
    let (server, _) = serve(listener, MemorySource::default(), &health, caps);
    let running = tokio::spawn(server.run(CancellationToken::new()));
    let mut first = tokio::net::UnixStream::connect(&path).await.unwrap();
    // The server speaks first; the second connection has to wait for a place.
    assert_ne!(first.read(&mut [0; 9]).await.unwrap(), 0);
    let mut second = tokio::net::UnixStream::connect(&path).await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let mut rest = Vec::new();
    for stream in [&mut first, &mut second] {
        // Reset or closed, but at an end.
        let _ended = stream.read_to_end(&mut rest).await;
    }
}
