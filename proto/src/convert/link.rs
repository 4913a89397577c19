//! Messages of a link, and the state that is put together from them.

use std::pin::Pin;
use std::task::{Context, Poll};

use control::link::{
    AgentStatus, FromRange, ImageState, ImageStatus, MAX_REPORTED, RangeReport, RangeState, Task,
    TaskEvent, ToRange, WantedBy,
};
use control::range::Reach;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use transfer::{Reference, Stage};

use super::said::{some_text, text};
use super::{Malformed, duration, elapsed, parse, parse_all, parse_some, texts};
use crate::wire::MAX_REFERENCES;
use crate::wire::generated as pb;

/// Most stages of one attempt: each may come several times.
const MAX_STAGES: usize = 64;

impl From<WantedBy> for pb::WantedBy {
    fn from(wanted_by: WantedBy) -> Self {
        match wanted_by {
            WantedBy::Host => Self::Host,
            WantedBy::Agent => Self::Agent,
            WantedBy::Nobody => Self::Nobody,
        }
    }
}

impl TryFrom<pb::WantedBy> for WantedBy {
    type Error = Malformed;

    fn try_from(wanted_by: pb::WantedBy) -> Result<Self, Malformed> {
        Ok(match wanted_by {
            pb::WantedBy::Host => Self::Host,
            pb::WantedBy::Agent => Self::Agent,
            pb::WantedBy::Nobody => Self::Nobody,
            pb::WantedBy::Unspecified => return Err(Malformed::absent("wanted_by")),
        })
    }
}

impl From<ImageStatus> for pb::ImageStatus {
    fn from(image: ImageStatus) -> Self {
        let mut stage = pb::Stage::Unspecified;
        let (mut error, mut permanent) = (String::new(), false);
        let state = match image.state {
            ImageState::Pending => pb::ImageState::Pending,
            ImageState::OnItsWay(entered) => {
                stage = entered.into();
                pb::ImageState::OnItsWay
            }
            ImageState::Present => pb::ImageState::Present,
            ImageState::Gone => pb::ImageState::Gone,
            ImageState::Replaced => pb::ImageState::Replaced,
            ImageState::Failed { error: reason, is_permanent } => {
                (error, permanent) = (text(&reason), is_permanent);
                pb::ImageState::Failed
            }
        };
        let stages = image.stages.into_iter().take(MAX_STAGES);
        Self {
            reference: image.reference.to_string(),
            wanted_by: pb::WantedBy::from(image.wanted_by).into(),
            state: state.into(),
            stage: stage.into(),
            bytes_to_move: image.bytes_to_move,
            bytes_moved: image.bytes_moved,
            bytes_saved: image.bytes_saved,
            config_digest: image.config_digest.map(|it| it.to_string()).unwrap_or_default(),
            target_digest: image.target_digest.map(|it| it.to_string()).unwrap_or_default(),
            engine_image_id: image.engine_image_id.map(|it| it.to_string()).unwrap_or_default(),
            looked_round: image.looked_round.unwrap_or_default(),
            loaded_round: image.loaded_round.unwrap_or_default(),
            stages: stages.map(super::range::stage_time).collect(),
            error,
            permanent,
        }
    }
}

impl TryFrom<pb::ImageStatus> for ImageStatus {
    type Error = Malformed;

    fn try_from(image: pb::ImageStatus) -> Result<Self, Malformed> {
        let round = |round| Some(round).filter(|round| *round != 0);
        let state = match image.state() {
            pb::ImageState::Pending => ImageState::Pending,
            // A stage that this version does not know is some stage of the load.
            pb::ImageState::OnItsWay => {
                ImageState::OnItsWay(image.stage().try_into().unwrap_or(Stage::Load))
            }
            pb::ImageState::Present => ImageState::Present,
            pb::ImageState::Gone => ImageState::Gone,
            pb::ImageState::Replaced => ImageState::Replaced,
            pb::ImageState::Failed => {
                ImageState::Failed { error: text(&image.error), is_permanent: image.permanent }
            }
            pb::ImageState::Unspecified => return Err(Malformed::absent("state")),
        };
        let stages = image.stages.iter().take(MAX_STAGES).filter_map(|time| {
            let stage = time.stage().try_into().ok()?;
            Some((stage, elapsed(time.duration).as_secs_f64()))
        });
        Ok(Self {
            reference: parse("reference", &image.reference)?,
            wanted_by: image.wanted_by().try_into()?,
            state,
            bytes_to_move: image.bytes_to_move,
            bytes_moved: image.bytes_moved,
            bytes_saved: image.bytes_saved,
            config_digest: parse_some("config_digest", &image.config_digest)?,
            target_digest: parse_some("target_digest", &image.target_digest)?,
            engine_image_id: parse_some("engine_image_id", &image.engine_image_id)?,
            looked_round: round(image.looked_round),
            loaded_round: round(image.loaded_round),
            stages: stages.collect(),
        })
    }
}

fn report(is_whole: bool, agent: AgentStatus) -> pb::RangeReport {
    let (engine, engine_error) = match agent.engine {
        Reach::Up(engine) => (Some(engine.into()), String::new()),
        Reach::Down(error) => (None, text(&error)),
        Reach::Unknown => (None, String::new()),
    };
    pb::RangeReport {
        whole: is_whole,
        agent_version: agent.version,
        uptime: Some(duration(agent.uptime)),
        engine,
        engine_error,
        engine_restarts: agent.engine_restarts,
        peak_rss_bytes: agent.peak_rss_bytes,
        images: Vec::new(),
        removed: Vec::new(),
    }
}

fn agent(report: &mut pb::RangeReport) -> Result<AgentStatus, Malformed> {
    let engine = match report.engine.take() {
        Some(engine) => Reach::Up(
            pb::Engine {
                engine: text(&engine.engine),
                driver: text(&engine.driver),
                id: text(&engine.id),
                ..engine
            }
            .try_into()?,
        ),
        None => some_text(&report.engine_error).map_or(Reach::Unknown, Reach::Down),
    };
    Ok(AgentStatus {
        version: text(&report.agent_version),
        uptime: elapsed(report.uptime),
        engine,
        engine_restarts: report.engine_restarts,
        peak_rss_bytes: report.peak_rss_bytes,
    })
}

impl From<RangeReport> for pb::RangeReport {
    fn from(told: RangeReport) -> Self {
        Self {
            images: told.images.into_iter().map(Into::into).collect(),
            removed: texts(&told.removed),
            ..report(told.is_whole, told.agent)
        }
    }
}

impl TryFrom<pb::RangeReport> for RangeReport {
    type Error = Malformed;

    fn try_from(mut report: pb::RangeReport) -> Result<Self, Malformed> {
        if MAX_REPORTED < report.images.len() || MAX_REFERENCES < report.removed.len() {
            return Err(Malformed::new("images", "has too many entries"));
        }
        Ok(Self {
            is_whole: report.whole,
            agent: agent(&mut report)?,
            images: report.images.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            removed: parse_all("removed", &report.removed)?,
        })
    }
}

/// A whole state as one report.
impl From<RangeState> for pb::RangeReport {
    fn from(state: RangeState) -> Self {
        let images = state.images.into_values().map(Into::into).collect();
        Self { images, ..report(true, state.agent) }
    }
}

impl TryFrom<pb::RangeReport> for RangeState {
    type Error = Malformed;

    fn try_from(mut report: pb::RangeReport) -> Result<Self, Malformed> {
        let agent = agent(&mut report)?;
        let images = report.images.into_iter().map(|image| {
            let image: ImageStatus = image.try_into()?;
            Ok((image.reference.clone(), image))
        });
        Ok(Self { agent, images: images.collect::<Result<_, Malformed>>()? })
    }
}

/// The messages of a range as requests. A type of its own, since the compiler does not see that the
/// future of a call with a boxed stream can be sent between threads.
pub(crate) struct Requests(pub(crate) BoxStream<'static, FromRange>);

impl Stream for Requests {
    type Item = pb::AttachRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context).map(|message| message.map(from_range))
    }
}

fn from_range(message: FromRange) -> pb::AttachRequest {
    use pb::attach_request::Message;
    let message = match message {
        FromRange::Report(report) => Message::Report(report.into()),
        FromRange::Task { id, event } => Message::Task(task_event(id, event)),
    };
    pb::AttachRequest { message: Some(message) }
}

/// Message of a range; `None` for a kind that this version does not know.
pub(crate) fn said(request: pb::AttachRequest) -> Result<Option<FromRange>, Malformed> {
    use pb::attach_request::Message;
    Ok(match request.message {
        None => None,
        Some(Message::Report(report)) => Some(FromRange::Report(report.try_into()?)),
        Some(Message::Task(pb::TaskEvent { task_id: id, event })) => {
            event.map(task_said).transpose()?.map(|event| FromRange::Task { id, event })
        }
    })
}

fn task_event(task_id: u64, event: TaskEvent) -> pb::TaskEvent {
    use pb::task_event::Event;
    let event = match event {
        TaskEvent::Planned(plans) => {
            Event::Planned(pb::ImagePlans { images: plans.into_iter().map(Into::into).collect() })
        }
        TaskEvent::Verified(check) => Event::Verified(check.into()),
        TaskEvent::Finished(summary) => Event::Finished(summary.into()),
        TaskEvent::Refused { is_busy, error } => {
            Event::Refused(pb::TaskRefused { busy: is_busy, error })
        }
    };
    pb::TaskEvent { task_id, event: Some(event) }
}

fn task_said(event: pb::task_event::Event) -> Result<TaskEvent, Malformed> {
    use pb::task_event::Event;
    Ok(match event {
        Event::Planned(plans) => {
            if MAX_REFERENCES < plans.images.len() {
                return Err(Malformed::new("planned", "has too many entries"));
            }
            let plans = plans.images.into_iter().map(TryInto::try_into);
            TaskEvent::Planned(plans.collect::<Result<_, _>>()?)
        }
        Event::Verified(check) => TaskEvent::Verified(check.try_into()?),
        Event::Finished(summary) => TaskEvent::Finished(summary.into()),
        Event::Refused(pb::TaskRefused { busy, error }) => {
            TaskEvent::Refused { is_busy: busy, error: text(&error) }
        }
    })
}

pub(crate) fn to_range(message: ToRange) -> pb::AttachResponse {
    use pb::attach_response::Message;
    let message = match message {
        ToRange::Wanted(wanted) => Message::Wanted(wanted.into()),
        ToRange::Task { id, task } => Message::Task(pb::Task { id, kind: Some(task_kind(&task)) }),
        ToRange::Cancel { id } => Message::Cancel(pb::CancelTask { id }),
    };
    pb::AttachResponse { message: Some(message) }
}

fn task_kind(task: &Task) -> pb::task::Kind {
    use pb::task::Kind;
    match task {
        Task::Plan { references } => Kind::Plan(pb::PlanTask { references: texts(references) }),
        Task::Verify { references, deep } => {
            Kind::Verify(pb::VerifyTask { references: texts(references), deep: *deep })
        }
    }
}

/// Message of a host; `None` for a kind that this version does not know.
pub(crate) fn told(response: pb::AttachResponse) -> Result<Option<ToRange>, Malformed> {
    use pb::attach_response::Message;
    Ok(match response.message {
        None => None,
        Some(Message::Wanted(wanted)) => Some(ToRange::Wanted(wanted.try_into()?)),
        Some(Message::Cancel(pb::CancelTask { id })) => Some(ToRange::Cancel { id }),
        // A kind of task that this version does not know is passed over: its caller gives up.
        Some(Message::Task(pb::Task { id, kind })) => {
            kind.map(task_told).transpose()?.map(|task| ToRange::Task { id, task })
        }
    })
}

fn task_told(kind: pb::task::Kind) -> Result<Task, Malformed> {
    use pb::task::Kind;
    let references = |texts: &[String]| -> Result<Vec<Reference>, Malformed> {
        if MAX_REFERENCES < texts.len() {
            return Err(Malformed::new("references", "has too many entries"));
        }
        parse_all("references", texts)
    };
    Ok(match kind {
        Kind::Plan(plan) => Task::Plan { references: references(&plan.references)? },
        Kind::Verify(verify) => {
            Task::Verify { references: references(&verify.references)?, deep: verify.deep }
        }
    })
}
