//! Ranges: create, start, sync, list and remove many Docker-in-Docker containers at a time.
//!
//! A range is a container of a Docker-in-Docker image whose entry point is the dind agent, as the
//! supervisor of the image's own entry point. What belongs to one, all of it labelled:
//!
//! ```text
//!   container  <project>-<range>        /usr/local/bin/longshore-dind-agent   the static binary, read-only
//!                                       /run/longshore/host    the host agent's socket for it, read-only
//!                                       /run/longshore/agent   where its own agent's socket is made
//!   volumes    <project>-<range>-data   /var/lib/docker        the engine's data-root
//!              <project>-<range>-agent  /var/lib/longshore     what the agent remembers
//!   seeds      <project>-seed-<key>-<n>-data, -agent   a stopped range's, sealed: new ranges begin with a copy
//!   host agent AddRange(<range>)        a listener of its own: the range's identity
//!              SetWanted(<range>)       the images that it should have: its agent keeps it in step
//! ```
//!
//! Start with [`Ranges::connect`]. The library prints nothing and reads no environment: progress is
//! [`RangeEvent`]s, results are a [`Report`]. Everything can be run again: what is whole is left
//! alone, what is half made is completed or made anew. Dropping a future of this crate ends its
//! work at the next await; what was made until then is found by the next call.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use range::{Ranges, RangeEvent, Settings, UpRequest};
//!
//! let ranges = Ranges::connect(Settings::new(
//!     "unix:///var/run/docker.sock",
//!     "unix:///var/lib/longshore/admin.sock",
//!     "/usr/local/bin/longshore-dind-agent",
//! ))
//! .await?;
//! let request = UpRequest {
//!     names: range::numbered("lab", 3)?,
//!     range_image: "docker:28-dind".to_owned(),
//!     images: vec!["python:3".parse()?],
//!     labels: range::Labels::default(),
//! };
//! let report = ranges.up(&request, Arc::new(|_: RangeEvent| {})).await?;
//! assert!(report.is_whole());
//! # Ok(())
//! # }
//! ```

mod error;
mod event;
mod isolation;
mod labels;
mod report;
mod settings;
mod status;

mod agents;
mod call;
mod container;
mod journey;
mod lock;
mod look;
mod own;
mod places;
mod ranges;
mod room;
mod seed;
mod sync;
mod turn;
mod up;

pub use engine::docker::{ExecOutput, InvalidLoadWay, LoadWay};
pub use error::RangeError;
pub use event::{RangeEvent, RangeEventKind, RangeObserver, RangeStage};
pub use isolation::{Isolation, IsolationError, Mode};
pub use labels::{InvalidLabel, Label, Labels};
pub use look::{CheckLine, ImageCheck, PlanLine, RangeCheck, RangePlan};
pub use proto::control::ImagePlan;
pub use proto::identity::RangeName;
pub use ranges::Ranges;
pub use report::{ImageLine, Provision, RangeReport, Report, Totals};
pub use seed::{SeedCard, SeedStatus};
pub use settings::{READY_TIMEOUT, SEED_LIMIT, SeedUse, Selection, Settings, UpRequest, numbered};
pub use status::{HeldImage, ImageStatusLine, RangeState, RangeStatus, Removal, StatusLine, Step};
pub use transfer::event::{EventKind, ImageReport};
pub use transfer::{EngineInfo, Event, Outcome, Reference, Stage, StoreKind};
