//! Facts about starting dockerd, for a process that starts one: its command line and environment.

mod mirror;
mod processors;

pub use mirror::with_mirror;
pub use processors::{PLACES, environment};
