//! The dind agent from outside: its supervisor with real children, its syncs against whole hosts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod supervisor;
mod syncing;
