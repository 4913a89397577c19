//! One header with its extensions, as an entry.

use super::extension::{Extensions, Pax};
use super::field::{number, octal, shown, text};
use super::{BLOCK, MAX_PATH, Rules};

/// Largest number in the twelve octal digits of a size, less the end. Larger sizes need a PAX record.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A file whose content is a map and pieces.
    Sparse,
    /// Another name for a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// A device, a pipe or something rarer, by its type flag.
    Other(u8),
}

/// One header with its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it: neither relative nor clean.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-uid and the like included.
    pub mode: u16,
    /// The owning user.
    pub uid: u64,
    /// The owning group.
    pub gid: u64,
    /// Bytes of content that follow; 0 for all kinds without content.
    pub size: u64,
    /// Target of a link; empty otherwise.
    pub link: Vec<u8>,
    /// Major and minor number of a device; zeros otherwise.
    pub device: (u64, u64),
}

/// The type flag of a header.
pub(super) fn flag(header: &[u8; BLOCK]) -> u8 {
    header[156]
}

/// The size in a header.
pub(super) fn size(rules: Rules, header: &[u8; BLOCK]) -> Result<u64, String> {
    let field = &header[124..136];
    match rules {
        Rules::Strict => octal(field),
        Rules::Lenient => number(field),
    }
}

/// Whether more blocks of a sparse file's map follow, in GNU's old form.
pub(super) fn map_goes_on(header: &[u8; BLOCK]) -> bool {
    flag(header) == b'S' && header[482] != 0
}

/// Refuses a header of an unknown format.
pub(super) fn check_format(header: &[u8; BLOCK]) -> Result<(), String> {
    match &header[257..265] {
        b"ustar\x0000" | b"ustar  \0" | b"\0\0\0\0\0\0\0\0" => Ok(()),
        _ => Err("its header is of no known format".into()),
    }
}

/// The entry of a header and of the records before it.
pub(super) fn entry(
    rules: Rules,
    header: &[u8; BLOCK],
    extensions: Extensions,
) -> Result<Entry, String> {
    let Extensions { pax, long_name, long_link, .. } = extensions;
    let strict = rules == Rules::Strict;
    let is_pax = pax.as_ref().is_some_and(|pax| 0 < pax.count);
    if strict && is_pax && (long_name.is_some() || long_link.is_some()) {
        return Err("it has GNU's and PAX's extensions at once".into());
    }
    let Pax { path, link, size: pax_size, uid, gid, sparse, .. } = pax.unwrap_or_default();
    let mut said = size(rules, header)?;
    if let Some(pax) = pax_size {
        said = if strict { agreed_size(pax, said)? } else { pax };
    }
    // As Go's reader has it, GNU's names count before those of PAX.
    let (path, link) = (long_name.or(path), long_link.or(link));
    let path = agreed_text(strict, "path", header_path(header), path)?;
    let link = agreed_text(strict, "linkpath", text(&header[157..257]).to_vec(), link)?;
    if MAX_PATH < path.len().max(link.len()) {
        return Err("a path is too long".into());
    }
    let kind = match flag(header) {
        b'0' | b'7' | b'\0' | b'S' if sparse => Kind::Sparse,
        b'S' => Kind::Sparse,
        b'\0' if path.ends_with(b"/") => Kind::Folder,
        b'0' | b'7' | b'\0' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'5' => Kind::Folder,
        other => Kind::Other(other),
    };
    if strict {
        check(flag(header), kind, said)?;
    }
    let device = matches!(kind, Kind::Other(b'3' | b'4'));
    Ok(Entry {
        mode: u16::try_from(number(&header[100..108])? & 0o7777).unwrap_or_default(),
        uid: uid.map_or_else(|| number(&header[108..116]), Ok)?,
        gid: gid.map_or_else(|| number(&header[116..124]), Ok)?,
        // Whatever else the header says, only files have content.
        size: if matches!(kind, Kind::File | Kind::Sparse) { said } else { 0 },
        link: if matches!(kind, Kind::HardLink | Kind::Symlink) { link } else { Vec::new() },
        device: match device {
            true => (number(&header[329..337])?, number(&header[337..345])?),
            false => (0, 0),
        },
        path,
        kind,
    })
}

/// Refuses kinds that only some readers know, and content of anything but a file.
fn check(flag: u8, kind: Kind, size: u64) -> Result<(), String> {
    match kind {
        Kind::Sparse => Err("it is a sparse file".into()),
        Kind::Other(b'3' | b'4' | b'6') => Err("it is a device or a pipe".into()),
        Kind::File if flag != b'7' => Ok(()),
        Kind::File | Kind::Other(_) => Err(format!("its type {:?} is not known", char::from(flag))),
        Kind::HardLink | Kind::Symlink | Kind::Folder if size == 0 => Ok(()),
        Kind::HardLink | Kind::Symlink | Kind::Folder => {
            Err("it is no file and has content".into())
        }
    }
}

fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    // In GNU's format these bytes are times.
    let prefix = text(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// A size of PAX counts where the header cannot hold it. Go and GNU tar write a zero there then.
fn agreed_size(pax: u64, header: u64) -> Result<u64, String> {
    if pax == header || (header == 0 && MAX_OCTAL < pax) {
        return Ok(pax);
    }
    Err(format!("its size is {header} in the header and {pax} in PAX"))
}

/// A text of PAX or GNU counts, under strict rules only where the header cannot hold it: it is long,
/// or no ASCII.
fn agreed_text(
    strict: bool,
    what: &str,
    header: Vec<u8>,
    extension: Option<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let Some(told) = extension else { return Ok(header) };
    let header_holds_it = told.len() <= 100 && told.is_ascii();
    if strict && told != header && header_holds_it {
        return Err(format!(
            "its {what} is {:?} in the header and {:?} beside it",
            shown(&header),
            shown(&told)
        ));
    }
    Ok(told)
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
            agreed_text(true, "path", header.into(), Some(pax.into())).ok()
        };
        let long = "x".repeat(101);
        assert_eq!(agreed("a", "a"), Some(b"a".to_vec()));
        assert_eq!(agreed("a", "b"), None);
        assert_eq!(agreed("x", &long), Some(long.clone().into()));
        assert_eq!(agreed("", "ä"), Some("ä".into()));
        let lenient = agreed_text(false, "path", b"a".to_vec(), Some(b"b".to_vec()));
        assert_eq!(lenient, Ok(b"b".to_vec()));
    }
}
