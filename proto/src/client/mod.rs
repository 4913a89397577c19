//! The near ends: a remote host as a source of images and blobs, a range and an operator's view.

mod admin;
mod calls;
mod failure;
mod health;
mod host;
mod link;
mod paging;
pub(crate) mod pieces;
mod range;
mod reading;
mod retry;
mod stream;

pub use self::admin::{AdminClient, RangeChanges};
pub use self::failure::RemoteError;
pub use self::health::is_serving;
pub use self::host::{Manners, RemoteHost};
pub use self::link::LinkClient;
pub use self::range::{RangeClient, SyncEvents, VerifyEvents};
pub use crate::convert::Malformed;
pub use crate::failure::Failure;
