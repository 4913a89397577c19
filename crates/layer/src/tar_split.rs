//! tar-split: an engine's record of a layer's tar, without the contents of its files.
//!
//! ```text
//! {"type":2,"payload":"…base64…","position":0}                      bytes, verbatim: headers, padding
//! {"type":1,"name":"etc/passwd","size":1042,"payload":"…","position":1}   a file's content goes here
//! {"type":1,"name_raw":"…base64…","position":2}                     a name that is no UTF-8; no content
//! ```
//! One entry a line, in the order of the tar. A pure parser with limits: no line, no count and no
//! sum that comes from a file is trusted.
//!
//! Format: <https://github.com/vbatts/tar-split/blob/v0.11.5/tar/storage/entry.go>.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Longest line, in bytes. Headers have some KiB; old engines put all padding at the end of an
/// archive into one line, of which this allows 12 MiB.
const MAX_LINE: usize = 16 << 20;

/// Most lines. A file has two or three; a layer of five million files is no layer.
const MAX_LINES: u64 = 1 << 24;

/// Longest name, in bytes: no system opens a longer one.
const MAX_NAME: usize = 4096;

/// The CRC-64 of no bytes, as the engine writes it beside a file's size.
const CRC_OF_NOTHING: &str = "AAAAAAAAAAA=";

/// The next part of a tar.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// These bytes.
    Bytes(Encoded<'a>),
    /// The content of a file that the engine unpacked.
    File {
        /// Its name in the tar, as it stood there.
        name: Cow<'a, [u8]>,
        /// Bytes of content; 0 for all that has none, like folders.
        size: u64,
    },
}

/// Bytes in base64, not decoded yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded<'a>(&'a [u8]);

/// A tar-split file that no engine writes.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// It cannot be read, or is no whole gzip file.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// A line of it says nothing that is known.
    #[error("line {line} is {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: u8,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    name_raw: Option<&'a str>,
    size: Option<u64>,
    payload: Option<&'a str>,
}

/// Reads a tar-split file, already decompressed, entry by entry.
#[derive(Debug)]
pub struct Entries<R> {
    reader: R,
    buffer: Vec<u8>,
    line: u64,
}

impl<R: BufRead> Entries<R> {
    /// Reads what `reader` decompresses.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), line: 0 }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// Any [`SplitError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, SplitError> {
        self.buffer.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer);
        if read.map_err(SplitError::Read)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        if MAX_LINE < self.buffer.len() {
            return Err(self.wrong("too long"));
        }
        if MAX_LINES < self.line {
            return Err(self.wrong("one too many"));
        }
        parse(&self.buffer).map(Some).map_err(|what| self.wrong(what))
    }

    /// The size of the tar in bytes, from here to its end.
    ///
    /// # Errors
    /// Any [`SplitError`].
    pub fn total(&mut self) -> Result<u64, SplitError> {
        let mut total = 0_u64;
        while let Some(entry) = self.next_entry()? {
            let size = match entry {
                Entry::Bytes(bytes) => bytes.size(),
                Entry::File { size, .. } => size,
            };
            // Readers count in the system's signed offsets.
            let sum = total.checked_add(size).filter(|sum| *sum <= i64::MAX as u64);
            total = sum.ok_or_else(|| self.wrong("beyond any size"))?;
        }
        Ok(total)
    }

    /// An error about the line that was read last.
    #[must_use]
    pub fn wrong(&self, what: &'static str) -> SplitError {
        SplitError::Line { line: self.line, what }
    }
}

impl Encoded<'_> {
    /// Number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let padding = self.0.iter().rev().take(2).filter(|byte| **byte == b'=').count();
        (self.0.len() as u64 / 4 * 3).saturating_sub(padding as u64)
    }

    /// Adds the bytes to `bytes`. Returns `false` unless this is base64; then the added bytes mean
    /// nothing.
    #[must_use]
    pub fn decode_to(&self, bytes: &mut Vec<u8>) -> bool {
        STANDARD.decode_vec(self.0, bytes).is_ok()
    }
}

/// Begin and end of a line of bytes, as engines write it.
const BYTES: (&[u8], &[u8]) = (br#"{"type":2,"payload":""#, br#"","position":"#);

/// The payload of a line of bytes that is written as engines do; `None` for all others, which are
/// for the parser. Half of a file's lines and nine tenths of its bytes are such.
fn plain_payload(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_prefix(BYTES.0)?.strip_suffix(b"}")?;
    let position = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let payload = line[..line.len() - position].strip_suffix(BYTES.1)?;
    // No letter of base64 ends the text; whether these are letters of it, decoding will show.
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
    (0 < position && !payload.iter().any(ends)).then_some(payload)
}

fn parse(line: &[u8]) -> Result<Entry<'_>, &'static str> {
    if let Some(payload) = plain_payload(line) {
        return Ok(Entry::Bytes(Encoded(payload)));
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| "no entry")?;
    match line.r#type {
        1 => Ok(Entry::File { name: name(&line)?, size: size(&line) }),
        2 => Ok(Entry::Bytes(Encoded(line.payload.unwrap_or_default().as_bytes()))),
        _ => Err("of an unknown type"),
    }
}

fn name<'a>(line: &Line<'a>) -> Result<Cow<'a, [u8]>, &'static str> {
    let raw = line.name_raw.filter(|raw| !raw.is_empty());
    let name = match (raw, &line.name) {
        (Some(raw), _) => Cow::Owned(STANDARD.decode(raw).map_err(|_| "a name that is no base64")?),
        (None, Some(Cow::Borrowed(name))) => Cow::Borrowed(name.as_bytes()),
        (None, Some(Cow::Owned(name))) => Cow::Owned(name.as_bytes().to_vec()),
        (None, None) => Cow::Borrowed(&[][..]),
    };
    if MAX_NAME < name.len() && size(line) != 0 {
        return Err("a name that is too long");
    }
    Ok(name)
}

/// The bytes that stood in the tar: the engine takes the size from the header, also from that of a
/// hard link, which old archivers write with the size of what it leads to and no content.
fn size(line: &Line<'_>) -> u64 {
    match line.payload {
        Some(CRC_OF_NOTHING) => 0,
        _ => line.size.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<String>, SplitError> {
        let mut entries = Entries::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            all.push(match entry {
                Entry::Bytes(bytes) => {
                    let mut plain = Vec::new();
                    let plain = bytes.decode_to(&mut plain).then_some(plain);
                    format!("{}: {plain:?}", bytes.size())
                }
                Entry::File { name, size } => format!("{}: {size}", name.escape_ascii()),
            });
        }
        Ok(all)
    }

    #[test]
    fn what_engines_write_is_understood() {
        let table = [
            (r#"{"type":2,"payload":"YWI=","position":0}"#, "2: Some([97, 98])"),
            (r#"{"type":2,"payload":"YWJj","position":0}"#, "3: Some([97, 98, 99])"),
            (r#"{"type":2,"payload":"YQ==","position":0}"#, "1: Some([97])"),
            (r#"{"type":2,"payload":null,"position":0}"#, "0: Some([])"),
            (r#"{"type":2,"payload":"YW=j","position":0}"#, "2: None"),
            (r#"{"type":1,"name":"./","payload":null,"position":1}"#, "./: 0"),
            (
                r#"{"type":1,"name":"a\nb\u003c","size":7,"payload":"AQ==","position":1}"#,
                "a\\nb<: 7",
            ),
            (r#"{"type":1,"name_raw":"/2E=","size":7,"position":1}"#, "\\xffa: 7"),
            (
                r#"{"type":1,"name":"link","size":7,"payload":"AAAAAAAAAAA=","position":1}"#,
                "link: 0",
            ),
        ];
        for (line, expected) in table {
            assert_eq!(all(line).unwrap(), [expected], "{line}");
            assert_eq!(all(&format!("{line}\n{line}\n")).unwrap(), [expected; 2], "{line}");
        }
        assert_eq!(all("").unwrap(), [""; 0]);
    }

    #[test]
    fn what_no_engine_writes_is_refused() {
        let long = format!(r#"{{"type":2,"payload":"{}"}}"#, "A".repeat(MAX_LINE));
        let name = format!(r#"{{"type":1,"size":1,"name":"{}"}}"#, "a/".repeat(MAX_NAME));
        let table = [
            "\n",
            "{",
            "[]",
            r#"{"payload":"YWI="}"#,
            r#"{"type":0}"#,
            r#"{"type":3}"#,
            r#"{"type":1,"name":"a","size":-1}"#,
            r#"{"type":1,"name":"a","size":18446744073709551616}"#,
            r#"{"type":1,"name":"a","name":"b","size":1}"#,
            r#"{"type":1,"name_raw":"?","size":1}"#,
            r#"{"type":2,"payload":7}"#,
            r#"{"type":2,"payload":"YWI="}{"type":2}"#,
            &long,
            &name,
        ];
        for line in table {
            let text = format!("{{\"type\":2,\"payload\":\"\"}}\n{line}");
            let error = all(&text).unwrap_err();
            assert!(matches!(error, SplitError::Line { line: 2, .. }), "{line:.60}: {error}");
        }
    }

    #[test]
    fn a_sum_of_sizes_does_not_overflow() {
        let line = format!(r#"{{"type":1,"name":"a","size":{}}}"#, i64::MAX);
        let total = |text: &str| Entries::new(text.as_bytes()).total();
        assert_eq!(total(&line).unwrap(), i64::MAX as u64);
        assert!(total(&format!("{line}\n{line}")).is_err());
        assert!(total(&line.replace(&i64::MAX.to_string(), &u64::MAX.to_string())).is_err());
    }
}
