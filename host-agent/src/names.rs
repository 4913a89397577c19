//! Keeping the names of the host's images current, for callers that ask by digest.
//!
//! ```text
//!   a range that may not read everything ──► list ──► Library::learn_names
//!                                             ▲
//!   image events, or a while without any ─────┘
//! ```

use std::time::Duration;

use engine::ImageEvents;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use transfer::ImageSource as _;

use crate::admin::Admin;

/// Interval between lists of names without an event: for engines and folders that have none, and
/// for missed events.
const RELIST: Duration = Duration::from_secs(30);

/// Time within which events that follow each other count as one.
const SETTLE: Duration = Duration::from_millis(300);

/// Before an engine that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the names current; never returns. While every range may read every image, nothing is asked.
pub(crate) async fn keep(admin: &Admin) {
    let mut changes = admin.ranges.changes();
    loop {
        while !admin.grants.need_names() {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        // Followed before the list is made, so that no change falls between the two.
        let mut events = admin.engine.image_events().await;
        loop {
            match admin.engine.list().await {
                Ok(images) => admin.library.learn_names(&images),
                Err(error) => {
                    tracing::debug!(error = transfer::explain(&error), "images were not listed");
                    sleep(AGAIN).await;
                    break;
                }
            }
            if !changed(&mut events).await || !needed(admin, &mut changes) {
                break;
            }
        }
    }
}

fn needed(admin: &Admin, changes: &mut watch::Receiver<u64>) -> bool {
    changes.mark_unchanged();
    admin.grants.need_names()
}

/// Waits until the names may have changed; `false` when there will be no more events.
async fn changed(events: &mut Option<ImageEvents>) -> bool {
    let Some(following) = events else {
        sleep(RELIST).await;
        // An engine that has events may be back.
        return false;
    };
    match timeout(RELIST, following.next()).await {
        Ok(Some(Ok(()))) => {}
        Err(_elapsed) => return true,
        Ok(_ended) => {
            sleep(AGAIN).await;
            return false;
        }
    }
    let mut more = true;
    let settle = async {
        while more {
            more = matches!(following.next().await, Some(Ok(())));
        }
    };
    let _settled = timeout(SETTLE, settle).await;
    more
}
