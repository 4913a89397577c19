//! Records before a header that say more than the header can: PAX records, and GNU's long names.

use std::collections::HashSet;

use super::field::{decimal, shown};
use super::{MAX_PATH, Rules};

/// Most bytes of the records before one entry. Go's reader, and so every engine, has this limit.
pub(super) const MAX_RECORDS: u64 = 1 << 20;

/// Most bytes of one PAX header under strict rules; real ones have a few hundred.
const MAX_PAX: u64 = 64 << 10;

/// Longest key of a PAX record under strict rules, in bytes.
const MAX_KEY: usize = 200;

/// A kind of extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all entries. Most are a tool's remark, and engines skip them.
    PaxGlobal,
    /// GNU's long path of the next entry.
    LongName,
    /// GNU's long link target of the next entry.
    LongLink,
}

impl Extension {
    /// The extension that a header with this type flag announces.
    pub(super) fn of(flag: u8) -> Option<Self> {
        match flag {
            b'x' => Some(Self::Pax),
            b'g' => Some(Self::PaxGlobal),
            b'L' => Some(Self::LongName),
            b'K' => Some(Self::LongLink),
            _ => None,
        }
    }
}

/// What the records before an entry say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pax: Option<Pax>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    /// Bytes of all records so far.
    bytes: u64,
}

/// The PAX records that matter for reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// The entry is a sparse file, in the form that GNU tar writes with PAX.
    pub(super) sparse: bool,
    /// Number of records.
    pub(super) count: usize,
}

impl Extensions {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the size of an extension before it is read.
    pub(super) fn admit(
        &mut self,
        rules: Rules,
        extension: Extension,
        size: u64,
    ) -> Result<(), String> {
        let limit = match (rules, extension) {
            (Rules::Lenient, _) => MAX_RECORDS,
            (Rules::Strict, Extension::Pax | Extension::PaxGlobal) => MAX_PAX,
            // With the NUL at its end.
            (Rules::Strict, Extension::LongName | Extension::LongLink) => MAX_PATH as u64 + 1,
        };
        if extension != Extension::PaxGlobal {
            self.bytes = self.bytes.saturating_add(size);
        }
        match limit < size.max(self.bytes) {
            true => Err(format!("an extension has {size} bytes, at most {limit} are read")),
            false => Ok(()),
        }
    }

    /// Adds the content of an extension.
    pub(super) fn add(
        &mut self,
        rules: Rules,
        extension: Extension,
        bytes: &[u8],
    ) -> Result<(), String> {
        let strict = rules == Rules::Strict;
        let is_second = match extension {
            Extension::Pax => self.pax.is_some(),
            Extension::PaxGlobal => false,
            Extension::LongName => self.long_name.is_some(),
            Extension::LongLink => self.long_link.is_some(),
        };
        if strict && is_second {
            return Err("it has two extensions of one kind".into());
        }
        match extension {
            Extension::Pax => self.pax.get_or_insert_default().add(rules, bytes)?,
            Extension::PaxGlobal if strict => Pax::default().add_global(bytes)?,
            Extension::PaxGlobal => {}
            Extension::LongName => self.long_name = Some(long(rules, bytes)?),
            Extension::LongLink => self.long_link = Some(long(rules, bytes)?),
        }
        Ok(())
    }
}

/// GNU's long text, which ends with a NUL.
fn long(rules: Rules, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = super::field::text(bytes);
    match rules == Rules::Strict && text.len() + 1 != bytes.len() {
        true => Err("its long name is malformed".into()),
        false => Ok(text.to_vec()),
    }
}

impl Pax {
    /// Adds records; the last of two with one key counts.
    fn add(&mut self, rules: Rules, bytes: &[u8]) -> Result<(), String> {
        let mut seen = HashSet::new();
        for record in records(bytes) {
            let (key, value) = record?;
            if rules == Rules::Strict {
                if MAX_KEY < key.len() || std::str::from_utf8(key).is_err() {
                    return Err(malformed());
                }
                if !seen.insert(key) {
                    return Err(format!("PAX key {:?} occurs twice", shown(key)));
                }
            }
            self.count += 1;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                b"uid" => self.uid = Some(decimal(value)?),
                b"gid" => self.gid = Some(decimal(value)?),
                b"GNU.sparse.name" => {
                    self.sparse = true;
                    self.path = Some(value.to_vec());
                }
                _ => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    /// Checks records for all entries: none may change what an entry is.
    fn add_global(mut self, bytes: &[u8]) -> Result<(), String> {
        self.add(Rules::Strict, bytes)?;
        if self.path.is_some() || self.link.is_some() || self.size.is_some() {
            return Err("it sets a path or a size for all entries at once".into());
        }
        Ok(())
    }
}

/// Reads PAX records: `<length> <key>=<value>\n`, where the length counts all of it.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, String>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((record, rest)) = first_record(bytes) else {
            bytes = &[];
            return Some(Err(malformed()));
        };
        bytes = rest;
        Some(Ok(record))
    })
}

/// Key and value of a PAX record.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The first record, and the bytes behind it.
fn first_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|equals| 0 < *equals)?;
    Some(((&record[..equals], &record[equals + 1..]), &bytes[length..]))
}

fn malformed() -> String {
    "its PAX records are malformed".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_are_read_to_the_byte() {
        let read = |text: &str| {
            let mut pax = Pax::default();
            pax.add(Rules::Strict, text.as_bytes()).map(|()| pax)
        };
        let all = |text: &'static str| records(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        assert_eq!(all("9 a=bcde\n").unwrap(), [(&b"a"[..], &b"bcde"[..])]);
        assert_eq!(read("6 a=b\n6 c=d\n").unwrap().count, 2);
        for text in [
            "6 a=b\n6 a=c\n",
            "5 a=b\n",
            "7 a=b\n",
            "6 a=b",
            "x a=b\n",
            "0 a=b\n",
            "-6 a=b\n",
            "5 =b\n",
            "4 a\n",
            "99999999999999999999 a=b\n",
            "6  a=b\n",
            " ",
            "6",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
