//! The status of ranges, each with its engine and images, as data and as lines of JSON.

use std::collections::BTreeMap;
use std::fmt;

use control::RangeName;
use serde::{Deserialize, Serialize};
use transfer::{ConfigDigest, EngineImageId, EngineInfo, Reference};

use crate::labels::Labels;

/// The state of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeState {
    /// Its agent and its engine answer.
    Ready,
    /// Its agent answers, its engine does not (yet).
    Starting,
    /// Its container runs, and its agent does not answer.
    Unreachable,
    /// Its container does not run.
    Stopped,
    /// Something of it is there, but no container.
    Unmade,
}

impl fmt::Display for RangeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
            Self::Unmade => "unmade",
        })
    }
}

/// An image that a range's engine has, under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldImage {
    /// Its name; absent for an image without one.
    pub reference: Option<Reference>,
    /// Its name across engines; absent when the engine does not tell.
    pub config_digest: Option<ConfigDigest>,
    /// ID of the image in the engine.
    pub engine_image_id: EngineImageId,
    /// True if the engine confirms every layer of it.
    pub proven: bool,
}

/// The status of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeStatus {
    /// The range.
    pub range: RangeName,
    /// Its state.
    pub state: RangeState,
    /// Reason why it is not ready; `None` when it is.
    pub reason: Option<String>,
    /// The image that it is made from, as it was asked for; absent without a container.
    pub range_image: Option<String>,
    /// The labels that it was given; none without a container.
    pub labels: Labels,
    /// The engine inside; absent when it does not answer.
    pub engine: Option<EngineInfo>,
    /// Sync state of its wanted images; `None` when its agent does not answer.
    pub step: Option<Step>,
    /// The images that it has; empty when the engine does not answer.
    pub images: Vec<HeldImage>,
}

/// Sync state of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Images that it should have.
    pub wanted: u32,
    /// True if they are all there, proven; false while the range does not know its wanted images.
    pub in_step: bool,
    /// Reason why its last sync did not bring in everything; null when it did, or there was none.
    pub last_error: Option<String>,
    /// Number of restarts of its engine.
    pub engine_restarts: u32,
}

/// One line of JSON per range: what scripts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusLine {
    /// The range.
    pub range: String,
    /// Product and version of the engine inside; null when it does not answer.
    pub engine: Option<String>,
    /// `graphdriver` or `containerd`; null when the engine does not answer.
    pub store: Option<String>,
    /// Its state.
    pub state: RangeState,
    /// Keys and values of the labels that it was given.
    pub labels: BTreeMap<String, String>,
    /// Reason why it is not ready; null when it is.
    pub reason: Option<String>,
    /// Sync state, key by key; no such keys when its agent does not answer.
    #[serde(flatten)]
    pub step: Option<Step>,
    /// The images that it has.
    pub images: Vec<ImageStatusLine>,
}

/// One image in a [`StatusLine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStatusLine {
    /// Its name; null for an image without one.
    pub reference: Option<String>,
    /// Its name across engines; null when the engine does not tell.
    pub config_digest: Option<String>,
    /// ID of the image in the engine.
    pub engine_image_id: String,
    /// True if the engine confirms every layer of it.
    pub proven: bool,
}

/// The result of removing one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The range.
    pub range: RangeName,
    /// True if any part of it was there.
    pub found: bool,
    /// Error text with advice if a part of it is still there; `None` when nothing is.
    pub error: Option<String>,
}

impl RangeStatus {
    /// The line of this range.
    #[must_use]
    pub fn line(&self) -> StatusLine {
        StatusLine {
            range: self.range.to_string(),
            engine: self.engine.as_ref().map(|engine| engine.engine.clone()),
            store: self.engine.as_ref().map(|engine| engine.store.to_string()),
            state: self.state,
            labels: self.labels.as_map().clone(),
            reason: self.reason.clone(),
            step: self.step.clone(),
            images: self.images.iter().map(HeldImage::line).collect(),
        }
    }
}

impl HeldImage {
    fn line(&self) -> ImageStatusLine {
        ImageStatusLine {
            reference: self.reference.as_ref().map(ToString::to_string),
            config_digest: self.config_digest.map(|digest| digest.to_string()),
            engine_image_id: self.engine_image_id.to_string(),
            proven: self.proven,
        }
    }
}

#[cfg(test)]
mod tests {
    use transfer::{Digest, StoreKind};

    use super::*;

    #[test]
    fn a_line_has_the_keys_that_scripts_rely_on_in_their_order() {
        let digest = Digest::of(b"config");
        let mut status = RangeStatus {
            range: "a".parse().unwrap(),
            state: RangeState::Ready,
            reason: None,
            range_image: Some("dind:1".to_owned()),
            labels: ["team=x".parse().unwrap()].into_iter().collect(),
            engine: Some(EngineInfo {
                engine: "docker 26.1.5".to_owned(),
                store: StoreKind::Graphdriver,
                driver: "overlay2".to_owned(),
                id: "x".to_owned(),
            }),
            step: Some(Step { wanted: 1, in_step: true, ..Step::default() }),
            images: vec![HeldImage {
                reference: Some("python:3".parse().unwrap()),
                config_digest: Some(ConfigDigest(digest)),
                engine_image_id: EngineImageId(digest),
                proven: true,
            }],
        };
        let json = |status: &RangeStatus| serde_json::to_string(&status.line()).unwrap();
        assert_eq!(
            json(&status),
            format!(
                r#"{{"range":"a","engine":"docker 26.1.5","store":"graphdriver","state":"ready","labels":{{"team":"x"}},"reason":null,"wanted":1,"in_step":true,"last_error":null,"engine_restarts":0,"images":[{{"reference":"python:3","config_digest":"{digest}","engine_image_id":"{digest}","proven":true}}]}}"#
            )
        );
        status.images[0] =
            HeldImage { reference: None, config_digest: None, ..status.images[0].clone() };
        assert!(json(&status).contains(r#""reference":null,"config_digest":null"#));
        let gone = RangeStatus {
            state: RangeState::Stopped,
            engine: None,
            step: None,
            images: Vec::new(),
            ..status
        };
        assert_eq!(
            json(&gone),
            r#"{"range":"a","engine":null,"store":null,"state":"stopped","labels":{"team":"x"},"reason":null,"images":[]}"#
        );
    }
}
