//! When a store is collected, and how much may stay.

/// The goal of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// Bytes of blobs that may stay: collection ends once there are no more.
    pub target: u64,
    /// Only says what would be removed.
    pub dry_run: bool,
}

/// The result of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed, or that would be.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs whose turn it was and that stayed, since a lease keeps them or an image is being taken in.
    pub kept_leased: u64,
}

/// The contents of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Committed blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The file system that a store lies on, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub size: u64,
    /// Free bytes for this process.
    pub free: u64,
}

/// An amount of bytes, or a share of the file system that the store lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system's size.
    Percent(u8),
}

impl Mark {
    /// The mark in bytes on a file system of this size.
    #[must_use]
    pub fn of(self, size: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(share) => size / 100 * u64::from(share.min(100)),
        }
    }
}

impl Space {
    /// Bytes that a store with this `reserve` leaves free here.
    pub(super) fn reserved(self, reserve: Mark) -> u64 {
        reserve.of(self.size).min(self.size / 10)
    }
}

/// When a store is collected by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The bytes of blobs above which it is, and those down to which. Absent: their number is no
    /// reason.
    pub water: Option<(Mark, Mark)>,
    /// Bytes that stay free on the file system. Blobs are removed for them, and no ingest may use
    /// them. Never more than a tenth, or a store on a small disk would keep nothing.
    pub reserve: Mark,
}

impl Policy {
    /// High and low water in bytes on a file system of this size; absent where there are none.
    #[must_use]
    pub fn marks(&self, size: u64) -> Option<(u64, u64)> {
        let (high, low) = self.water?;
        Some((high.of(size), low.of(size).min(high.of(size))))
    }

    /// Down to how many bytes a store must be collected; absent where it need not be.
    #[must_use]
    pub fn target(&self, stored: u64, space: Space) -> Option<u64> {
        let water = self.marks(space.size).filter(|(high, _)| *high < stored).map(|(_, low)| low);
        let short = space.reserved(self.reserve).saturating_sub(space.free);
        let reserve = (short != 0 && stored != 0).then(|| stored.saturating_sub(short));
        match (water, reserve) {
            (Some(water), Some(reserve)) => Some(water.min(reserve)),
            (water, reserve) => water.or(reserve),
        }
    }
}
