//! Sizes and times of flags: pure parsers, each with a table of what it takes.
//!
//! A number without a unit is refused for times and means bytes for sizes, as in Docker's own
//! flags (`--memory 512m`, `--stop-timeout 10s`).

use std::fmt;
use std::time::Duration;

/// A number of bytes, written `65536`, `64KiB`, `64MiB` or `1GiB`.
///
/// Only powers of 1024 and only their exact names: `64MB` means two different numbers to two
/// readers, so it is refused rather than guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Reasons why a text is not a size or a time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number, or one with a sign, a fraction or a blank in it.
    #[error("{text:?} does not begin with a whole number")]
    Number {
        /// The given text.
        text: String,
    },
    /// The unit is missing or another one.
    #[error("{text:?} needs a unit: {allowed}")]
    Unit {
        /// The given text.
        text: String,
        /// The units there are.
        allowed: &'static str,
    },
    /// More than 64 bits can hold.
    #[error("{text:?} is too large")]
    TooLarge {
        /// The given text.
        text: String,
    },
}

/// The units of a size, and what they multiply by.
const SIZES: &[(&str, u64)] =
    &[("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// The units of a time, in milliseconds.
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Parses a size; the `value_parser` of flags that hold one.
///
/// # Errors
/// [`UnitError`].
pub fn byte_size(text: &str) -> Result<ByteSize, UnitError> {
    scaled(text, SIZES, "B, KiB, MiB, GiB, TiB").map(ByteSize)
}

/// Parses a time; the `value_parser` of flags that hold one.
///
/// # Errors
/// [`UnitError`].
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    scaled(text, TIMES, "ms, s, m, h").map(Duration::from_millis)
}

fn scaled(text: &str, units: &[(&str, u64)], allowed: &'static str) -> Result<u64, UnitError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number { text: text.to_owned() });
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unit { text: text.to_owned(), allowed });
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |factor: &u64| self.0 != 0 && self.0.is_multiple_of(*factor);
        match SIZES.iter().skip(2).rev().find(|(_, factor)| exact(factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_exact_units() {
        let good = [
            ("0", 0),
            ("65536", 65_536),
            ("12B", 12),
            ("64KiB", 64 << 10),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(byte_size(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", " 1", "1 GiB", "64MB", "64m", "1gib", "17000000TiB"]
        {
            assert!(byte_size(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn times_need_a_unit() {
        let good = [("0s", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1m30s", "1d", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_size_is_shown_in_its_largest_exact_unit() {
        for text in ["0B", "12B", "1025B", "64KiB", "64MiB", "1GiB", "3TiB"] {
            assert_eq!(byte_size(text).unwrap().to_string(), text);
        }
    }
}
