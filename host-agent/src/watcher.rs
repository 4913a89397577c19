//! Watching ranges: their state at once, and again after each change.
//!
//! A watcher is behind by at most `PAUSE`, and gets no state twice: many changes in quick
//! succession are one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use control::RangeName;
use control::admin::RangeChange;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::ranges::Ranges;

/// Shortest time between two looks at the ranges; a few a second. A change after a quiet time is seen
/// at once.
const PAUSE: Duration = Duration::from_millis(200);

/// State of a watcher.
struct Watcher {
    ranges: Arc<Ranges>,
    /// The ranges that it requested; empty for all.
    names: Vec<RangeName>,
    changes: watch::Receiver<u64>,
    /// The number of the last change that was seen of each range; absent for one that was not there.
    seen: BTreeMap<RangeName, Option<u64>>,
    /// Ranges that changed, and whose state is still to be given.
    changed: VecDeque<RangeName>,
    /// Time of its last look; `None` before the first.
    looked: Option<Instant>,
}

/// The state of ranges: of each at once, then of each that changed, until draining begins. No names:
/// all that there are, and all that are added later.
pub fn watch(ranges: Arc<Ranges>, names: Vec<RangeName>) -> BoxStream<'static, RangeChange> {
    let draining = ranges.draining().cancelled_owned();
    let watcher = Watcher {
        changes: ranges.changes(),
        ranges,
        names,
        seen: BTreeMap::new(),
        changed: VecDeque::new(),
        looked: None,
    };
    let changes = stream::unfold(watcher, |mut watcher| async {
        let change = watcher.next().await?;
        Some((change, watcher))
    });
    changes.take_until(draining.boxed()).boxed()
}

impl Watcher {
    async fn next(&mut self) -> Option<RangeChange> {
        loop {
            if let Some(name) = self.changed.pop_front() {
                // As it is now, which may be later than the change that was seen.
                let now = self.ranges.get(&name).await;
                return Some(match now {
                    Some(range) => RangeChange::Now(Box::new(range)),
                    None => RangeChange::Removed(name),
                });
            }
            if let Some(looked) = self.looked {
                self.changes.changed().await.ok()?;
                sleep_until(looked + PAUSE).await;
            }
            self.looked = Some(Instant::now());
            self.look().await;
        }
    }

    /// Notes which ranges changed since the last look.
    async fn look(&mut self) {
        self.changes.borrow_and_update();
        let there = self.ranges.changed().await;
        let known: Vec<RangeName> = self.seen.keys().cloned().collect();
        let watched: Vec<&RangeName> = match self.names.as_slice() {
            [] => known.iter().chain(there.keys()).collect(),
            names => names.iter().collect(),
        };
        for name in watched {
            let now = there.get(name).copied();
            if self.seen.insert(name.clone(), now) != Some(now) {
                self.changed.push_back(name.clone());
            }
        }
        if self.names.is_empty() {
            // Removed images were reported once; forget them.
            self.seen.retain(|_, seen| seen.is_some());
        }
    }
}
