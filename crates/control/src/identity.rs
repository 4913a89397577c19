//! Identity of callers: known from the listener alone, and passed to every handler as a value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range's name: 1 to 63 of `a-z`, `0-9` and `-`, not beginning with `-`.
///
/// What has this type is safe as a file name, a host name and a container's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeName(String);

/// A text that is not a range's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a range's name: 1 to 63 of a-z, 0-9 and -, not beginning with -")]
pub struct InvalidRangeName {
    /// The text that could not be parsed, cut to a length that is safe to print.
    pub text: String,
}

impl RangeName {
    /// Longest name: a label of a host name.
    const MAX: usize = 63;

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RangeName {
    type Err = InvalidRangeName;

    fn from_str(text: &str) -> Result<Self, InvalidRangeName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=Self::MAX).contains(&text.len());
        if fits && text.bytes().all(allowed) && !text.starts_with('-') {
            return Ok(Self(text.into()));
        }
        Err(InvalidRangeName { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for RangeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RangeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RangeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RangeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The caller at the other end of a listener's connections.
///
/// There is no anonymous caller: a listener that cannot say who calls is not made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Something inside this range; root there, and not trusted.
    Range(RangeName),
    /// Every caller that may open the administrator's listener.
    Admin,
    /// Every caller that can reach the address for inspection with grpcurl and its like: any user
    /// of this machine. It sees the lists and states, reads no layer and changes nothing.
    Inspector,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(name) => write!(f, "range/{name}"),
            Self::Admin => f.write_str("admin"),
            Self::Inspector => f.write_str("inspector"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_name_is_a_lower_case_label() {
        for good in ["a", "0", "range-7", "a-", &"x".repeat(63)] {
            assert_eq!(good.parse::<RangeName>().unwrap().as_str(), good);
        }
        let bad =
            ["", "-a", "A", "a_b", "a.b", "a/b", "..", "a b", "a\0", "ä", "a\n", &"x".repeat(64)];
        for text in bad {
            assert!(text.parse::<RangeName>().is_err(), "{text:?} was accepted");
        }
    }
}
