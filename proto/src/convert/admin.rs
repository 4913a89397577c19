//! Requests and answers of `AdminService`.

use std::net::SocketAddr;

use tonic::Status;
use transfer::Reference;

use super::page::Page;
use super::wanted::wanted_references;
use super::{Malformed, duration, elapsed, parse, parse_all, status, texts};
use crate::admin::{HostStats, Pruned, Pruning, ServedRange, StoreCheck, StoreStats};
use crate::identity::RangeName;
use crate::wire::MAX_PAGE;
use crate::wire::generated as pb;

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

impl From<ServedRange> for pb::Range {
    fn from(range: ServedRange) -> Self {
        Self {
            name: range.name.to_string(),
            socket_path: range.socket_path.display().to_string(),
            connections: range.connections,
            wanted: range.wanted,
            tcp_endpoint: range.tcp_endpoint.map(|at| format!("{TCP}{at}")).unwrap_or_default(),
        }
    }
}

/// What a TCP endpoint begins with.
const TCP: &str = "http://";

impl TryFrom<pb::Range> for ServedRange {
    type Error = Malformed;

    fn try_from(range: pb::Range) -> Result<Self, Malformed> {
        let tcp_endpoint = match range.tcp_endpoint.strip_prefix(TCP) {
            Some(address) => Some(parse("tcp_endpoint", address)?),
            None if range.tcp_endpoint.is_empty() => None,
            None => return Err(Malformed::new("tcp_endpoint", "is no http endpoint")),
        };
        Ok(Self {
            name: parse("name", &range.name)?,
            socket_path: range.socket_path.into(),
            connections: range.connections,
            wanted: range.wanted,
            tcp_endpoint,
        })
    }
}

pub(crate) fn ranges_request(request: &pb::ListRangesRequest) -> Result<Page<RangeName>, Status> {
    Page::parse(request.page_size, &request.page_token)
}

pub(crate) fn ranges_response(
    page: &Page<RangeName>,
    ranges: Vec<ServedRange>,
) -> pb::ListRangesResponse {
    let (ranges, next_page_token) = page.cut(ranges, |range| range.name.clone());
    pb::ListRangesResponse { ranges: ranges.into_iter().map(Into::into).collect(), next_page_token }
}

pub(crate) fn next_ranges(page_token: String) -> pb::ListRangesRequest {
    pb::ListRangesRequest { page_size: i32::try_from(MAX_PAGE).unwrap_or_default(), page_token }
}

/// The ranges of a page, and the token of the next; `None` when this was the last.
pub(crate) fn ranges_listed(
    response: pb::ListRangesResponse,
) -> Result<(Vec<ServedRange>, Option<String>), Malformed> {
    let ranges = response.ranges.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok((ranges, Some(response.next_page_token).filter(|token| !token.is_empty())))
}

fn range_name(text: &str) -> Result<RangeName, Status> {
    text.parse().map_err(|error| status::invalid("name", error))
}

pub(crate) fn add_request(
    request: &pb::AddRangeRequest,
) -> Result<(RangeName, Option<SocketAddr>), Status> {
    let tcp = match request.tcp_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            status::invalid("tcp_address", "is no address with a port such as 127.0.0.1:0")
        })?),
    };
    Ok((range_name(&request.name)?, tcp))
}

pub(crate) fn add_wanted(name: &RangeName, tcp: Option<SocketAddr>) -> pb::AddRangeRequest {
    let tcp_address = tcp.map(|address| address.to_string()).unwrap_or_default();
    pb::AddRangeRequest { name: name.to_string(), tcp_address }
}

pub(crate) fn add_response(range: ServedRange) -> pb::AddRangeResponse {
    pb::AddRangeResponse { range: Some(range.into()) }
}

pub(crate) fn added(response: pb::AddRangeResponse) -> Result<ServedRange, Malformed> {
    response.range.ok_or(Malformed::absent("range"))?.try_into()
}

pub(crate) fn remove_request(request: &pb::RemoveRangeRequest) -> Result<RangeName, Status> {
    range_name(&request.name)
}

pub(crate) fn remove_wanted(name: &RangeName) -> pb::RemoveRangeRequest {
    pb::RemoveRangeRequest { name: name.to_string() }
}

pub(crate) fn remove_response() -> pb::RemoveRangeResponse {
    pb::RemoveRangeResponse {}
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

pub(crate) fn set_wanted_request(
    request: &pb::SetWantedRequest,
) -> Result<(RangeName, Vec<Reference>), Status> {
    Ok((range_name(&request.name)?, wanted_references(&request.references)?))
}

pub(crate) fn set_wanted_wanted(
    name: &RangeName,
    references: &[Reference],
) -> pb::SetWantedRequest {
    pb::SetWantedRequest { name: name.to_string(), references: texts(references) }
}

pub(crate) fn get_wanted_request(request: &pb::GetWantedRequest) -> Result<RangeName, Status> {
    range_name(&request.name)
}

pub(crate) fn get_wanted_wanted(name: &RangeName) -> pb::GetWantedRequest {
    pb::GetWantedRequest { name: name.to_string() }
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
