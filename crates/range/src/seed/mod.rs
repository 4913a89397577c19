//! Seeds: a range made once, synced, stopped and sealed, and copied into every range that is new.
//!
//! ```text
//!   look ──► whole ──────────────────────────────────────► origin of new ranges
//!     └─► none ─► builder up, synced, proven ─► stopped ─► sealed ─► card ──┘
//! ```
//! A seed belongs to a key: the range image, and the wanted images with the digest of each. Its
//! builder is a range of its own name, `seed-<key>-<n>`, made by the maker of all ranges; its maker
//! holds its lock. A seed without a card and without a maker was cut off: it is removed, and never
//! used. A call that copies a seed shares that lock until it ends, which keeps the seed. A key has one
//! maker at a time: a call that finds none while another makes it waits for that one.

mod making;
mod register;
mod removal;
mod seeding;
mod using;

pub(crate) use making::Seed;
pub(crate) use register::list;
pub use register::{SeedCard, SeedStatus};
pub(crate) use removal::{clear, keep_within, prune};
pub(crate) use seeding::{Seeding, Wanted};
