//! Patterns over image names: how an administrator grants a range more than its wanted set.
//!
//! A pattern is compared with both spellings of a name, the one that Docker prints (`python:3`) and
//! the one with every part (`docker.io/library/python:3`):
//!
//! | in a pattern | means |
//! |---|---|
//! | `*` alone | every image, also one without a name |
//! | `**` | any characters, none included |
//! | `*` | any characters but `/`, `:` and `@`, none included |
//! | anything else | itself |
//! | no tag and no digest | any tag and any digest |
//!
//! So `team/*` means every tag of every repository in `team`, and `python:3.*` each 3.x of `python`.
//! A name with a digest is fixed by that digest: a pattern with a tag does not match it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use transfer::Reference;

/// Longest pattern in bytes: as long as the longest name.
const MAX_PATTERN: usize = 512;

/// Most runs of `*` in a pattern: each costs a comparison time.
const MAX_STARS: usize = 16;

/// A pattern over image names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(String);

/// A text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a pattern of image names: {reason}")]
pub struct InvalidPattern {
    /// The text, cut to a length that is safe to print.
    pub text: String,
    /// The broken rule.
    pub reason: &'static str,
}

impl Pattern {
    /// The pattern for every image.
    #[must_use]
    pub fn all() -> Self {
        Self("*".into())
    }

    /// True if the pattern matches every image, also one without a name.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0 == "*"
    }

    /// True if the image with this name is granted.
    #[must_use]
    pub fn matches(&self, reference: &Reference) -> bool {
        if self.is_all() {
            return true;
        }
        if self.has_suffix() {
            return self.is_like(&reference.to_string()) || self.is_like(&reference.canonical());
        }
        let canonical = format!("{}/{}", reference.domain(), reference.path());
        self.is_like(&reference.repository()) || self.is_like(&canonical)
    }

    /// True if the pattern has a tag or a digest.
    fn has_suffix(&self) -> bool {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        last.contains([':', '@'])
    }

    fn is_like(&self, text: &str) -> bool {
        is_like(self.0.as_bytes(), text.as_bytes())
    }
}

/// True if `text` matches `pattern`. Takes as many steps as the two are long, multiplied, since
/// only the last `**` and the last `*` behind it are ever tried anew.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Place in the pattern to go on from, and in the text, when the rest does not match.
    let mut within: Option<(usize, usize)> = None;
    let mut across: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(b'*') => {
                let stars = pattern[p..].iter().take_while(|byte| **byte == b'*').count();
                p += stars;
                if 1 < stars {
                    across = Some((p, t));
                    within = None;
                } else {
                    within = Some((p, t));
                }
                continue;
            }
            None if t == text.len() => return true,
            Some(byte) if text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        // A longer run for the last star, or else for the last pair of them.
        let longer = within.filter(|(_, t)| text.get(*t).is_some_and(|b| !b"/:@".contains(b)));
        if let Some((after, from)) = longer {
            within = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else if let Some((after, from)) = across.filter(|(_, t)| *t < text.len()) {
            across = Some((after, from + 1));
            within = None;
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"*/:@._-[]".contains(&b);
        let reason = if text.is_empty() {
            "it is empty"
        } else if MAX_PATTERN < text.len() {
            "it is too long"
        } else if !text.bytes().all(allowed) {
            "it has a character that no image name has"
        } else if MAX_STARS < text.split('*').filter(|part| !part.is_empty()).count() {
            "it has too many stars"
        } else {
            return Ok(Self(text.into()));
        };
        Err(InvalidPattern { text: text.chars().take(80).collect(), reason })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_its_table_says() {
        for (pattern, name, expected) in [
            ("*", "python:3", true),
            ("*", "localhost:5000/a/b/c:1", true),
            ("**", "localhost:5000/a/b/c:1", true),
            ("python", "python:3", true),
            ("python", "python", true),
            ("python", "docker.io/library/python:3", true),
            ("docker.io/library/python", "python:3", true),
            ("python", "pythonista:3", false),
            ("python", "team/python:3", false),
            ("python:3", "python:3", true),
            ("python:3", "python:3.9", false),
            ("python:3.*", "python:3.9", true),
            ("python:3.*", "python:3.", true),
            ("python:3.*", "python:3", false),
            ("team/*", "team/app:1", true),
            ("team/*", "team/app", true),
            ("team/*", "team/sub/app:1", false),
            ("team/**", "team/sub/app:1", true),
            ("team/*:1", "team/app:1", true),
            ("team/*:1", "team/app:2", false),
            ("*/app:1", "team/app:1", true),
            ("*/*/app", "localhost:5000/team/app:1", false),
            ("localhost:5000/*/app", "localhost:5000/team/app:1", true),
            ("localhost:5000/**", "localhost:5000/team/app:1", true),
            ("localhost:5000/**", "localhost:5001/team/app:1", false),
            ("docker.io/**", "python:3", true),
            ("docker.io/**", "ghcr.io/python:3", false),
            ("a*b*c", "axxbxxc:1", true),
            ("a*b*c", "axxbxx:1", false),
            ("a**/z*y", "a/b/c/zzy", true),
            ("a**/z*y", "a/b/c/zz", false),
            ("A", "a", false),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            let is = parsed.matches(&name.parse().unwrap());
            assert_eq!(is, expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn a_name_with_a_digest_is_not_granted_by_its_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (pattern, expected) in [
            ("python", true),
            ("python:3", false),
            ("python:3*", false),
            ("python:3**", true),
            ("python:3@**", true),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            let name = format!("python:3@{digest}").parse().unwrap();
            assert_eq!(pattern.matches(&name), expected, "{pattern}");
        }
    }

    #[test]
    fn a_text_that_could_match_no_name_or_takes_long_is_no_pattern() {
        let long = "a".repeat(MAX_PATTERN + 1);
        let stars = "*a".repeat(MAX_STARS + 1);
        for text in ["", "a b", "a\n", "ä", "a?", "{a}", &long, &stars] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?} was accepted");
        }
        let worst: Pattern = "**a".repeat(MAX_STARS).parse().unwrap();
        // Trying each run with each other one would take for ever.
        assert!(!worst.matches(&format!("{}b", "a".repeat(200)).parse().unwrap()));
    }
}
