//! Requests and answers of `AdminService` about the agent and its store.

use super::{Malformed, duration, elapsed, parse_all, texts};
use crate::wire::generated as pb;
use control::admin::{HostStats, Pruned, Pruning, StoreCheck, StoreStats};

pub(crate) fn stats_request() -> pb::GetStatsRequest {
    pb::GetStatsRequest {}
}

impl From<HostStats> for pb::GetStatsResponse {
    fn from(stats: HostStats) -> Self {
        Self {
            version: stats.version,
            uptime: Some(duration(stats.uptime)),
            engine: stats.engine.map(Into::into),
            ingests: stats.ingests,
            ingested_digests: stats.ingested_digests,
            max_ingests_per_digest: stats.max_ingests_per_digest,
            engine_bytes_read: stats.engine_bytes_read,
            saves: stats.saves,
            reads: stats.reads,
            bytes_served: stats.bytes_served,
            quarantined: stats.quarantined,
            peak_rss_bytes: stats.peak_rss_bytes,
            export_way: stats.export_way,
            blobs_stored: stats.store.blobs,
            bytes_stored: stats.store.bytes,
            high_water_bytes: stats.store.high_water,
            low_water_bytes: stats.store.low_water,
            collected_blobs: stats.store.collected_blobs,
            collected_bytes: stats.store.collected_bytes,
            free_bytes: stats.store.free,
        }
    }
}

impl TryFrom<pb::GetStatsResponse> for HostStats {
    type Error = Malformed;

    fn try_from(stats: pb::GetStatsResponse) -> Result<Self, Malformed> {
        Ok(Self {
            version: stats.version,
            uptime: elapsed(stats.uptime),
            engine: stats.engine.map(TryInto::try_into).transpose()?,
            ingests: stats.ingests,
            ingested_digests: stats.ingested_digests,
            max_ingests_per_digest: stats.max_ingests_per_digest,
            engine_bytes_read: stats.engine_bytes_read,
            saves: stats.saves,
            reads: stats.reads,
            bytes_served: stats.bytes_served,
            quarantined: stats.quarantined,
            peak_rss_bytes: stats.peak_rss_bytes,
            export_way: stats.export_way,
            store: StoreStats {
                blobs: stats.blobs_stored,
                bytes: stats.bytes_stored,
                high_water: stats.high_water_bytes,
                low_water: stats.low_water_bytes,
                collected_blobs: stats.collected_blobs,
                collected_bytes: stats.collected_bytes,
                free: stats.free_bytes,
            },
        })
    }
}

pub(crate) fn verify_request() -> pb::VerifyStoreRequest {
    pb::VerifyStoreRequest {}
}

impl From<StoreCheck> for pb::VerifyStoreResponse {
    fn from(check: StoreCheck) -> Self {
        Self { blobs: check.blobs, bytes: check.bytes, quarantined: texts(&check.quarantined) }
    }
}

impl TryFrom<pb::VerifyStoreResponse> for StoreCheck {
    type Error = Malformed;

    fn try_from(check: pb::VerifyStoreResponse) -> Result<Self, Malformed> {
        Ok(Self {
            blobs: check.blobs,
            bytes: check.bytes,
            quarantined: parse_all("quarantined", &check.quarantined)?,
        })
    }
}

pub(crate) fn prune_request(request: pb::PruneRequest) -> Pruning {
    Pruning { target: request.target_bytes, dry_run: request.dry_run }
}

pub(crate) fn prune_wanted(pruning: Pruning) -> pb::PruneRequest {
    pb::PruneRequest { target_bytes: pruning.target, dry_run: pruning.dry_run }
}

impl From<Pruned> for pb::PruneResponse {
    fn from(Pruned { blobs, bytes, kept_leased }: Pruned) -> Self {
        Self { blobs, bytes, kept_leased }
    }
}

impl From<pb::PruneResponse> for Pruned {
    fn from(pb::PruneResponse { blobs, bytes, kept_leased }: pb::PruneResponse) -> Self {
        Self { blobs, bytes, kept_leased }
    }
}
