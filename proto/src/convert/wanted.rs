//! Wanted sets and grants, as an administrator sets them and a range gets them.

use tonic::Status;
use transfer::Reference;

use super::{Malformed, parse_all, status, texts};
use crate::wire::MAX_REFERENCES;
use crate::wire::generated as pb;
use control::admin::RangeWants;
use control::{Pattern, WantedSet};

/// The references of a set, which may be empty.
pub(crate) fn wanted_references(texts: &[String]) -> Result<Vec<Reference>, Status> {
    if MAX_REFERENCES < texts.len() {
        let reason = format!("has {} entries, at most {MAX_REFERENCES} are allowed", texts.len());
        return Err(status::invalid("references", reason));
    }
    let references = texts.iter().map(|text| text.parse());
    references.collect::<Result<_, _>>().map_err(|error| status::invalid("references", error))
}

impl From<WantedSet> for pb::WantedSet {
    fn from(set: WantedSet) -> Self {
        let WantedSet { references, revision, round } = set;
        Self { references: texts(&references), revision, round }
    }
}

impl TryFrom<pb::WantedSet> for WantedSet {
    type Error = Malformed;

    fn try_from(set: pb::WantedSet) -> Result<Self, Malformed> {
        if MAX_REFERENCES < set.references.len() {
            return Err(Malformed::new("references", "has too many entries"));
        }
        let pb::WantedSet { references, revision, round } = set;
        Ok(Self { references: parse_all("references", &references)?, revision, round })
    }
}

/// The patterns of a request, which may be none.
pub(crate) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Status> {
    if MAX_REFERENCES < texts.len() {
        let reason = format!("has {} entries, at most {MAX_REFERENCES} are allowed", texts.len());
        return Err(status::invalid("grants", reason));
    }
    let patterns = texts.iter().map(|text| text.parse());
    patterns.collect::<Result<_, _>>().map_err(|error| status::invalid("grants", error))
}

pub(crate) fn given(wanted: Option<pb::WantedSet>) -> Result<WantedSet, Malformed> {
    wanted.ok_or(Malformed::absent("wanted"))?.try_into()
}

pub(crate) fn set_response(set: WantedSet) -> pb::SetWantedResponse {
    pb::SetWantedResponse { wanted: Some(set.into()) }
}

pub(crate) fn was_set(response: pb::SetWantedResponse) -> Result<WantedSet, Malformed> {
    given(response.wanted)
}

pub(crate) fn get_response(wants: RangeWants) -> pb::GetWantedResponse {
    pb::GetWantedResponse { wanted: Some(wants.wanted.into()), grants: texts(&wants.grants) }
}

pub(crate) fn got(response: pb::GetWantedResponse) -> Result<RangeWants, Malformed> {
    let grants = parse_all("grants", &response.grants)?;
    Ok(RangeWants { wanted: given(response.wanted)?, grants })
}
