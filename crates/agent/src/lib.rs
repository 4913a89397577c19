//! What both agents' processes share, so that each of them is a page: logs and spans, signals and
//! draining, exit codes, units and completions of command lines.
//!
//! Beside the two processes this is the only crate that names clap or a log subscriber.

pub mod completions;
pub mod exit;
pub mod inspect;
pub mod units;

pub mod process;
pub mod shutdown;
pub mod telemetry;

pub mod health;
pub mod memory;
pub mod supervise;
