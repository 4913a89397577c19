//! Common parts of Longshore's programs, so that each of them is a page: logs and spans, signals
//! and draining, exit codes, units and completions of command lines, and printed results.
//!
//! Beside the programs this is the only crate that names clap or a log subscriber.

pub mod completions;
pub mod exit;
pub mod inspect;
pub mod manual;
pub mod output;
pub mod units;

#[cfg(feature = "telemetry")]
pub mod run;
pub mod shutdown;
#[cfg(feature = "telemetry")]
pub mod telemetry;

pub mod health;
pub mod host;
pub mod memory;
pub mod supervise;
