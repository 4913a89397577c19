//! Recent speed of a link, or of compression, which saves bytes on the link.
//!
//! Whether bytes are worth compressing on their way is decided by three of these:
//!
//! ```text
//!   receiver: bytes by time spent waiting for them     fast when the receiver itself is slow
//!   sender:   bytes by time spent being held up        fast when what it reads from is slow
//!   sender:   bytes by time spent compressing them
//! ```
//! A link is as fast as the faster of its two ends finds it: then neither a slow disk nor a slow
//! engine is taken for a slow link. Within one host nothing is measured and nothing compressed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes after which older ones count half: a few seconds of a slow link.
const MEMORY: u64 = 64 << 20;

/// Fewer bytes than this say nothing: they may lie in somebody's buffer.
const LEAST: u64 = 8 << 20;

/// Ratio of compression speed to link speed from which compressing pays. Compressible data shrinks
/// to about half, so a link of half the compression speed doubles its throughput; on faster links
/// the cores have better things to do.
const MARGIN: u64 = 2;

/// Bytes by time, the latest counting most.
#[derive(Debug, Default)]
pub(crate) struct Speed(Mutex<Noted>);

#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    bytes: u64,
    time: Duration,
}

impl Speed {
    /// So many bytes took so long.
    pub(crate) fn note(&self, bytes: usize, time: Duration) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.bytes += bytes as u64;
        noted.time += time;
        if MEMORY < noted.bytes {
            *noted = Noted { bytes: noted.bytes / 2, time: noted.time / 2 };
        }
    }

    /// Measured speed; `None` after too few bytes. If the time is too short to measure, the speed is
    /// the greatest possible.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        let Noted { bytes, time } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = |nanos: u128| u128::from(bytes) * 1_000_000_000 / nanos;
        let speed = Some(time.as_nanos()).filter(|nanos| 0 < *nanos).map(per_second);
        (LEAST <= bytes).then(|| speed.map_or(u64::MAX, |it| u64::try_from(it).unwrap_or(u64::MAX)))
    }
}

/// True if compressing pays: the link is far slower than the compression. Both are in bytes per
/// second.
pub(crate) fn is_worth_compressing(link: u64, compressing: u64) -> bool {
    link.saturating_mul(MARGIN) < compressing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_known_once_enough_went_by() {
        let speed = Speed::default();
        assert_eq!(speed.bytes_per_second(), None);
        speed.note(1 << 20, Duration::from_millis(10));
        assert_eq!(speed.bytes_per_second(), None, "one frame says nothing");
        for _ in 0..9 {
            speed.note(1 << 20, Duration::from_millis(10));
        }
        assert_eq!(speed.bytes_per_second(), Some(100 << 20));
    }

    #[test]
    fn what_takes_no_time_is_as_fast_as_can_be() {
        let speed = Speed::default();
        speed.note(16 << 20, Duration::ZERO);
        assert_eq!(speed.bytes_per_second(), Some(u64::MAX));
    }

    #[test]
    fn a_link_that_changes_is_seen_to_change() {
        let speed = Speed::default();
        for _ in 0..1000 {
            speed.note(1 << 20, Duration::from_millis(100));
        }
        for _ in 0..500 {
            speed.note(1 << 20, Duration::from_micros(500));
        }
        let now = speed.bytes_per_second().unwrap();
        assert!(1_000 << 20 < now, "{now}: the slow time is not forgotten");
    }

    #[test]
    fn only_links_well_below_the_compressor_are_worth_it() {
        for (link, compressing, worth) in
            [(10, 400, true), (199, 400, true), (200, 400, false), (u64::MAX, u64::MAX, false)]
        {
            assert_eq!(is_worth_compressing(link, compressing), worth, "{link}, {compressing}");
        }
    }
}
