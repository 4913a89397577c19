//! Transfers of a blob between two processes, by gRPC and over bare sockets, compared.
//!
//! ```text
//!   rig ── for each round, for each route in a shuffled order
//!    ├─ wire-peer serve ──── socket ────► wire-peer fetch      two processes, so CPU time is separate
//!    └─ report: medians over the rounds; for ratios, the median of the ratios within rounds
//! ```
//!
//! A machine's speed varies by more than the differences measured here. Only ratios to a raw socket
//! *in the same round* say something about the code.

pub mod route;
pub mod job;
pub mod peer;
pub mod sample;
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
