//! One header of a tar file, read so strictly that no other reader can read it differently.
//!
//! Formats: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html> (ustar, PAX), and
//! GNU's long names. What readers are known to disagree on is refused: numbers that are negative, in
//! base 256 or out of range; a PAX record that says otherwise than the header where the header could
//! say it (CVE-2025-62518); sparse files; paths that leave the archive.

use std::collections::BTreeMap;

/// Size of a header, and what contents are padded to, in bytes.
pub(super) const BLOCK: usize = 512;

/// Longest path of an entry or a link, in bytes.
pub(super) const MAX_PATH: usize = 4096;

/// Largest number that twelve octal digits less their end hold: sizes beyond need a PAX record.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all entries.
    PaxGlobal,
    /// GNU's long name or link target for the next entry.
    LongName,
    LongLink,
}

/// A header as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
}

/// What the headers before an entry said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pax: Option<BTreeMap<String, Vec<u8>>>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Header {
    /// Reads a block that is not all zeros.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, String> {
        check_sum(block)?;
        let ustar = match &block[257..265] {
            b"ustar\x0000" => true,
            // GNU's own; its fields after the magic are no part of the path.
            b"ustar  \0" => false,
            b"\0\0\0\0\0\0\0\0" => false,
            _ => return Err("its header is of no known format".into()),
        };
        let mut path = text(&block[..100]).to_vec();
        let prefix = if ustar { text(&block[345..500]) } else { b"" };
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let kind = match block[156] {
            b'\0' if path.ends_with(b"/") => Kind::Folder,
            b'0' | b'\0' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Folder,
            b'x' => Kind::Pax,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::LongName,
            b'K' => Kind::LongLink,
            b'S' => return Err("it is a sparse file".into()),
            b'3' | b'4' | b'6' => return Err("it is a device or a pipe".into()),
            other => return Err(format!("its type {:?} is not known", char::from(other))),
        };
        let size = octal(&block[124..136])?;
        Ok(Self { kind, path, link: text(&block[157..257]).to_vec(), size })
    }

    /// The header with what came before it said of it.
    pub(super) fn extended(mut self, extensions: Extensions) -> Result<Self, String> {
        let Extensions { pax, long_name, long_link } = extensions;
        let pax = pax.unwrap_or_default();
        if (long_name.is_some() || long_link.is_some()) && !pax.is_empty() {
            return Err("it has GNU's and PAX's extensions at once".into());
        }
        if let Some(key) = pax.keys().find(|key| key.starts_with("GNU.sparse.")) {
            return Err(format!("it is a sparse file: {key}"));
        }
        if let Some(size) = pax.get("size") {
            self.size = agreed_size(decimal(size)?, self.size)?;
        }
        self.path = agreed_text("path", self.path, pax.get("path"), long_name)?;
        self.link = agreed_text("linkpath", self.link, pax.get("linkpath"), long_link)?;
        match self.kind {
            Kind::File => {}
            _ if self.size == 0 => {}
            _ => return Err("it is no file and has content".into()),
        }
        Ok(self)
    }
}

/// A PAX size counts where the header cannot hold it; Go and GNU tar write a zero there then.
fn agreed_size(pax: u64, header: u64) -> Result<u64, String> {
    if pax == header || (header == 0 && MAX_OCTAL < pax) {
        return Ok(pax);
    }
    Err(format!("its size is {header} in the header and {pax} in PAX"))
}

/// A PAX or GNU text counts where the header cannot hold it: it is long, or no ASCII.
fn agreed_text(
    what: &str,
    header: Vec<u8>,
    pax: Option<&Vec<u8>>,
    long: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let Some(told) = pax.cloned().or(long) else { return Ok(header) };
    let holds = told.len() <= 100 && told.is_ascii();
    if told != header && holds {
        return Err(format!(
            "its {what} is {:?} in the header and {:?} beside it",
            shown(&header),
            shown(&told)
        ));
    }
    Ok(told)
}

/// Reads PAX records: `<length> <key>=<value>\n`, each key once.
pub(super) fn pax_records(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let malformed = || "its PAX records are malformed".to_owned();
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| malformed())?;
        let record = bytes.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| malformed())?;
        if key.is_empty() || key.len() > 200 {
            return Err(malformed());
        }
        if records.insert(key.to_owned(), record[equals + 1..].to_vec()).is_some() {
            return Err(format!("PAX key {key:?} occurs twice"));
        }
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// A path as a key: relative, with no empty, `.` or `..` component.
pub(super) fn inside(path: &[u8]) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("path {:?} {what}", shown(path)));
    if MAX_PATH < path.len() {
        return wrong("is too long");
    }
    let Ok(text) = std::str::from_utf8(path) else { return wrong("is not UTF-8") };
    if text.contains('\0') {
        return wrong("has a NUL");
    }
    if text.starts_with('/') {
        return wrong("is absolute");
    }
    let mut kept = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => return wrong("leaves the archive"),
            component => kept.push(component),
        }
    }
    Ok(kept.join("/"))
}

/// Where a symbolic link at `path` leads, as a key; it may go up, as `docker save` writes it, and
/// not out.
pub(super) fn link_target(path: &str, link: &[u8]) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("link {:?} of {path:?} {what}", shown(link)));
    if MAX_PATH < link.len() {
        return wrong("is too long");
    }
    let Ok(text) = std::str::from_utf8(link) else { return wrong("is not UTF-8") };
    if text.is_empty() || text.contains('\0') {
        return wrong("leads nowhere");
    }
    if text.starts_with('/') {
        return wrong("is absolute");
    }
    let mut kept: Vec<&str> = path.split('/').collect();
    kept.pop();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." if kept.pop().is_none() => return wrong("leaves the archive"),
            ".." => {}
            component => kept.push(component),
        }
    }
    Ok(kept.join("/"))
}

/// A text for an error, cut to a length that is safe to print.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}

/// A field up to its NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn check_sum(block: &[u8; BLOCK]) -> Result<(), String> {
    let told = octal(&block[148..156])?;
    let field = |(at, byte): (usize, &u8)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    };
    let sum: u64 = block.iter().enumerate().map(field).sum();
    if sum == told {
        Ok(())
    } else {
        Err("its header's checksum is wrong: this is no tar file, or a damaged one".into())
    }
}

/// A number in octal digits, spaces before and NUL or spaces behind.
fn octal(field: &[u8]) -> Result<u64, String> {
    if field.first().is_some_and(|byte| *byte & 0x80 != 0) {
        return Err("a number is in base 256; write the file with tar --format=posix".into());
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let is_octal = digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    if digits.is_empty() || !is_octal || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(format!("{:?} is no octal number", shown(field)));
    }
    // Twelve digits at most: 36 bits.
    Ok(digits.iter().fold(0, |number, digit| number << 3 | u64::from(digit - b'0')))
}

fn decimal(bytes: &[u8]) -> Result<u64, String> {
    let invalid = || format!("{:?} is no number of bytes", shown(bytes));
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok());
    // Readers count in i64.
    number.filter(|number| i64::try_from(*number).is_ok()).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_value_counts_only_where_the_header_cannot_hold_it() {
        for (pax, header, expected) in [
            (5, 5, Some(5)),
            (5, 0, None),
            (5, 6, None),
            (MAX_OCTAL, 0, None),
            (MAX_OCTAL + 1, 0, Some(MAX_OCTAL + 1)),
            (MAX_OCTAL + 1, 7, None),
        ] {
            assert_eq!(agreed_size(pax, header).ok(), expected, "{pax} {header}");
        }
        let agreed = |header: &str, pax: &str| {
            agreed_text("path", header.into(), Some(&pax.into()), None).ok()
        };
        let long = "x".repeat(101);
        assert_eq!(agreed("a", "a"), Some(b"a".to_vec()));
        assert_eq!(agreed("a", "b"), None);
        assert_eq!(agreed("x", &long), Some(long.clone().into()));
        assert_eq!(agreed("", "ä"), Some("ä".into()));
    }

    #[test]
    fn pax_records_are_read_to_the_byte() {
        let read = |text: &str| pax_records(text.as_bytes());
        assert_eq!(read("9 a=bcde\n").unwrap()["a"], b"bcde");
        assert_eq!(read("6 a=b\n6 c=d\n").unwrap().len(), 2);
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

    #[test]
    fn numbers_are_octal_and_nothing_else() {
        assert_eq!(octal(b"00000000017\0"), Ok(15));
        assert_eq!(octal(b"     17     "), Ok(15));
        assert_eq!(octal(b"777777777777"), Ok((1 << 36) - 1));
        let base_256: &[u8] = b"\x80\0\0\0\0\0\0\0\0\0\0\x10";
        for field in [
            b"-0000000017\0".as_slice(),
            b"            ",
            b"",
            b"18\0\0",
            b"1\x000001\0",
            b"0x10\0",
            base_256,
        ] {
            assert!(octal(field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("./", Some("")),
            ("a..b", Some("a..b")),
            ("..", None),
            ("a/../b", None),
            ("/a", None),
            ("a/..", None),
            ("a\0b", None),
        ] {
            assert_eq!(inside(path.as_bytes()).ok().as_deref(), expected, "{path:?}");
        }
        assert!(inside(&vec![b'a'; MAX_PATH + 1]).is_err() && inside(b"\xff").is_err());
        for (link, expected) in [
            ("../b/layer.tar", Some("b/layer.tar")),
            ("layer.tar", Some("a/layer.tar")),
            ("../../b", None),
            ("/etc/shadow", None),
            ("../b/../../c", None),
            ("", None),
        ] {
            assert_eq!(link_target("a/x", link.as_bytes()).ok().as_deref(), expected, "{link:?}");
        }
    }
}
