//! The cost of a sync without changes, counted in engine requests rather than seconds.

use benches::fleet::{Fleet, Size};
use transfer::StoreKind;

/// Requests per engine beyond the synced images, such as pings and engine info.
const OTHER: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_costs_each_engine_few_requests() {
    let size = Size { ranges: 2, images: 8 };
    let images = (size.ranges * size.images) as u64;
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let fleet = Fleet::start(size, store).await.unwrap();
        fleet.sync().await.unwrap();
        let before = fleet.requests();
        fleet.sync().await.unwrap();
        let after = fleet.requests();
        let (host, ranges) = (after.0 - before.0, after.1 - before.1);
        // The host's engine resolves each name; a range's engine reports whether it has the image.
        assert!(host <= images + OTHER, "{store}: {host} host requests for {images} images");
        assert!(ranges <= images + 2 * OTHER, "{store}: {ranges} requests for {images} images");
        fleet.end().await.unwrap();
    }
}
