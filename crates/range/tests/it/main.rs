//! Ranges as a person uses them: real engines, real agents, on both image stores.
//!
//! `cargo xtask test` sets the machine up and runs these. What a range holds is checked with the
//! plain `docker` client too, never only with our own report.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop and say where")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what was measured, for a person")]

mod chaos;
mod docker;
mod images;
mod keeper;
mod moments;
mod nested;
mod oci;
mod path;
mod proxy;
mod rootfs;
mod site;

mod bad_input;
mod counted;
mod damage;
mod delta;
mod interrupted;
mod layout;
mod many;
mod matrix;
mod memory;
mod plan;
mod refusals;
mod registry;
mod seeds;
mod seeds_guarded;
mod shared;
mod sidecar;
mod stack;
mod survival;
mod verify;
