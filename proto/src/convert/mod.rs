//! The border: the only place that names both generated types and those of the core.
//!
//! What comes in is checked here, once, and has its own type afterwards; what is wrong with it is
//! said field by field ([`status::invalid`]). Handlers and clients on either side pass values
//! through these functions without naming what is generated.

pub(crate) mod admin;
pub(crate) mod blob;
pub(crate) mod check;
pub(crate) mod image;
pub(crate) mod inventory;
pub(crate) mod link;
pub(crate) mod page;
pub(crate) mod range;
pub(crate) mod ranges;
pub(crate) mod said;
pub(crate) mod status;
pub(crate) mod transfers;
pub(crate) mod wanted;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// A response that a peer of this protocol does not send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not of the protocol: {field} {reason}")]
pub struct Malformed {
    /// The field in question.
    pub field: &'static str,
    /// Reason why the field is invalid.
    pub reason: String,
}

impl Malformed {
    pub(crate) fn new(field: &'static str, reason: impl ToString) -> Self {
        Self { field, reason: reason.to_string() }
    }

    pub(crate) fn absent(field: &'static str) -> Self {
        Self::new(field, "is absent")
    }
}

/// A field of a response that must parse.
fn parse<T>(field: &'static str, text: &str) -> Result<T, Malformed>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| Malformed::new(field, error))
}

/// A field of a response that is empty when there is nothing to say.
fn parse_some<T>(field: &'static str, text: &str) -> Result<Option<T>, Malformed>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

fn parse_all<T>(field: &'static str, texts: &[String]) -> Result<Vec<T>, Malformed>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    texts.iter().map(|text| parse(field, text)).collect()
}

fn texts<T: std::fmt::Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// Converts a duration; one beyond the protocol's limit becomes the longest.
fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A length of time; one that is absent or negative counts as none.
fn elapsed(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| duration.try_into().ok()).unwrap_or_default()
}
