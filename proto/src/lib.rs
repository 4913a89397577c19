//! The protocol longshore.v1: bindings, and both ends of it as the core's own traits.
//!
//! ```text
//!   host agent                                            dind agent, range, console
//!   ──────────                                            ──────────────────────────
//!   Library  ─┐                                       ┌─ RemoteHost  (ImageSource, BlobSource)
//!   HostAdmin ├─ server ══ Unix socket or TCP, HTTP/2 ══ client ── AdminClient
//!   RangeControl ─┘        one listener per caller        └─ RangeClient
//!                    └────────── convert ──────────┘
//! ```
//!
//! The listener is the identity: a server is built for one [`control::Caller`], and every handler
//! has it as a value. Only `convert` names both generated types and those of the core, and the
//! generated ones never leave this crate.

pub mod channel;
pub mod client;
pub mod server;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

mod compress;
mod convert;
mod failure;
mod raw;
mod speed;
mod wire;

pub use channel::Endpoint;
pub use client::{AdminClient, LinkClient, RangeClient, RemoteError, RemoteHost};
