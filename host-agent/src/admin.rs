//! The host agent's administration: counters, ranges, the store's health.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control::admin::{
    AdminError, HostAdmin, HostStats, NewRange, Pruned, Pruning, RangeChange, RangeWants,
    ServedRange, StoreCheck, StoreStats,
};
use control::link::{FromRangeStream, LinkEnd, LinkHost, Task, TaskEvent, ToRangeStream};
use control::range::{ImagePlan, VerifyEvent};
use control::transfers::{Transfer, TransferId, TransferKind};
use control::{Caller, Library, Pattern, RangeName, WantedSet};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, Stream, StreamExt as _};
use process::memory;
use proto::server::{Health, Services};
use tokio::time::{Instant, timeout};
use transfer::Reference;
use transfer::metered::IngestCounters;
use transfer::store::{Arrival, FsStore, Goal, Policy};

use crate::engine::HostEngine;
use crate::grants::Grants;
use crate::link::RunningTask;
use crate::ranges::Ranges;
use crate::{store, watcher};

/// Maximum time that a status request waits for the engine.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The host agent, as an administrator sees it. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The engine that images come from.
    pub engine: Arc<HostEngine>,
    /// The store of layers.
    pub store: FsStore,
    /// Collection policy of the store.
    pub policy: Policy,
    /// Ingests of each digest.
    pub ingests: Arc<IngestCounters>,
    /// The images that callers read.
    pub library: Arc<Library>,
    /// The ranges that are served.
    pub ranges: Arc<Ranges>,
    /// The images that each of them may read.
    pub grants: Grants,
    /// Health of the agent.
    pub health: Health,
    /// Start of the agent.
    pub started: Instant,
}

impl Admin {
    /// Returns the services for a listener of `caller`. Every listener has all RPCs: the protocol's
    /// table decides which of them the caller may call, and the library decides which images a
    /// range may read.
    #[must_use]
    pub fn services(&self, caller: Caller) -> Services {
        let own = Arc::new(self.clone());
        Services::of_host(caller, self.library.clone(), own.clone(), own, &self.health)
    }

    /// Serves the ranges that were served before a restart. One whose socket cannot be made is left
    /// out: the others should not wait for it.
    ///
    /// # Errors
    /// The record of ranges cannot be read.
    pub async fn restore(&self) -> std::io::Result<()> {
        for name in self.ranges.known()? {
            let services = self.services(Caller::Range(name.clone()));
            if let Err(error) = self.ranges.restore(&name, services).await {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(range = %name, error, "not served");
            }
        }
        Ok(())
    }

    /// Serves a range that the command line names, with the patterns given there. Without any, one
    /// that had none before may read every image.
    ///
    /// # Errors
    /// As [`HostAdmin::add_range`], [`AdminError::Record`].
    pub async fn serve_from_the_start(
        &self,
        name: &RangeName,
        patterns: Vec<Pattern>,
    ) -> Result<(), AdminError> {
        let services = self.services(Caller::Range(name.clone()));
        let all = vec![Pattern::all()];
        let grants = if patterns.is_empty() { all.clone() } else { patterns.clone() };
        let range = NewRange { grants, ..NewRange::named(name.clone()) };
        self.ranges.add(range, services).await?;
        if !patterns.is_empty() {
            self.ranges.set_grants(name, patterns).await?;
            return Ok(());
        }
        self.ranges.set_first_grants(name, all).await?;
        if self.ranges.wants(name).await?.grants.iter().any(Pattern::is_all) {
            tracing::warn!(range = %name, "the range may read every image; narrow that with --grant");
        }
        Ok(())
    }

    /// Usage of the store; zeros if the system does not report it, which a status can do without.
    async fn store_stats(&self) -> StoreStats {
        let usage = self.store.usage().await.unwrap_or_default();
        let collected = self.store.collected();
        let (high_water, low_water) = store::marks(&self.store, &self.policy).await;
        StoreStats {
            blobs: usage.blobs,
            bytes: usage.bytes,
            high_water,
            low_water,
            collected_blobs: collected.blobs,
            collected_bytes: collected.bytes,
            free: self.store.space().await.unwrap_or_default().free,
        }
    }
}

/// A plan under way: the range may see the documents of its images.
struct Planning {
    admin: Admin,
    range: RangeName,
    images: Vec<Reference>,
}

impl Planning {
    fn begin(admin: &Admin, range: &RangeName, images: &[Reference]) -> Self {
        admin.grants.plan(range, images);
        Self { admin: admin.clone(), range: range.clone(), images: images.to_vec() }
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        self.admin.grants.planned(&self.range, &self.images);
        self.admin.library.grants_changed(&Caller::Range(self.range.clone()));
    }
}

/// The events of a range that is being verified; an error is the last.
fn verifying(task: RunningTask) -> impl Stream<Item = Result<VerifyEvent, AdminError>> + Send {
    stream::unfold(Some(task), |task| async {
        let mut task = task?;
        match task.next().await {
            Ok(TaskEvent::Verified(check)) => Some((Ok(VerifyEvent::Checked(check)), Some(task))),
            Ok(TaskEvent::Finished(summary)) => Some((Ok(VerifyEvent::Finished(summary)), None)),
            Ok(_) => Some((Err(task.strange()), None)),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn shown(arrival: &Arrival) -> Transfer {
    let (digest, size) = arrival.expected.unzip();
    Transfer {
        id: TransferId::Ingest(arrival.serial),
        started: arrival.started,
        bytes: arrival.bytes,
        kind: TransferKind::Ingest { digest, size },
    }
}

#[async_trait]
impl HostAdmin for Admin {
    async fn stats(&self, _caller: &Caller) -> HostStats {
        let engine = timeout(ANSWER_WITHIN, self.engine.info()).await;
        let ingests = self.ingests.snapshot().committed;
        let export = self.engine.stats();
        let served = self.library.served();
        HostStats {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed(),
            engine: engine.ok().and_then(Result::ok),
            ingests: ingests.values().sum(),
            ingested_digests: ingests.len() as u64,
            max_ingests_per_digest: ingests.values().copied().max().unwrap_or(0),
            engine_bytes_read: export.bytes_read,
            saves: export.saves,
            reads: served.reads,
            bytes_served: served.bytes,
            quarantined: self.store.quarantined(),
            peak_rss_bytes: memory::peak_rss().unwrap_or(0),
            export_way: self.engine.way().into(),
            store: self.store_stats().await,
        }
    }

    async fn ranges(&self, _caller: &Caller) -> Vec<ServedRange> {
        self.ranges.list().await
    }

    async fn watch_ranges(
        &self,
        _caller: &Caller,
        names: Vec<RangeName>,
    ) -> BoxStream<'static, RangeChange> {
        watcher::watch(self.ranges.clone(), names)
    }

    async fn add_range(
        &self,
        _caller: &Caller,
        range: NewRange,
    ) -> Result<ServedRange, AdminError> {
        let services = self.services(Caller::Range(range.name.clone()));
        let range = self.ranges.add(range, services).await?;
        tracing::info!(range = %range.name, socket = %range.socket_path.display(), "range added");
        Ok(range)
    }

    async fn remove_range(&self, _caller: &Caller, name: &RangeName) -> Result<(), AdminError> {
        let (library, caller) = (self.library.clone(), Caller::Range(name.clone()));
        self.ranges.remove(name, move || library.forget(&caller)).await?;
        tracing::info!(range = %name, "range removed");
        Ok(())
    }

    async fn set_wanted(
        &self,
        _caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
        expected_revision: Option<u64>,
    ) -> Result<WantedSet, AdminError> {
        let set = self.ranges.set_wanted(name, references, expected_revision).await?;
        self.library.grants_changed(&Caller::Range(name.clone()));
        tracing::info!(range = %name, images = set.references.len(), "wanted set");
        Ok(set)
    }

    async fn wanted(&self, _caller: &Caller, name: &RangeName) -> Result<RangeWants, AdminError> {
        self.ranges.wants(name).await
    }

    async fn set_grants(
        &self,
        _caller: &Caller,
        name: &RangeName,
        grants: Vec<Pattern>,
    ) -> Result<Vec<Pattern>, AdminError> {
        let grants = self.ranges.set_grants(name, grants).await?;
        self.library.grants_changed(&Caller::Range(name.clone()));
        tracing::info!(range = %name, patterns = grants.len(), "grants set");
        Ok(grants)
    }

    async fn sync_range(&self, _caller: &Caller, name: &RangeName) -> Result<u64, AdminError> {
        self.ranges.next_round(name).await
    }

    async fn plan_range(
        &self,
        _caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, AdminError> {
        let link = self.ranges.link(name).await?;
        let _until_planned = Planning::begin(self, name, &references);
        let mut task = link.begin_task(Task::Plan { references })?;
        match task.next().await? {
            TaskEvent::Planned(plans) => Ok(plans),
            _ => Err(task.strange()),
        }
    }

    async fn verify_range(
        &self,
        _caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, Result<VerifyEvent, AdminError>>, AdminError> {
        let task = Task::Verify { references, deep };
        let task = self.ranges.link(name).await?.begin_task(task)?;
        let draining = self.ranges.draining().cancelled_owned();
        Ok(verifying(task).take_until(draining.boxed()).boxed())
    }

    async fn transfers(&self, _caller: &Caller) -> Vec<Transfer> {
        // Reads come before ingests, and both are in order.
        self.library.reading().into_iter().chain(self.store.arrivals().iter().map(shown)).collect()
    }

    async fn prune(&self, _caller: &Caller, pruning: Pruning) -> Result<Pruned, AdminError> {
        let Pruning { target, dry_run } = pruning;
        let goal = Goal { target: target.unwrap_or(0), dry_run };
        let collected = self.store.collect(goal).await;
        let collected = collected.map_err(|error| AdminError::Store(error.into()))?;
        if !dry_run {
            tracing::info!(blobs = collected.blobs, bytes = collected.bytes, "store pruned");
        }
        Ok(Pruned {
            blobs: collected.blobs,
            bytes: collected.bytes,
            kept_leased: collected.kept_leased,
        })
    }

    async fn verify_store(&self, _caller: &Caller) -> Result<StoreCheck, AdminError> {
        let report = self.store.check().await.map_err(|error| AdminError::Store(error.into()))?;
        for (digest, why) in &report.unreadable {
            tracing::warn!(blob.digest = %digest, why, "a blob could not be read");
        }
        let quarantined = report.quarantined.len() as u64;
        tracing::info!(good = report.good, quarantined, "store verified");
        Ok(StoreCheck {
            blobs: report.good + quarantined,
            bytes: report.bytes,
            quarantined: report.quarantined,
        })
    }
}

#[async_trait]
impl LinkHost for Admin {
    async fn attach(
        &self,
        range: &RangeName,
        messages: FromRangeStream,
    ) -> Result<ToRangeStream, LinkEnd> {
        self.ranges.attach(range, messages).await
    }
}
