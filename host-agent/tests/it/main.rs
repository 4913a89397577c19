//! The host agent in this process, over its own sockets, with an engine of the test's making.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod collecting;
mod command;
mod host;
mod link;
mod passing;
mod serving;
mod wanted;
mod supervised;
