//! Labels that people give their ranges, to tell them apart later.
//!
//! The container and the volumes have them, beside ours and those of the range image. A label of its
//! own lists the keys that were given.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The label with the keys of the labels that a person gave.
const GIVEN: &str = "dev.longshore.labels";

/// The start of our own keys, which no given key may have.
const OURS: &str = "dev.longshore";

/// Longest key, in bytes.
const MAX_KEY: usize = 128;

/// Longest value, in bytes.
const MAX_VALUE: usize = 1024;

/// One label, written `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    key: String,
    value: String,
}

/// A text that is not a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a label: {reason}")]
pub struct InvalidLabel {
    /// The text, cut to a length that is safe to print.
    pub text: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let invalid = |reason| InvalidLabel { text: text.chars().take(80).collect(), reason };
        let (key, value) = text.split_once('=').ok_or_else(|| invalid("expected key=value"))?;
        let is_key = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if key.is_empty() || MAX_KEY < key.len() || !key.chars().all(is_key) {
            return Err(invalid("a key has 1 to 128 letters, digits, dots, dashes, slashes and _"));
        }
        if key.starts_with(OURS) {
            return Err(invalid("keys that begin with dev.longshore are Longshore's own"));
        }
        if MAX_VALUE < value.len() || value.chars().any(char::is_control) {
            return Err(invalid("a value has at most 1024 bytes and no control characters"));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// The labels of one range, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl FromIterator<Label> for Labels {
    /// Of two labels with one key the later counts.
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Self(labels.into_iter().map(|label| (label.key, label.value)).collect())
    }
}

impl Labels {
    /// True without labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, sorted by key.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// True if all of `others` are among these.
    #[must_use]
    pub fn include(&self, others: &Self) -> bool {
        others.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// Those that were given, among all labels of a container or volume.
    pub(crate) fn given(all: &BTreeMap<String, String>) -> Self {
        let keys = all.get(GIVEN).map_or("", String::as_str).split(',');
        let found = keys.filter_map(|key| Some((key.to_owned(), all.get(key)?.clone())));
        Self(found.collect())
    }

    /// Puts them beside the labels that an object has anyway.
    pub(crate) fn put_on(&self, all: &mut BTreeMap<String, String>) {
        if self.is_empty() {
            return;
        }
        let keys: Vec<&str> = self.0.keys().map(String::as_str).collect();
        all.insert(GIVEN.to_owned(), keys.join(","));
        all.extend(self.0.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Labels {
        texts.iter().map(|text| text.parse::<Label>().unwrap()).collect()
    }

    #[test]
    fn a_label_is_a_key_and_a_value() {
        for text in ["a=b", "ci/job=12", "com.example.team=a=b c", "empty="] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        let long = format!("{}=x", "k".repeat(129));
        for text in ["", "a", "=b", "a b=c", "a,b=c", "dev.longshore=2", "a=\n", "ü=1", &long] {
            assert!(text.parse::<Label>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn given_labels_are_found_again_among_all_others() {
        let given = labels(&["team=x", "run=2", "run=3"]);
        let mut all = BTreeMap::from([("image".to_owned(), "its own".to_owned())]);
        given.put_on(&mut all);
        assert_eq!(Labels::given(&all), given);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(Labels::given(&BTreeMap::new()).is_empty());
        assert!(given.include(&labels(&["run=3"])) && given.include(&Labels::default()));
        assert!(!given.include(&labels(&["run=2"])) && !given.include(&labels(&["other=1"])));
    }
}
