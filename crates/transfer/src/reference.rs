//! Image names, as Go's distribution/reference reads and normalises them.
//!
//! ```text
//!   localhost:5000/team/app:1.2@sha256:…
//!   └─── domain ──┘└ path ─┘tag └ digest
//! ```
//!
//! `python` means `docker.io/library/python:latest`; two spellings of one name are equal. Grammar:
//! <https://github.com/distribution/reference/blob/v0.6.0/reference.go>, normalisation:
//! `normalize.go` beside it. Where versions of that library differ we take the stricter rule, so
//! that what parses here is a name to every engine.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// Longest canonical name (domain and path) in bytes; engines before 25 count the domain too.
const MAX_NAME: usize = 255;

/// Longest tag in bytes.
const MAX_TAG: usize = 128;

/// Longer texts are refused unread: a name, a tag, a digest and the legacy domain fit.
const MAX_TEXT: usize = 512;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// An image's name: a repository with a tag or a digest or both, normalised.
///
/// Without a digest there is always a tag, `latest` when none was written. Displayed as Docker
/// prints it (`python:3`, `localhost:5000/x:1`), and that parses to an equal reference.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image name: {reason}")]
pub struct InvalidReference {
    /// What was to be parsed, cut to a length that is safe to print.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl Reference {
    /// The registry's host and port: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within its registry: `library/python`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; absent only where a digest was given without one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name was pinned to, if any.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as people and Docker's tag API write it: `python`, `localhost:5000/x`.
    #[must_use]
    pub fn repository(&self) -> String {
        match self.familiar_path() {
            Some(path) => path.to_owned(),
            None => format!("{}/{}", self.domain, self.path),
        }
    }

    /// Every part spelled out: `docker.io/library/python:latest`.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.domain, self.path, Suffix(self))
    }

    /// The path alone where it means the same without the domain.
    fn familiar_path(&self) -> Option<&str> {
        if self.domain != DEFAULT_DOMAIN {
            return None;
        }
        let path = match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.path,
        };
        // Go drops the domain here too, and its result then names something else.
        let misread = match path.split_once('/') {
            Some((first, _)) => is_domain(first),
            None => is_hex_64(path),
        };
        (!misread).then_some(path)
    }
}

/// The tag and digest with their marks.
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.repository(), Suffix(self)))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({})", self.canonical())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|reason| InvalidReference {
            text: text.chars().take(MAX_NAME).collect(),
            reason,
        })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if MAX_TEXT < text.len() {
        return Err("it is too long");
    }
    if is_hex_64(text) {
        return Err("64 hex digits name an image ID, not a repository");
    }
    let (name_and_tag, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => {
            let digest =
                digest.parse().map_err(|_| "its digest is not sha256: and 64 hex digits")?;
            (rest, Some(digest))
        }
    };
    let (domain, rest) = split_domain(name_and_tag);
    let (path, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((path, tag)) => (path, Some(tag)),
    };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    let path = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    check_domain(domain)?;
    check_path(&path)?;
    if MAX_NAME < domain.len() + 1 + path.len() {
        return Err("its name is longer than 255 characters");
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(check_tag(tag)?.to_owned()),
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (None, Some(_)) => None,
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The domain, the default one where none is written, and what follows it.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// Whether a first component is a registry rather than a namespace.
fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    const REASON: &str = "its registry is not a host name or address with an optional port";
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(REASON)?;
            let hex = |b: u8| b.is_ascii_hexdigit() || b == b':';
            if address.is_empty() || !address.bytes().all(hex) {
                return Err(REASON);
            }
            match port {
                "" => return Ok(()),
                _ => (None, Some(port.strip_prefix(':').ok_or(REASON)?)),
            }
        }
        None => match domain.split_once(':') {
            None => (Some(domain), None),
            Some((host, port)) => (Some(host), Some(port)),
        },
    };
    let label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if host.is_none_or(|host| host.split('.').all(label)) && port.is_none_or(digits) {
        Ok(())
    } else {
        Err(REASON)
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository is written in lower case");
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("its repository breaks the rule [a-z0-9]+ joined by . _ __ or dashes")
    }
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or any dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(alphanumeric).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn check_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("its tag is empty"),
        bytes if MAX_TAG < bytes.len() => Err("its tag is longer than 128 characters"),
        [first, rest @ ..]
            if word(*first) && rest.iter().all(|b| word(*b) || matches!(b, b'.' | b'-')) =>
        {
            Ok(tag)
        }
        _ => Err("its tag has other characters than letters, digits, _ . and -"),
    }
}

fn is_hex_64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests;
