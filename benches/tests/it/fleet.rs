//! What it costs to find out that nothing changed, in questions rather than in seconds.

use benches::fleet::{Fleet, Size};
use transfer::StoreKind;

/// Requests that come whatever is synced: signs of life, and who an engine is.
const BESIDE: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_did_not_change_costs_each_engine_few_questions() {
    let size = Size { ranges: 2, images: 8 };
    let looks = (size.ranges * size.images) as u64;
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let fleet = Fleet::start(size, store).await.unwrap();
        fleet.sync().await.unwrap();
        let before = fleet.requests();
        fleet.sync().await.unwrap();
        let after = fleet.requests();
        let (host, ranges) = (after.0 - before.0, after.1 - before.1);
        // The host's is asked what each name means, a range's whether it has the image.
        assert!(host <= looks + BESIDE, "{store}: {host} for {looks} looks");
        assert!(ranges <= looks + 2 * BESIDE, "{store}: {ranges} for {looks} looks");
        fleet.end().await.unwrap();
    }
}
