//! Permissions and control: identity, grants, leases, wanted sets, and the traits of an
//! administrator, of a range and of the link between a range and its host.
//!
//! ```text
//!   administrator ── HostAdmin ──► host agent ◄── link ── range's agent ◄── RangeControl ── inside
//!                                    │ Library: lends images, one lease for each caller
//!                                    └ Caller: arrives with a connection
//! ```
//!
//! Nothing here knows how it travels: the protocol is the business of the crate `proto`.

pub mod grants;
pub mod identity;
pub mod transfers;
pub mod wanted;

pub mod lending;

pub mod admin;
pub mod link;
pub mod range;

pub use admin::HostAdmin;
pub use grants::Pattern;
pub use identity::{Caller, RangeName};
pub use lending::{Access, Library};
pub use range::RangeControl;
pub use wanted::WantedSet;
