//! Requests and answers of `AdminService` about ranges.

use std::time::SystemTime;

use prost::Message as _;
use tonic::Status;
use transfer::Reference;

use super::page::Page;
use super::range::some_references;
use super::wanted::{self, wanted_references};
use super::{Malformed, parse, parse_all, status, texts};
use crate::wire::generated as pb;
use crate::wire::{MAX_PAGE, MAX_REFERENCES, MAX_RESPONSE};
use control::admin::{NewRange, RangeChange, ServedRange};
use control::link::Attachment;
use control::range::{ImagePlan, VerifyEvent};
use control::{Pattern, RangeName};

impl From<ServedRange> for pb::Range {
    fn from(range: ServedRange) -> Self {
        let (attached, seen) = match range.attachment {
            Attachment::Never => (None, None),
            Attachment::Attached { since, last_seen } => (Some(since), Some(last_seen)),
            Attachment::Detached { last_seen } => (None, Some(last_seen)),
        };
        Self {
            name: range.name.to_string(),
            socket_path: range.socket_path.display().to_string(),
            connections: range.connections,
            tcp_endpoint: range.tcp_endpoint.map(|at| format!("{TCP}{at}")).unwrap_or_default(),
            wanted: Some(range.wanted.into()),
            grants: texts(&range.grants),
            attached_time: attached.map(Into::into),
            last_seen_time: seen.map(Into::into),
            report: range.state.map(Into::into),
        }
    }
}

/// Prefix of a TCP endpoint.
const TCP: &str = "http://";

impl TryFrom<pb::Range> for ServedRange {
    type Error = Malformed;

    fn try_from(range: pb::Range) -> Result<Self, Malformed> {
        let tcp_endpoint = match range.tcp_endpoint.strip_prefix(TCP) {
            Some(address) => Some(parse("tcp_endpoint", address)?),
            None if range.tcp_endpoint.is_empty() => None,
            None => return Err(Malformed::new("tcp_endpoint", "is no http endpoint")),
        };
        let attached = time("attached_time", range.attached_time)?;
        let attachment = match (attached, time("last_seen_time", range.last_seen_time)?) {
            (Some(since), Some(last_seen)) => Attachment::Attached { since, last_seen },
            (None, Some(last_seen)) => Attachment::Detached { last_seen },
            (None, None) => Attachment::Never,
            (Some(_), None) => return Err(Malformed::absent("last_seen_time")),
        };
        Ok(Self {
            name: parse("name", &range.name)?,
            socket_path: range.socket_path.into(),
            connections: range.connections,
            tcp_endpoint,
            wanted: wanted::given(range.wanted)?,
            grants: parse_all("grants", &range.grants)?,
            attachment,
            state: range.report.map(TryInto::try_into).transpose()?,
        })
    }
}

fn time(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<SystemTime>, Malformed> {
    time.map(SystemTime::try_from).transpose().map_err(|error| Malformed::new(field, error))
}

/// Bytes of a page of ranges after which it ends: a response is at most [`MAX_RESPONSE`], and the
/// report of one range a few MiB.
const MAX_RANGES_PAGE: usize = MAX_RESPONSE / 2;

pub(crate) fn ranges_request(request: &pb::ListRangesRequest) -> Result<Page<RangeName>, Status> {
    Page::parse(request.page_size, &request.page_token)
}

pub(crate) fn ranges_response(
    page: &Page<RangeName>,
    ranges: Vec<ServedRange>,
) -> pb::ListRangesResponse {
    let (ranges, mut next_page_token) = page.cut(ranges, |range| range.name.clone());
    let mut listed = Vec::with_capacity(ranges.len());
    let mut size = 0;
    for range in ranges {
        let (name, range) = (range.name.clone(), pb::Range::from(range));
        size += range.encoded_len();
        listed.push(range);
        // A page with large reports ends early, and the next begins behind its last range.
        if MAX_RANGES_PAGE < size {
            next_page_token = name.to_string();
            break;
        }
    }
    pb::ListRangesResponse { ranges: listed, next_page_token }
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

pub(crate) fn add_request(request: &pb::AddRangeRequest) -> Result<NewRange, Status> {
    let tcp = match request.tcp_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            status::invalid("tcp_address", "is no address with a port such as 127.0.0.1:0")
        })?),
    };
    Ok(NewRange {
        name: range_name(&request.name)?,
        tcp,
        wanted: wanted_references(&request.wanted)?,
        grants: wanted::patterns(&request.grants)?,
    })
}

pub(crate) fn add_wanted(range: &NewRange) -> pb::AddRangeRequest {
    pb::AddRangeRequest {
        name: range.name.to_string(),
        tcp_address: range.tcp.map(|address| address.to_string()).unwrap_or_default(),
        wanted: texts(&range.wanted),
        grants: texts(&range.grants),
    }
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

pub(crate) fn set_wanted_request(
    request: &pb::SetWantedRequest,
) -> Result<(RangeName, Vec<Reference>, Option<u64>), Status> {
    let references = wanted_references(&request.references)?;
    Ok((range_name(&request.name)?, references, request.expected_revision))
}

pub(crate) fn set_wanted_wanted(
    name: &RangeName,
    references: &[Reference],
    expected_revision: Option<u64>,
) -> pb::SetWantedRequest {
    pb::SetWantedRequest {
        name: name.to_string(),
        references: texts(references),
        expected_revision,
    }
}

pub(crate) fn set_grants_request(
    request: &pb::SetGrantsRequest,
) -> Result<(RangeName, Vec<Pattern>), Status> {
    Ok((range_name(&request.name)?, wanted::patterns(&request.grants)?))
}

pub(crate) fn set_grants_wanted(name: &RangeName, grants: &[Pattern]) -> pb::SetGrantsRequest {
    pb::SetGrantsRequest { name: name.to_string(), grants: texts(grants) }
}

pub(crate) fn set_grants_response(grants: &[Pattern]) -> pb::SetGrantsResponse {
    pb::SetGrantsResponse { grants: texts(grants) }
}

pub(crate) fn grants_were_set(response: &pb::SetGrantsResponse) -> Result<Vec<Pattern>, Malformed> {
    parse_all("grants", &response.grants)
}

pub(crate) fn sync_request(request: &pb::SyncRangeRequest) -> Result<RangeName, Status> {
    range_name(&request.name)
}

pub(crate) fn sync_wanted(name: &RangeName) -> pb::SyncRangeRequest {
    pb::SyncRangeRequest { name: name.to_string() }
}

pub(crate) fn sync_response(round: u64) -> pb::SyncRangeResponse {
    pb::SyncRangeResponse { round }
}

pub(crate) fn watch_request(request: &pb::WatchRangesRequest) -> Result<Vec<RangeName>, Status> {
    if MAX_REFERENCES < request.names.len() {
        return Err(status::invalid("names", format!("has more than {MAX_REFERENCES} entries")));
    }
    let names = request.names.iter().map(|name| name.parse());
    names.collect::<Result<_, _>>().map_err(|error| status::invalid("names", error))
}

pub(crate) fn watch_wanted(names: &[RangeName]) -> pb::WatchRangesRequest {
    pb::WatchRangesRequest { names: texts(names) }
}

pub(crate) fn watch_response(change: RangeChange) -> pb::WatchRangesResponse {
    use pb::watch_ranges_response::State;
    let state = match change {
        RangeChange::Now(range) => State::Range((*range).into()),
        RangeChange::Removed(name) => State::Removed(name.to_string()),
    };
    pb::WatchRangesResponse { state: Some(state) }
}

/// The state of a range; `None` for a kind that this version does not know.
pub(crate) fn watched(response: pb::WatchRangesResponse) -> Result<Option<RangeChange>, Malformed> {
    use pb::watch_ranges_response::State;
    Ok(match response.state {
        None => None,
        Some(State::Range(range)) => Some(RangeChange::Now(Box::new(range.try_into()?))),
        Some(State::Removed(name)) => Some(RangeChange::Removed(parse("removed", &name)?)),
    })
}

pub(crate) fn plan_request(
    request: &pb::PlanRangeRequest,
) -> Result<(RangeName, Vec<Reference>), Status> {
    Ok((range_name(&request.name)?, some_references(&request.references)?))
}

pub(crate) fn plan_wanted(name: &RangeName, references: &[Reference]) -> pb::PlanRangeRequest {
    pb::PlanRangeRequest { name: name.to_string(), references: texts(references) }
}

pub(crate) fn plan_response(plans: Vec<ImagePlan>) -> pb::PlanRangeResponse {
    pb::PlanRangeResponse { images: plans.into_iter().map(Into::into).collect() }
}

pub(crate) fn planned(response: pb::PlanRangeResponse) -> Result<Vec<ImagePlan>, Malformed> {
    response.images.into_iter().map(TryInto::try_into).collect()
}

pub(crate) fn verify_range_request(
    request: &pb::VerifyRangeRequest,
) -> Result<(RangeName, Vec<Reference>, bool), Status> {
    Ok((range_name(&request.name)?, wanted_references(&request.references)?, request.deep))
}

pub(crate) fn verify_range_wanted(
    name: &RangeName,
    references: &[Reference],
    deep: bool,
) -> pb::VerifyRangeRequest {
    pb::VerifyRangeRequest { name: name.to_string(), references: texts(references), deep }
}

pub(crate) fn verify_range_response(event: VerifyEvent) -> pb::VerifyRangeResponse {
    use pb::verify_range_response::Event;
    let event = match event {
        VerifyEvent::Checked(check) => Event::Checked(check.into()),
        VerifyEvent::Finished(summary) => Event::Finished(summary.into()),
    };
    pb::VerifyRangeResponse { event: Some(event) }
}

/// Event of a check; `None` for a kind of event that this version does not know.
pub(crate) fn verified(
    response: pb::VerifyRangeResponse,
) -> Result<Option<VerifyEvent>, Malformed> {
    use pb::verify_range_response::Event;
    Ok(match response.event {
        None => None,
        Some(Event::Checked(check)) => Some(VerifyEvent::Checked(check.try_into()?)),
        Some(Event::Finished(summary)) => Some(VerifyEvent::Finished(summary.into())),
    })
}

pub(crate) fn get_wanted_request(request: &pb::GetWantedRequest) -> Result<RangeName, Status> {
    range_name(&request.name)
}

pub(crate) fn get_wanted_wanted(name: &RangeName) -> pb::GetWantedRequest {
    pb::GetWantedRequest { name: name.to_string() }
}
