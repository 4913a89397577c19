//! The protocol's integration tests: both ends over a small pipe, and the committed bindings.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod agents;
mod blobs;
mod codegen;
mod doubts;
mod elsewhere;
mod flight;
mod forms;
mod grants;
mod identity;
mod inventory;
mod link;
mod links;
mod pipe;
mod sockets;
mod standing;
