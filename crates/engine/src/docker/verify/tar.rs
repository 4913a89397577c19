//! A strict reader of tar streams: one header after the other, contents as they pass.
//!
//! Reads what engines read: ustar, GNU's long names and large numbers, and PAX records. Everything
//! that is held in memory has a limit, since whoever made the image chose its size.
//!
//! Format: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html> and
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>.

use std::io::{self, Read};

/// A tar stream consists of blocks of this many bytes.
const BLOCK: usize = 512;

/// Most bytes of the records that may stand before one entry; Go's reader, and so every engine, has
/// the same limit.
const MAX_RECORDS: u64 = 1 << 20;

/// Longest path or link target, in bytes: Linux takes no longer one.
const MAX_PATH: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A file whose content is given as map and pieces: it is there, and is not compared.
    Sparse,
    HardLink,
    Symlink,
    Folder,
    /// A device, pipe or something rarer, by its type flag.
    Other(u8),
}

/// One header with its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it stands there, made clean by nobody yet.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, set-uid and the like included.
    pub(super) mode: u16,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Bytes of content that follow; 0 for what has none.
    pub(super) size: u64,
    /// What a link points to; empty otherwise.
    pub(super) link: Vec<u8>,
    /// Major and minor number of a device; zeros otherwise.
    pub(super) device: (u64, u64),
}

/// A stream that is no archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    /// The stream itself could not be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It breaks a rule of the format.
    #[error("it is no archive: {0}")]
    Rule(&'static str),
}

/// Reads entries off a stream.
pub(super) struct TarReader<R> {
    input: R,
    /// Bytes of the current entry's content that were not read yet.
    left: u64,
    /// Bytes after the content, up to the block's end.
    padding: u64,
}

/// What records before an entry say of it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    sparse: bool,
    /// Bytes of records so far.
    bytes: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the archive's end. What was not read of the one before is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let flag = header[156];
            let size = number(&header[124..136])?;
            match flag {
                b'x' => extension.pax(&self.records(size, &mut 0)?)?,
                b'L' => extension.path = Some(self.name(size, &mut extension.bytes)?),
                b'K' => extension.link = Some(self.name(size, &mut extension.bytes)?),
                // What holds for all entries is a tool's remark; engines pass over it too.
                b'g' => self.begin(size)?,
                _ => return self.entry(&header, extension).map(Some),
            }
        }
    }

    /// Skips what is left of the current entry.
    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.left.checked_add(self.padding).ok_or(TarError::Rule("a size overflows"))?;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        if skipped != rest {
            return Err(TarError::Rule("it ends within an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn begin(&mut self, size: u64) -> Result<(), TarError> {
        if u64::MAX / 2 < size {
            return Err(TarError::Rule("a size overflows"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The next block that is a header; `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let Some(block) = self.block()?.filter(|block| *block != [0; BLOCK]) else {
            return Ok(None);
        };
        check_sum(&block)?;
        Ok(Some(block))
    }

    /// The next block; `None` at the stream's end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(TarError::Rule("it ends within a header")),
                read => filled += read,
            }
        }
        Ok(Some(block))
    }

    /// Passes over the rest of a map of pieces, in GNU's old form of sparse files.
    fn skip_map(&mut self, header: &[u8; BLOCK]) -> Result<(), TarError> {
        let mut goes_on = header[482] != 0;
        while goes_on {
            let block = self.block()?.ok_or(TarError::Rule("it ends within a header"))?;
            goes_on = block[504] != 0;
        }
        Ok(())
    }

    /// The content of an entry that belongs to the next one.
    fn records(&mut self, size: u64, before: &mut u64) -> Result<Vec<u8>, TarError> {
        *before = before.saturating_add(size);
        if MAX_RECORDS < *before {
            return Err(TarError::Rule("the records before an entry are too long"));
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn name(&mut self, size: u64, before: &mut u64) -> Result<Vec<u8>, TarError> {
        Ok(until_nul(&self.records(size, before)?).to_vec())
    }

    fn entry(&mut self, header: &[u8; BLOCK], extension: Extension) -> Result<Entry, TarError> {
        let path = extension.path.unwrap_or_else(|| header_path(header));
        let kind = match header[156] {
            b'0' | b'7' | 0 if extension.sparse => Kind::Sparse,
            0 if path.ends_with(b"/") => Kind::Folder,
            b'0' | b'7' | 0 => Kind::File,
            b'S' => Kind::Sparse,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Folder,
            flag => Kind::Other(flag),
        };
        let link = extension.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if MAX_PATH < path.len().max(link.len()) {
            return Err(TarError::Rule("a path is too long"));
        }
        let said = extension.size.map_or_else(|| number(&header[124..136]), Ok)?;
        // Whatever else the header says: only files have content.
        let size = if matches!(kind, Kind::File | Kind::Sparse) { said } else { 0 };
        if header[156] == b'S' {
            self.skip_map(header)?;
        }
        self.begin(size)?;
        let device = matches!(header[156], b'3' | b'4');
        Ok(Entry {
            kind,
            mode: u16::try_from(number(&header[100..108])? & 0o7777).unwrap_or_default(),
            uid: extension.uid.map_or_else(|| number(&header[108..116]), Ok)?,
            gid: extension.gid.map_or_else(|| number(&header[116..124]), Ok)?,
            size,
            link: if matches!(kind, Kind::HardLink | Kind::Symlink) { link } else { Vec::new() },
            device: match device {
                true => (number(&header[329..337])?, number(&header[337..345])?),
                false => (0, 0),
            },
            path,
        })
    }
}

/// The content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extension {
    /// Takes PAX records: `<length> <key>=<value>\n`, the length in decimal and of all of it.
    fn pax(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        const MALFORMED: TarError = TarError::Rule("a PAX record is malformed");
        self.bytes += records.len() as u64;
        if MAX_RECORDS < self.bytes {
            return Err(TarError::Rule("the records before an entry are too long"));
        }
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let length = decimal(&records[..blank]).ok_or(MALFORMED)?;
            let length = usize::try_from(length).map_err(|_| MALFORMED)?;
            let record = records.get(blank + 1..length).ok_or(MALFORMED)?;
            let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or(MALFORMED)?),
                b"uid" => self.uid = Some(decimal(value).ok_or(MALFORMED)?),
                b"gid" => self.gid = Some(decimal(value).ok_or(MALFORMED)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    self.sparse = true;
                    if key == b"GNU.sparse.name" {
                        self.path = Some(value.to_vec());
                    }
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    // In GNU's form these bytes are times.
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

fn check_sum(header: &[u8; BLOCK]) -> Result<(), TarError> {
    let said = number(&header[148..156])?;
    // The sum is taken with its own field full of blanks.
    let counted =
        |position: usize| if (148..156).contains(&position) { b' ' } else { header[position] };
    let sum: u64 = (0..BLOCK).map(|position| u64::from(counted(position))).sum();
    if said == sum { Ok(()) } else { Err(TarError::Rule("a header's checksum is wrong")) }
}

/// A number in octal digits, or from its first bit on in base 256.
fn number(field: &[u8]) -> Result<u64, TarError> {
    if field[0] & 0x80 != 0 {
        let bytes = std::iter::once(field[0] & 0x7f).chain(field[1..].iter().copied());
        return bytes.into_iter().try_fold(0u64, |number, byte| {
            let shifted = number.checked_mul(256).ok_or(TarError::Rule("a number overflows"))?;
            Ok(shifted + u64::from(byte))
        });
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'7' => number
            .checked_mul(8)
            .map(|number| number + u64::from(digit - b'0'))
            .ok_or(TarError::Rule("a number overflows")),
        _ => Err(TarError::Rule("a number is malformed")),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
#[path = "tar/tests.rs"]
mod tests;
