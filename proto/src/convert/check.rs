//! Plans and checks of a range's images.

use tonic::Status;
use transfer::Reference;

use super::range::some_references;
use super::said::{MAX_TEXT, some_text, text};
use super::wanted::wanted_references;
use super::{Malformed, duration, elapsed, parse, parse_some, texts};
use crate::wire::generated as pb;
use control::range::{ImageCheck, ImagePlan, MAX_PROBLEMS, VerifyEvent, VerifySummary};

pub(crate) fn plan_request(request: &pb::PlanRequest) -> Result<Vec<Reference>, Status> {
    some_references(&request.references)
}

pub(crate) fn plan_wanted(references: &[Reference]) -> pb::PlanRequest {
    pb::PlanRequest { references: texts(references) }
}

pub(crate) fn plan_response(plans: Vec<ImagePlan>) -> pb::PlanResponse {
    pb::PlanResponse { images: plans.into_iter().map(Into::into).collect() }
}

pub(crate) fn planned(response: pb::PlanResponse) -> Result<Vec<ImagePlan>, Malformed> {
    response.images.into_iter().map(TryInto::try_into).collect()
}

impl From<ImagePlan> for pb::ImagePlan {
    fn from(plan: ImagePlan) -> Self {
        Self {
            reference: plan.reference.to_string(),
            config_digest: plan.config_digest.map(|it| it.to_string()).unwrap_or_default(),
            bytes_to_move: plan.bytes_to_move,
            bytes_saved: plan.bytes_saved,
            already_there: plan.already_there,
            error: plan.error.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::ImagePlan> for ImagePlan {
    type Error = Malformed;

    fn try_from(plan: pb::ImagePlan) -> Result<Self, Malformed> {
        Ok(Self {
            reference: parse("reference", &plan.reference)?,
            config_digest: parse_some("config_digest", &plan.config_digest)?,
            bytes_to_move: plan.bytes_to_move,
            bytes_saved: plan.bytes_saved,
            already_there: plan.already_there,
            error: some_text(&plan.error),
        })
    }
}

pub(crate) fn verify_request(
    request: &pb::VerifyRequest,
) -> Result<(Vec<Reference>, bool), Status> {
    Ok((wanted_references(&request.references)?, request.deep))
}

pub(crate) fn verify_wanted(references: &[Reference], deep: bool) -> pb::VerifyRequest {
    pb::VerifyRequest { references: texts(references), deep }
}

pub(crate) fn verify_response(event: VerifyEvent) -> pb::VerifyResponse {
    use pb::verify_response::Event;
    let event = match event {
        VerifyEvent::Checked(check) => Event::Checked(check.into()),
        VerifyEvent::Finished(summary) => Event::Finished(summary.into()),
    };
    pb::VerifyResponse { event: Some(event) }
}

/// Event of a check; `None` for a kind of event that this version does not know.
pub(crate) fn verified(response: pb::VerifyResponse) -> Result<Option<VerifyEvent>, Malformed> {
    use pb::verify_response::Event;
    Ok(match response.event {
        None => None,
        Some(Event::Checked(check)) => Some(VerifyEvent::Checked(check.try_into()?)),
        Some(Event::Finished(summary)) => Some(VerifyEvent::Finished(summary.into())),
    })
}

impl From<ImageCheck> for pb::ImageCheck {
    fn from(check: ImageCheck) -> Self {
        // The protocol's caps hold for every check, by any checker.
        let left_out = check.problems.len().saturating_sub(MAX_PROBLEMS) as u64;
        let problems = check.problems.into_iter().take(MAX_PROBLEMS);
        Self {
            reference: check.reference.map(|it| it.to_string()).unwrap_or_default(),
            engine_image_id: check.engine_image_id.map(|it| it.to_string()).unwrap_or_default(),
            proven: check.proven,
            files: check.files,
            bytes_read: check.bytes_read,
            problems: problems.map(|problem| problem.chars().take(MAX_TEXT).collect()).collect(),
            more_problems: check.more_problems.saturating_add(left_out),
        }
    }
}

impl TryFrom<pb::ImageCheck> for ImageCheck {
    type Error = Malformed;

    fn try_from(check: pb::ImageCheck) -> Result<Self, Malformed> {
        let left_out = check.problems.len().saturating_sub(MAX_PROBLEMS) as u64;
        Ok(Self {
            reference: parse_some("reference", &check.reference)?,
            engine_image_id: parse_some("engine_image_id", &check.engine_image_id)?,
            proven: check.proven,
            files: check.files,
            bytes_read: check.bytes_read,
            problems: check.problems.iter().take(MAX_PROBLEMS).map(|it| text(it)).collect(),
            more_problems: check.more_problems.saturating_add(left_out),
        })
    }
}

impl From<VerifySummary> for pb::VerifySummary {
    fn from(summary: VerifySummary) -> Self {
        Self {
            images: summary.images,
            failed: summary.failed,
            files: summary.files,
            bytes_read: summary.bytes_read,
            duration: Some(duration(summary.duration)),
        }
    }
}

impl From<pb::VerifySummary> for VerifySummary {
    fn from(summary: pb::VerifySummary) -> Self {
        Self {
            images: summary.images,
            failed: summary.failed,
            files: summary.files,
            bytes_read: summary.bytes_read,
            duration: elapsed(summary.duration),
        }
    }
}
