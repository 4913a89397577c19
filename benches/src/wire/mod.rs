//! A blob's way from one process to another, over gRPC and over bare sockets, side by side.
//!
//! ```text
//!   rig ── for each round, for each route in a shuffled order
//!    ├─ wire-peer serve ──── socket ────► wire-peer fetch      two processes: CPU is told apart
//!    └─ report: medians over the rounds; ratios are taken within a round, then their median
//! ```
//!
//! What a machine does in a minute differs by more than what is measured here, so only ratios to a
//! raw socket *of the same round* say something about the code.

pub mod route;
pub mod peer;
pub mod report;
pub mod measure;
pub mod machine;
pub mod admin;

mod grpc;
mod raw;
mod rig;
mod size;
mod tonic;

pub use rig::{Options, Progress, run};
pub use size::parse_size;
