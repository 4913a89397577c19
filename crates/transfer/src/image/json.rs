//! JSON that two parsers cannot read differently.
//!
//! Engines parse with Go's `encoding/json`: the last of two equal keys wins, and a key matches a
//! field whatever its case. A document that uses either to show us one image and an engine another
//! is refused, not interpreted.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};

use super::limits::InvalidImage;

/// Most keys in one object: bounds what a hostile document makes us remember.
const MAX_KEYS: usize = 10_000;

/// Reads a document of at most `limit` bytes.
pub(super) fn parse<T: DeserializeOwned>(
    document: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, InvalidImage> {
    if limit < bytes.len() {
        return Err(InvalidImage::TooLarge { document, size: bytes.len(), limit });
    }
    let invalid = |source| InvalidImage::Json { document, source };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Unambiguous { top: true }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(invalid)?;
    serde_json::from_slice(bytes).map_err(invalid)
}

/// Walks a value and keeps nothing of it; refuses repeated keys.
struct Unambiguous {
    /// Whether this is the document itself, whose keys are fields in any case of letters. Deeper
    /// objects can be people's labels, where case matters.
    top: bool,
}

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self { top: false })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let printed: String = key.chars().take(80).collect();
            if !seen.insert(if self.top { fold(&key) } else { key }) {
                return Err(A::Error::custom(format!("key {printed:?} occurs twice")));
            }
            if MAX_KEYS < seen.len() {
                return Err(A::Error::custom(format!("more than {MAX_KEYS} keys in an object")));
            }
            entries.next_value_seed(Self { top: false })?;
        }
        Ok(())
    }
}

/// Folds case as Go does, where `ſ` is an `s` and the Kelvin sign a `k`.
fn fold(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}
