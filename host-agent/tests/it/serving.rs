//! Calls of ranges and administrators to a served agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use control::RangeName;
use control::admin::NewRange;
use futures::TryStreamExt as _;
use futures::future::join_all;
use process::exit::Exit;
use proto::client::is_serving;
use proto::{AdminClient, Endpoint};
use transfer::{BlobError, BlobSource as _, ImageSource as _, LayerForm, OpenImage, StoreKind};

use crate::host::{HostAgent, app, engine, folder, read_all, size};

#[tokio::test]
async fn ranges_are_served_on_sockets_of_their_own_also_after_a_restart() {
    let ((docker, image), folder) = (engine(), folder());
    let first = HostAgent::start(folder.path(), &docker.address());
    let host = first.range("lab-1").await;
    assert_eq!(host.resolve(&app()).await.unwrap().config_digest, image.config_digest);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&first.admin_socket()), 0o600);
    assert_eq!(mode(&folder.path().join("ranges/lab-1/host/host.sock")), 0o600);
    assert_eq!(first.stop().await.unwrap(), Exit::Ok);

    let second = HostAgent::start(folder.path(), &docker.address());
    let ranges = second.admin().ranges().await.unwrap();
    assert_eq!(ranges.iter().map(|range| range.name.as_str()).collect::<Vec<_>>(), ["lab-1"]);
    // The same client, over the socket that the new agent put in the old one's place.
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));

    let name: RangeName = "lab-1".parse().unwrap();
    second.admin().remove_range(&name).await.unwrap();
    assert!(!folder.path().join("ranges/lab-1").exists());
    assert!(host.list().await.is_err(), "a removed range is still served");
    assert!(second.admin().remove_range(&name).await.is_err());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_range_is_no_administrator() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    let admin = AdminClient::new(host.endpoint().clone());
    assert!(admin.stats().await.is_err());
    assert!(admin.add_range(&NewRange::named("lab-2".parse().unwrap())).await.is_err());
    assert_eq!(agent.admin().ranges().await.unwrap().len(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn each_layer_is_taken_from_the_engine_once_for_all_ranges() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let mut hosts = Vec::new();
    for range in 0..4 {
        hosts.push(agent.range(&format!("lab-{range}")).await);
    }
    let read = join_all(hosts.iter().map(|host| read_all(host, &image))).await;
    assert!(read.into_iter().all(|bytes| bytes.unwrap() == size(&image)));
    let stats = agent.admin().stats().await.unwrap();
    assert_eq!((stats.saves, stats.max_ingests_per_digest), (1, 1), "{stats:?}");
    assert!(size(&image) < stats.engine_bytes_read, "{stats:?}");
    assert_eq!(stats.bytes_served, 4 * size(&image), "{stats:?}");
    assert_eq!(stats.engine.map(|engine| engine.store), Some(StoreKind::Graphdriver));
    assert!(0 < stats.peak_rss_bytes);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_corrupt_blob_is_put_aside_and_fetched_again() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    read_all(&host, &image).await.unwrap();
    let largest = image.layers.iter().max_by_key(|layer| layer.blob.size).unwrap();
    let file = folder.path().join("store/blobs/sha256").join(largest.blob.digest.hex());
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();

    let check = agent.admin().verify_store().await.unwrap();
    assert_eq!(check.quarantined, [largest.blob.digest]);
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    let stats = agent.admin().stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.saves), (1, 2), "{stats:?}");
    assert_eq!(agent.admin().verify_store().await.unwrap().quarantined, []);
    agent.stop().await.unwrap();
}

/// Rot beneath the file system shows to the range alone, which says so.
#[tokio::test]
async fn rot_that_only_a_range_can_see_is_looked_for_when_it_says_so() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    read_all(&host, &image).await.unwrap();
    let largest = image.layers.iter().max_by_key(|layer| layer.blob.size).unwrap();
    let path = folder.path().join("store/blobs/sha256").join(largest.blob.digest.hex());
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[5] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();

    for quarantined in [0, 0, 1] {
        let opened = host.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap();
        if quarantined == 1 {
            opened.blobs.doubt(&largest.blob.digest);
        }
        let stream = opened.blobs.open(&largest.blob.digest, 0).await.unwrap();
        let read: Result<Vec<_>, _> = stream.try_collect().await;
        assert!(matches!(read, Err(BlobError::DigestMismatch { .. })), "{read:?}");
        let stats = agent.admin().stats().await.unwrap();
        assert_eq!((stats.quarantined, stats.saves), (quarantined, 1), "{stats:?}");
    }
    assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
    let stats = agent.admin().stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.saves), (1, 2), "{stats:?}");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_starts_without_its_engine_and_says_which_one_it_lacks() {
    let folder = folder();
    let address = format!("unix://{}", folder.path().join("no-engine.sock").display());
    let agent = HostAgent::start(&folder.path().join("state"), &address);
    assert_eq!(agent.admin().stats().await.unwrap().engine, None);
    assert!(!is_serving(&Endpoint::unix(agent.admin_socket())).await.unwrap());
    let host = agent.range("lab-1").await;
    let error = format!("{:#}", anyhow::Error::from(host.resolve(&app()).await.unwrap_err()));
    assert!(error.contains("no-engine.sock"), "{error}");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn two_agents_never_share_a_store() {
    let ((docker, _image), folder) = (engine(), folder());
    let first = HostAgent::start(folder.path(), &docker.address());
    first.admin().stats().await.unwrap();
    let second = HostAgent::start(folder.path(), &docker.address());
    let error = format!("{:#}", second.task.await.unwrap().unwrap_err());
    assert!(error.contains("in use") && error.contains("store"), "{error}");
    first.admin().stats().await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let host = agent.range("lab-1").await;
    let key = image.config_digest.into();
    let OpenImage { image, blobs } = host.open(&key, LayerForm::AsStored).await.unwrap();
    let largest = image.layers.iter().max_by_key(|layer| layer.blob.size).unwrap();
    let mut stream = blobs.open(&largest.blob.digest, 0).await.unwrap();
    let first = stream.try_next().await.unwrap().unwrap();
    let stopping = tokio::spawn(agent.stop());
    let rest: Vec<_> = stream.try_collect().await.unwrap();
    let read = first.len() as u64 + rest.iter().map(|frame| frame.len() as u64).sum::<u64>();
    assert_eq!(read, largest.blob.size);
    drop((host, Arc::clone(&blobs)));
    assert_eq!(stopping.await.unwrap().unwrap(), Exit::Ok);
}
