//! Ranges: create, start, sync, list and remove many Docker-in-Docker containers at a time.
//!
//! A range is a container of a Docker-in-Docker image whose entry point is the dind agent, as the
//! supervisor of the image's own entry point. What belongs to one, all of it labelled:
//!
//! ```text
//!   container  <project>-<range>        /usr/local/bin/longshore-dind-agent   the static binary, read-only
//!                                       /run/longshore/host    the host agent's socket for it, read-only
//!   volumes    <project>-<range>-data   /var/lib/docker        the engine's data-root
//!              <project>-<range>-agent  /var/lib/longshore     the agent's journal
//!   seeds      <project>-seed-<key>-<n>-data, -agent   a stopped range's, sealed: new ranges begin with a copy
//!   host agent AddRange(<range>)        a listener of its own: the range's identity; with the images that
//!                                       it should have, which its agent brings in, and its grants
//!   locks      <project>-<range>.lock   held by a call that makes it; in the folder of the caller's settings
//! ```
//!
//! There is one controller: calls set the wanted images of a range at the host agent, and watch the range's
//! agent get there (`WatchRanges`). Nothing is opened that a range could write. What is watched is
//! state, so a call may come late, go away, or come twice.
//!
//! Start with [`Ranges::connect`]. The library prints nothing and reads no environment: progress is
//! [`RangeEvent`]s, results are a [`Report`]. Every call can be repeated: it leaves whole
//! ranges alone, and completes or recreates unfinished ones. Dropping a future of this crate ends its
//! work at the next await; the next call continues from the parts that exist then.
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
//!     grants: Vec::new(),
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
mod stage;
mod status;

mod arrivals;
mod capacity;
mod container;
mod context;
mod copy;
mod down;
mod feed;
mod host;
mod job;
mod journey;
mod list;
mod liveness;
mod lock;
mod maker;
mod ownership;
mod plan;
mod project;
mod ranges;
mod seed;
mod slots;
mod sync;
mod up;
mod verify;
mod watch;

#[cfg(test)]
mod fixture;

pub use control::range::{ImageCheck, ImagePlan};
pub use control::{Pattern, RangeName};
pub use engine::docker::{ExecOutput, InvalidLoadWay, LoadWay};
pub use error::RangeError;
pub use event::{RangeEvent, RangeEventKind, RangeObserver};
pub use isolation::{Isolation, IsolationError, Mode};
pub use labels::{InvalidLabel, Label, Labels};
pub use plan::{PlanLine, RangePlan};
pub use ranges::Ranges;
pub use report::{ImageLine, Provision, RangeReport, Report, Totals};
pub use seed::{SeedCard, SeedStatus};
pub use settings::{
    LOCKS, READY_TIMEOUT, SEED_LIMIT, SeedUse, Selection, Settings, UpRequest, numbered,
};
pub use stage::RangeStage;
pub use status::{HeldImage, ImageStatusLine, RangeState, RangeStatus, Removal, StatusLine, Step};
pub use transfer::event::{EventKind, ImageReport};
pub use transfer::{EngineInfo, Event, Outcome, Reference, Stage, StoreKind};
pub use verify::{CheckLine, RangeCheck};
