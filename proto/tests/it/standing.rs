//! A reader that stands still while its window is shut: what it holds goes to the others.

use std::sync::Arc;
use std::time::Duration;

use control::Library;
use control::lending::{AllImages, Terms};
use proto::RemoteHost;
use tokio::time::{sleep, timeout};
use transfer::fixture::{bytes, drain};
use transfer::limited::WINDOW;
use transfer::store::Leases;
use transfer::{BlobSource as _, Digest, MAX_FRAME};

use crate::pipe::{LARGE, Served, lent, manners, memory_of, range, services};

/// Longer than a reader may stand still, and than another waits for its turn after that.
const LONG: Duration = Duration::from_secs(150);

/// One reads nothing of a blob of `size` bytes, which are all that may be in flight; another comes.
async fn check(size: usize) {
    let blob = bytes(1, size);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let in_flight = size.min(WINDOW) as u64;
    let terms = Terms { bytes_in_flight: in_flight, ..Terms::default() };
    let library = Library::new(Arc::new(memory), Arc::new(AllImages), Leases::default(), terms);
    let library = Arc::new(library);
    let standing = Served::new(services(range("a"), library.clone()).await, LARGE);
    let moving = Served::new(services(range("b"), library).await, LARGE);
    let [still, other] =
        [&standing, &moving].map(|served| RemoteHost::new(served.endpoint(), manners()));
    let open = async |host: &RemoteHost| {
        lent(host, &image).await.open(&Digest::of(&blob), 0).await.unwrap()
    };
    let whole = async |stream| {
        let (read, end) = drain(stream).await;
        end.unwrap();
        assert!(read == blob, "{size} bytes: other bytes came");
    };

    let unread = open(&still).await;
    let read = async { whole(open(&other).await).await };
    timeout(LONG, read).await.expect("the other never had its turn");
    // One who reads on after all has lost nothing but time.
    whole(unread).await;
    assert_eq!(standing.dials(), 3, "{size} bytes: one for control, two for the blob");

    sleep(LONG).await;
    whole(open(&other).await).await;
    assert_eq!(moving.dials(), 2, "{size} bytes: a connection that did its work was ended");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_in_mid_blob_gives_its_turn_back() {
    check(16 * MAX_FRAME).await;
}

/// The host has given its last frame to the connection, and nobody will ask it for another.
#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_before_the_last_bytes_gives_its_turn_back() {
    check(2 * MAX_FRAME + 100_000).await;
}
