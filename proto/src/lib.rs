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
//! The listener is the identity: a server is built for one [`identity::Caller`], and every handler
//! has it as a value. Only `convert` names both generated types and those of the core, and the
//! generated ones never leave this crate.

pub mod admin;
pub mod control;
pub mod identity;
pub mod library;
pub mod transfers;
pub mod wanted;

pub mod channel;
pub mod client;
pub mod server;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;

mod convert;
mod raw;
mod speed;
mod squeeze;
mod wire;

pub use admin::HostAdmin;
pub use channel::Endpoint;
pub use client::{AdminClient, RangeClient, RemoteError, RemoteHost};
pub use control::RangeControl;
pub use identity::{Caller, RangeName};
pub use library::{Access, Library};
pub use wanted::WantedSet;
