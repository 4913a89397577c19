//! Permissions: the listener decides who calls, and every read is checked.

use std::sync::Arc;

use control::Caller;
use control::admin::{NewRange, Pruning};
use control::lending::{ImageName, Loan, ReadError};
use proto::{AdminClient, RemoteError};
use transfer::fixture::{MemorySource, image};
use transfer::{BlobError, LayerForm};

use crate::pipe::{LARGE, Served, library, range, services};

#[tokio::test(start_paused = true)]
async fn nothing_is_read_without_a_living_lease_of_ones_own() {
    let source = MemorySource::default();
    let (image, blobs) = image(1, &[10]);
    source.insert("image", (image.clone(), blobs));
    let library = library(Arc::new(source), Arc::new(control::lending::AllImages));
    let (a, b) = (range("a"), range("b"));
    let name = ImageName::Key(image.config_digest.into());
    let (_, lease) = library.image(&a, &name, LayerForm::AsStored).await.unwrap();
    let digest = image.layers[0].blob.digest;
    let loan =
        |lease_id: &str| Loan { config_digest: image.config_digest, lease_id: lease_id.into() };
    let read = async |caller: &Caller, loan: &Loan| {
        library.open(caller, loan, &digest, 0).await.map(|opened| opened.known.size)
    };
    let lost = |result: Result<u64, ReadError>| {
        matches!(result, Err(ReadError::Blob(BlobError::LeaseLost { .. })))
    };
    let own = loan(&lease.id);
    assert_eq!(read(&a, &own).await.unwrap(), image.layers[0].blob.size);
    assert!(lost(read(&b, &own).await), "another's lease was enough");
    assert!(lost(read(&Caller::Admin, &own).await), "the administrator has leases of his own");
    assert!(lost(read(&a, &loan("made-up")).await));
    // Reads keep it alive, far beyond its own time.
    for _ in 0..5 {
        tokio::time::advance(lease.ttl / 2).await;
        assert!(read(&a, &own).await.is_ok());
    }
    let (_, again) = library.image(&a, &name, LayerForm::AsStored).await.unwrap();
    assert_eq!(again.id, lease.id, "a second lease on the same image");
    tokio::time::advance(lease.ttl).await;
    assert!(lost(read(&a, &own).await), "the lease outlived its time");
    let (_, anew) = library.image(&a, &name, LayerForm::AsStored).await.unwrap();
    assert_ne!(anew.id, lease.id);
    library.forget(&a);
    assert!(lost(read(&a, &loan(&anew.id)).await), "a range that is gone still reads");
}

#[tokio::test]
async fn a_range_does_not_administer() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(control::lending::AllImages));
    let served = Served::new(services(range("a"), library.clone()).await, LARGE);
    let admin = AdminClient::new(served.endpoint());
    let name: control::RangeName = "b".parse().unwrap();
    let refused = [
        admin.stats().await.map(drop),
        admin.ranges().await.map(drop),
        admin.add_range(&NewRange::named(name.clone())).await.map(drop),
        admin.remove_range(&name).await,
        admin.verify_store().await.map(drop),
        admin.set_wanted(&name, &[], None).await.map(drop),
        admin.set_grants(&name, &[]).await.map(drop),
        admin.sync_range(&name).await.map(drop),
        admin.plan_range(&name, &[]).await.map(drop),
        admin.verify_range(&name, &[], true).await.map(drop),
        admin.watch_ranges(&[]).await.map(drop),
        admin.wanted(&name).await.map(drop),
        admin.transfers().await.map(drop),
        admin.prune(Pruning::default()).await.map(drop),
    ];
    for answer in refused {
        match answer {
            Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "NOT_ALLOWED"),
            other => panic!("{other:?}"),
        }
    }
    let served = Served::new(services(Caller::Admin, library).await, LARGE);
    assert_eq!(AdminClient::new(served.endpoint()).stats().await.unwrap().saves, 7);
}

#[tokio::test(start_paused = true)]
async fn one_range_cannot_take_every_place() {
    let source = MemorySource::default();
    let (image, blobs) = image(1, &[10]);
    source.insert("image", (image.clone(), blobs));
    let library = library(Arc::new(source), Arc::new(control::lending::AllImages));
    let name = ImageName::Key(image.config_digest.into());
    let digest = image.layers[0].blob.digest;
    let mut held = Vec::new();
    let open = async |caller: &Caller| {
        let (_, lease) = library.image(caller, &name, LayerForm::AsStored).await.unwrap();
        let loan = Loan { config_digest: image.config_digest, lease_id: lease.id };
        library.open(caller, &loan, &digest, 0).await
    };
    for _ in 0..8 {
        held.push(open(&range("a")).await.unwrap());
    }
    let asked = tokio::time::Instant::now();
    let Err(error) = open(&range("a")).await else { panic!("a ninth stream") };
    assert!(matches!(error, ReadError::Busy { limit: 8 }), "{error:?}");
    let patience = proto::client::Manners::default().stall;
    assert!(asked.elapsed() < patience, "told only after its caller gave the host up");
    held.push(open(&range("b")).await.unwrap());
    held.clear();
    assert!(open(&range("a")).await.is_ok());
    assert_eq!(library.served().reads, 10);
}
