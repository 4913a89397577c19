//! Requests and answers of `RangeService`.

use std::time::{Duration, SystemTime};

use tonic::Status;
use transfer::event::{EventKind, ImageReport};
use transfer::{EngineImageId, Event, Outcome, Reference, Stage};

use super::page::Page;
use super::said::{some_text, text};
use super::wanted::wanted_references;
use super::{Malformed, duration, elapsed, parse, parse_all, parse_some, status, texts};
use crate::wire::MAX_PAGE;
use crate::wire::generated as pb;
use control::range::{
    LastSync, MAX_LACKING, RangeImage, RangeStatus, Reach, SyncEvent, SyncSummary,
};

pub(crate) fn sync_request(request: &pb::SyncRequest) -> Result<Vec<Reference>, Status> {
    some_references(&request.references)
}

/// At least one reference, and not too many.
pub(crate) fn some_references(texts: &[String]) -> Result<Vec<Reference>, Status> {
    if texts.is_empty() {
        return Err(status::invalid("references", "is empty"));
    }
    wanted_references(texts)
}

pub(crate) fn sync_wanted(references: &[Reference]) -> pb::SyncRequest {
    pb::SyncRequest { references: texts(references) }
}

impl From<Stage> for pb::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Resolve => Self::Resolve,
            Stage::Export => Self::Export,
            Stage::Plan => Self::Plan,
            Stage::Wait => Self::Wait,
            Stage::Load => Self::Load,
            Stage::Heal => Self::Heal,
            Stage::Prove => Self::Prove,
            Stage::Tag => Self::Tag,
        }
    }
}

impl TryFrom<pb::Stage> for Stage {
    type Error = Malformed;

    fn try_from(stage: pb::Stage) -> Result<Self, Malformed> {
        Ok(match stage {
            pb::Stage::Resolve => Self::Resolve,
            pb::Stage::Export => Self::Export,
            pb::Stage::Plan => Self::Plan,
            pb::Stage::Wait => Self::Wait,
            pb::Stage::Load => Self::Load,
            pb::Stage::Heal => Self::Heal,
            pb::Stage::Prove => Self::Prove,
            pb::Stage::Tag => Self::Tag,
            pb::Stage::Unspecified => return Err(Malformed::absent("stage")),
        })
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Synced => Self::Synced,
            Outcome::Skipped => Self::Skipped,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = Malformed;

    fn try_from(outcome: pb::Outcome) -> Result<Self, Malformed> {
        Ok(match outcome {
            pb::Outcome::Synced => Self::Synced,
            pb::Outcome::Skipped => Self::Skipped,
            pb::Outcome::Failed => Self::Failed,
            pb::Outcome::Unspecified => return Err(Malformed::absent("outcome")),
        })
    }
}

pub(crate) fn stage_time((stage, seconds): (Stage, f64)) -> pb::StageTime {
    pb::StageTime {
        stage: pb::Stage::from(stage).into(),
        duration: Some(duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())),
    }
}

impl From<ImageReport> for pb::ImageReport {
    fn from(report: ImageReport) -> Self {
        Self {
            reference: report.reference.to_string(),
            config_digest: report.config_digest.map(|it| it.to_string()).unwrap_or_default(),
            engine_image_id: report.engine_image_id.map(|it| it.to_string()).unwrap_or_default(),
            outcome: pb::Outcome::from(report.outcome).into(),
            proven: report.proven,
            bytes_moved: report.bytes_moved,
            bytes_saved: report.bytes_saved,
            stages: report.stages.into_iter().map(stage_time).collect(),
            error: report.error.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::ImageReport> for ImageReport {
    type Error = Malformed;

    fn try_from(report: pb::ImageReport) -> Result<Self, Malformed> {
        let stage_time = |time: &pb::StageTime| {
            Ok((time.stage().try_into()?, elapsed(time.duration).as_secs_f64()))
        };
        Ok(Self {
            reference: parse("reference", &report.reference)?,
            config_digest: parse_some("config_digest", &report.config_digest)?,
            engine_image_id: parse_some("engine_image_id", &report.engine_image_id)?,
            outcome: report.outcome().try_into()?,
            proven: report.proven,
            bytes_moved: report.bytes_moved,
            bytes_saved: report.bytes_saved,
            stages: report.stages.iter().map(stage_time).collect::<Result<_, Malformed>>()?,
            error: some_text(&report.error),
        })
    }
}

impl From<SyncSummary> for pb::SyncSummary {
    fn from(summary: SyncSummary) -> Self {
        Self {
            synced: summary.synced,
            skipped: summary.skipped,
            failed: summary.failed,
            bytes_moved: summary.bytes_moved,
            bytes_saved: summary.bytes_saved,
            duration: Some(duration(summary.duration)),
        }
    }
}

impl From<pb::SyncSummary> for SyncSummary {
    fn from(summary: pb::SyncSummary) -> Self {
        Self {
            synced: summary.synced,
            skipped: summary.skipped,
            failed: summary.failed,
            bytes_moved: summary.bytes_moved,
            bytes_saved: summary.bytes_saved,
            duration: elapsed(summary.duration),
        }
    }
}

pub(crate) fn sync_response(event: SyncEvent) -> pb::SyncResponse {
    use pb::sync_response::Event as Message;
    let event = match event {
        SyncEvent::Finished(summary) => Message::Finished(summary.into()),
        SyncEvent::Image(Event { reference, kind }) => {
            let reference = reference.to_string();
            match kind {
                EventKind::Entered(stage) => {
                    let stage = pb::Stage::from(stage).into();
                    Message::Entered(pb::StageEntered { reference, stage })
                }
                EventKind::Planned { bytes_to_move, bytes_saved } => {
                    Message::Planned(pb::Planned { reference, bytes_to_move, bytes_saved })
                }
                EventKind::Moved { bytes_moved } => {
                    Message::Moved(pb::Moved { reference, bytes_moved })
                }
                EventKind::Done(report) => Message::Done(report.into()),
            }
        }
    };
    pb::SyncResponse { event: Some(event) }
}

/// Event of a sync; `None` for a kind of event that this version does not know.
pub(crate) fn synced(response: pb::SyncResponse) -> Result<Option<SyncEvent>, Malformed> {
    use pb::sync_response::Event as Message;
    let Some(message) = response.event else {
        return Ok(None);
    };
    let (reference, kind) = match message {
        Message::Finished(summary) => return Ok(Some(SyncEvent::Finished(summary.into()))),
        Message::Entered(entered) => {
            // A stage that this version does not know is passed over as an unknown event is.
            let Ok(stage) = entered.stage().try_into() else {
                return Ok(None);
            };
            (entered.reference, EventKind::Entered(stage))
        }
        Message::Planned(pb::Planned { reference, bytes_to_move, bytes_saved }) => {
            (reference, EventKind::Planned { bytes_to_move, bytes_saved })
        }
        Message::Moved(pb::Moved { reference, bytes_moved }) => {
            (reference, EventKind::Moved { bytes_moved })
        }
        Message::Done(report) => (report.reference.clone(), EventKind::Done(report.try_into()?)),
    };
    let reference = parse("reference", &reference)?;
    Ok(Some(SyncEvent::Image(Event { reference, kind })))
}

pub(crate) fn images_request(
    request: &pb::RangeServiceListImagesRequest,
) -> Result<Page<EngineImageId>, Status> {
    Page::parse(request.page_size, &request.page_token)
}

pub(crate) fn images_response(
    page: &Page<EngineImageId>,
    images: Vec<RangeImage>,
) -> pb::RangeServiceListImagesResponse {
    let (images, next_page_token) = page.cut(images, |image| image.engine_image_id);
    let images = images.into_iter().map(Into::into).collect();
    pb::RangeServiceListImagesResponse { images, next_page_token }
}

pub(crate) fn next_images(page_token: String) -> pb::RangeServiceListImagesRequest {
    let page_size = i32::try_from(MAX_PAGE).unwrap_or_default();
    pb::RangeServiceListImagesRequest { page_size, page_token }
}

/// The images of a page, and the token of the next; `None` when this was the last.
pub(crate) fn images_listed(
    response: pb::RangeServiceListImagesResponse,
) -> Result<(Vec<RangeImage>, Option<String>), Malformed> {
    let images = response.images.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok((images, Some(response.next_page_token).filter(|token| !token.is_empty())))
}

impl From<RangeImage> for pb::RangeImage {
    fn from(image: RangeImage) -> Self {
        Self {
            references: texts(&image.references),
            config_digest: image.config_digest.map(|it| it.to_string()).unwrap_or_default(),
            engine_image_id: image.engine_image_id.to_string(),
            proven: image.proven,
        }
    }
}

impl TryFrom<pb::RangeImage> for RangeImage {
    type Error = Malformed;

    fn try_from(image: pb::RangeImage) -> Result<Self, Malformed> {
        Ok(Self {
            references: parse_all("references", &image.references)?,
            config_digest: parse_some("config_digest", &image.config_digest)?,
            engine_image_id: parse("engine_image_id", &image.engine_image_id)?,
            proven: image.proven,
        })
    }
}

pub(crate) fn status_request() -> pb::GetStatusRequest {
    pb::GetStatusRequest {}
}

impl From<RangeStatus> for pb::GetStatusResponse {
    fn from(status: RangeStatus) -> Self {
        let (engine, engine_error) = match status.engine {
            Reach::Up(engine) => (Some(engine.into()), String::new()),
            Reach::Down(error) => (None, error),
            Reach::Unknown => (None, String::new()),
        };
        let (host, host_error) = match status.host {
            Reach::Up(()) => (pb::HostConnection::Up, String::new()),
            Reach::Down(error) => (pb::HostConnection::Down, error),
            Reach::Unknown => (pb::HostConnection::Unspecified, String::new()),
        };
        Self {
            agent_version: status.agent_version,
            uptime: Some(duration(status.uptime)),
            engine,
            engine_error,
            host: host.into(),
            host_error,
            syncs: status.syncs,
            peak_rss_bytes: status.peak_rss_bytes,
            wanted: status.wanted,
            in_step: status.in_step,
            last_sync_time: status.last_sync.as_ref().map(|last| last.finished.into()),
            last_sync_error: status.last_sync.and_then(|last| last.error).unwrap_or_default(),
            engine_restarts: status.engine_restarts,
            lacking: status.lacking,
        }
    }
}

impl TryFrom<pb::GetStatusResponse> for RangeStatus {
    type Error = Malformed;

    fn try_from(status: pb::GetStatusResponse) -> Result<Self, Malformed> {
        let host = match status.host() {
            pb::HostConnection::Up => Reach::Up(()),
            pb::HostConnection::Down => Reach::Down(text(&status.host_error)),
            pb::HostConnection::Unspecified => Reach::Unknown,
        };
        let engine = match status.engine {
            Some(engine) => Reach::Up(engine.try_into()?),
            None if status.engine_error.is_empty() => Reach::Unknown,
            None => Reach::Down(text(&status.engine_error)),
        };
        let last_sync = match status.last_sync_time {
            None => None,
            Some(time) => Some(LastSync {
                finished: SystemTime::try_from(time)
                    .map_err(|error| Malformed::new("last_sync_time", error))?,
                error: some_text(&status.last_sync_error),
            }),
        };
        Ok(Self {
            agent_version: text(&status.agent_version),
            uptime: elapsed(status.uptime),
            engine,
            host,
            syncs: status.syncs,
            peak_rss_bytes: status.peak_rss_bytes,
            wanted: status.wanted,
            in_step: status.in_step,
            last_sync,
            engine_restarts: status.engine_restarts,
            lacking: status.lacking.iter().take(MAX_LACKING).map(|line| text(line)).collect(),
        })
    }
}
