//! What is asked for: paths, queries and ranges, read strictly.

use hyper::header::{self, HeaderMap};
use transfer::Digest;

use super::{Refusal, Repository};

/// Longest path with its query that is read, in bytes: the longest name, digest and query fit.
const MAX_TARGET: usize = 2048;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether this is a registry at all.
    Base,
    Manifest(Repository, ManifestName),
    Blob(Repository, Digest),
    Tags(Repository, Page),
}

/// How a manifest is named in its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestName {
    /// Checked by the rule for tags.
    Tag(String),
    Digest(Digest),
}

/// Which piece of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Most entries; all where absent.
    pub(super) limit: Option<usize>,
    /// Entries after this one; from the first where absent.
    pub(super) last: Option<String>,
}

/// Which bytes of a blob are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    Whole,
    /// From the first offset up to before the second; never empty.
    Part(u64, u64),
    /// Nothing that the blob has.
    BeyondEnd,
}

impl Route {
    /// Reads a path, and the query after it where there is one.
    pub(super) fn parse(path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let query = query.unwrap_or_default();
        if MAX_TARGET < path.len() + query.len() {
            return Err(Refusal::InvalidName);
        }
        let rest = path.strip_prefix("/v2").ok_or(Refusal::NoSuchPath)?;
        if matches!(rest, "" | "/") {
            return Ok(Self::Base);
        }
        let rest = rest.strip_prefix('/').ok_or(Refusal::NoSuchPath)?;
        // From the end: a name may have any of the words in it.
        let (rest, last) = rest.rsplit_once('/').ok_or(Refusal::NoSuchPath)?;
        let (name, kind) = rest.rsplit_once('/').ok_or(Refusal::NoSuchPath)?;
        let ns = value(query, "ns")?;
        let repository = || Repository::parse(name, ns.as_deref());
        match (kind, last) {
            ("manifests", name) => Ok(Self::Manifest(repository()?, ManifestName::parse(name)?)),
            ("blobs", digest) => {
                let digest = digest.parse().map_err(|_| Refusal::InvalidDigest);
                Ok(Self::Blob(repository()?, digest?))
            }
            ("tags", "list") => Ok(Self::Tags(repository()?, Page::parse(query)?)),
            _ => Err(Refusal::NoSuchPath),
        }
    }
}

impl ManifestName {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if rest.len() < 128
                    && word(*first)
                    && rest.iter().all(|byte| word(*byte) || b".-".contains(byte)) =>
            {
                Ok(Self::Tag(text.to_owned()))
            }
            _ => Err(Refusal::InvalidDigest),
        }
    }
}

impl Page {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let limit = match value(query, "n")? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Refusal::InvalidPage)?),
        };
        Ok(Self { limit, last: value(query, "last")? })
    }
}

/// The first value of `key` in a query; `None` without that key.
fn value(query: &str, key: &str) -> Result<Option<String>, Refusal> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.find(|(name, _)| *name == key) else { return Ok(None) };
    decoded(value).map(Some).ok_or(Refusal::InvalidName)
}

/// Text with its percent signs taken out; `None` where they or the text make no sense.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(hex[0])? * 16 + digit(hex[1])?;
        bytes.push(u8::try_from(byte).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

impl Bounds {
    /// Reads the headers of a request for a blob of `size` bytes. What is no single range of bytes
    /// is passed over, as the specification of HTTP has it.
    pub(super) fn parse(headers: &HeaderMap, size: u64) -> Self {
        // Whoever wants the part only if nothing changed gets the whole, which is always right.
        if headers.contains_key(header::IF_RANGE) {
            return Self::Whole;
        }
        let mut values = headers.get_all(header::RANGE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Self::Whole };
        let text = value.to_str().ok().and_then(|text| text.strip_prefix("bytes="));
        let bounds = text.and_then(|text| text.split_once('-'));
        bounds.and_then(|(first, last)| Self::between(first, last, size)).unwrap_or(Self::Whole)
    }

    /// `None` where the texts are no range.
    fn between(first: &str, last: &str, size: u64) -> Option<Self> {
        if first.is_empty() {
            let length = number(last)?.min(size);
            return Some(if length == 0 {
                Self::BeyondEnd
            } else {
                Self::Part(size - length, size)
            });
        }
        let first = number(first)?;
        let end = if last.is_empty() { size } else { number(last)?.saturating_add(1) };
        if end <= first && !last.is_empty() {
            return None;
        }
        Some(if first < size { Self::Part(first, end.min(size)) } else { Self::BeyondEnd })
    }
}

/// Digits alone: `parse` would take a sign as well.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(name, None).unwrap()
    }

    #[test]
    fn a_path_is_read_from_its_end() {
        let digest = Digest::of(b"x");
        let table = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            (
                "/v2/app/manifests/1.2_x-y".to_owned(),
                Route::Manifest(repository("app"), ManifestName::Tag("1.2_x-y".into())),
            ),
            (
                format!("/v2/a/manifests/blobs/manifests/{digest}"),
                Route::Manifest(repository("a/manifests/blobs"), ManifestName::Digest(digest)),
            ),
            (
                format!("/v2/quay.io/a/b/blobs/{digest}"),
                Route::Blob(repository("quay.io/a/b"), digest),
            ),
            (
                "/v2/tags/list/tags/list".to_owned(),
                Route::Tags(repository("tags/list"), Page::default()),
            ),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(&path, None), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_the_api_is_refused() {
        let digest = Digest::of(b"x");
        let long = "a".repeat(3000);
        let table = [
            ("/", Refusal::NoSuchPath),
            ("", Refusal::NoSuchPath),
            ("/v1/", Refusal::NoSuchPath),
            ("/v2x/app/manifests/1", Refusal::NoSuchPath),
            ("/v2/app", Refusal::NoSuchPath),
            ("/v2/_catalog", Refusal::NoSuchPath),
            ("/v2/app/blobs/uploads/", Refusal::NoSuchPath),
            ("/v2/app/manifests/", Refusal::InvalidDigest),
            ("/v2/app/manifests/.x", Refusal::InvalidDigest),
            ("/v2/app/manifests/sha256:12", Refusal::InvalidDigest),
            ("/v2/app/manifests/sha512:12", Refusal::InvalidDigest),
            ("/v2/app/manifests/%2e%2e", Refusal::InvalidDigest),
            ("/v2/app/blobs/latest", Refusal::InvalidDigest),
            ("/v2/app/blobs/..", Refusal::InvalidDigest),
            ("/v2//manifests/1", Refusal::InvalidName),
            ("/v2/../../etc/manifests/1", Refusal::InvalidName),
            ("/v2/App/manifests/1", Refusal::InvalidName),
            ("/v2/a%2fb/manifests/1", Refusal::InvalidName),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(path, None), Err(expected), "{path}");
        }
        let path = format!("/v2/{long}/blobs/{digest}");
        assert_eq!(Route::parse(&path, None), Err(Refusal::InvalidName));
        for query in ["ns=a%2", "ns=%ff", "ns=a/b", "n=x", "n=-1"] {
            let route = Route::parse("/v2/app/tags/list", Some(query));
            assert!(route.is_err(), "{query}: {route:?}");
        }
    }

    #[test]
    fn a_query_says_the_registry_and_the_page() {
        let query = Some("x=1&ns=localhost%3A5000&n=2&last=a");
        let expected = Route::Tags(
            Repository::parse("app", Some("localhost:5000")).unwrap(),
            Page { limit: Some(2), last: Some("a".into()) },
        );
        assert_eq!(Route::parse("/v2/app/tags/list", query), Ok(expected));
    }

    #[test]
    fn a_range_is_one_piece_of_the_blob_or_is_passed_over() {
        let check = |value: &'static str, size: u64, expected: Bounds| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, value.parse().unwrap());
            assert_eq!(Bounds::parse(&headers, size), expected, "{value} of {size}");
        };
        check("bytes=0-", 10, Bounds::Part(0, 10));
        check("bytes=3-", 10, Bounds::Part(3, 10));
        check("bytes=3-3", 10, Bounds::Part(3, 4));
        check("bytes=3-99", 10, Bounds::Part(3, 10));
        check("bytes=9-", 10, Bounds::Part(9, 10));
        check("bytes=10-", 10, Bounds::BeyondEnd);
        check("bytes=0-", 0, Bounds::BeyondEnd);
        check("bytes=-4", 10, Bounds::Part(6, 10));
        check("bytes=-40", 10, Bounds::Part(0, 10));
        check("bytes=-0", 10, Bounds::BeyondEnd);
        check("bytes=0-18446744073709551615", 10, Bounds::Part(0, 10));
        for nonsense in [
            "bytes=4-3",
            "bytes=-",
            "bytes=",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes=99999999999999999999-",
            "bytes= 1-2",
        ] {
            check(nonsense, 10, Bounds::Whole);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-2".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"x\"".parse().unwrap());
        assert_eq!(Bounds::parse(&headers, 10), Bounds::Whole);
    }
}
