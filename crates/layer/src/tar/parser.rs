//! The format as a machine without I/O: blocks go in, entries come out.

use super::extension::{Extension, Extensions};
use super::field::check_sum;
use super::header::{self, Entry};
use super::{BLOCK, Rules, TarError};

/// What an archive continues with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Another block: give it to [`Parser::block`].
    Block,
    /// So many bytes of records: give them to [`Parser::extend`].
    Records(usize),
    /// An entry, and then its content: skip it, or say with [`Parser::took`] what was read of it.
    Entry(Entry),
    /// Nothing.
    End,
}

/// Reads an archive block by block.
#[derive(Debug)]
pub(super) struct Parser {
    rules: Rules,
    /// Offset of the last header.
    header_at: u64,
    /// Offset of the next byte.
    at: u64,
    /// Bytes of the current content that were not taken yet.
    left: u64,
    /// Bytes after the content, up to the end of its block.
    padding: u64,
    extensions: Extensions,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A header comes.
    Header,
    /// The content of an extension comes.
    Records(Extension),
    /// The rest of a map comes, and then the content of this sparse file.
    Map(Entry),
    /// The second block of the end marker comes.
    EndMarker,
}

impl Parser {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            header_at: 0,
            at: 0,
            left: 0,
            padding: 0,
            extensions: Extensions::default(),
            state: State::Header,
        }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the current content that were not taken yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Counts bytes that were read of the current content.
    pub(super) fn took(&mut self, count: usize) {
        self.left -= count as u64;
        self.at += count as u64;
    }

    /// Passes over the rest of the current content. Returns the number of bytes to skip.
    pub(super) fn skip(&mut self) -> u64 {
        let rest = self.left + self.padding;
        self.at += rest;
        (self.left, self.padding) = (0, 0);
        rest
    }

    /// Takes the next block; a short one where the archive ends before it, an empty one at its end.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Step, TarError> {
        let Ok(block) = <&[u8; BLOCK]>::try_from(block) else { return self.end(block.len()) };
        let block_at = self.at;
        self.at += BLOCK as u64;
        match std::mem::replace(&mut self.state, State::Header) {
            State::Map(entry) if block[504] != 0 => {
                self.state = State::Map(entry);
                Ok(Step::Block)
            }
            State::Map(entry) => Ok(self.entry(entry)),
            State::EndMarker if *block == [0; BLOCK] => Ok(Step::End),
            State::EndMarker => Err(self.malformed("an empty header is followed by another")),
            State::Header | State::Records(_) => {
                self.header_at = block_at;
                self.header(block).map_err(|reason| self.malformed(reason))
            }
        }
    }

    /// Takes the content of an extension.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        let State::Records(extension) = std::mem::replace(&mut self.state, State::Header) else {
            return Ok(());
        };
        self.took(bytes.len());
        let added = self.extensions.add(self.rules, extension, bytes);
        added.map_err(|reason| self.malformed(reason))
    }

    /// The error of an archive that ends within an entry.
    pub(super) fn cut_off(&self) -> TarError {
        self.malformed("it ends within an entry: the file was cut off")
    }

    /// An error about the last header.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> TarError {
        TarError::Malformed { at: self.header_at, reason: reason.into() }
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Result<Step, String> {
        let strict = self.rules == Rules::Strict;
        if *block == [0; BLOCK] {
            // Engines stop at the first empty block.
            if !strict {
                return Ok(Step::End);
            }
            if !self.extensions.is_empty() {
                return Err("it ends after an extension of an entry".into());
            }
            self.state = State::EndMarker;
            return Ok(Step::Block);
        }
        check_sum(block)?;
        if strict {
            header::check_format(block)?;
        }
        if let Some(extension) = Extension::of(header::flag(block)) {
            let size = header::size(self.rules, block)?;
            self.extensions.admit(self.rules, extension, size)?;
            self.content(size);
            self.state = State::Records(extension);
            return Ok(Step::Records(usize::try_from(size).map_err(|error| error.to_string())?));
        }
        let entry = header::entry(self.rules, block, std::mem::take(&mut self.extensions))?;
        if header::map_goes_on(block) {
            self.state = State::Map(entry);
            return Ok(Step::Block);
        }
        Ok(self.entry(entry))
    }

    fn entry(&mut self, entry: Entry) -> Step {
        self.content(entry.size);
        Step::Entry(entry)
    }

    /// Begins a content. Sizes are at most [`i64::MAX`], so nothing overflows.
    fn content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// The end of the input, `extra` bytes after the last block.
    fn end(&mut self, extra: usize) -> Result<Step, TarError> {
        self.header_at = self.at;
        match (&self.state, self.rules) {
            (State::Header, Rules::Lenient) if extra == 0 => Ok(Step::End),
            (State::Header | State::EndMarker, _) => {
                Err(self.malformed("it ends without its end marker: the file was cut off"))
            }
            (State::Records(_) | State::Map(_), _) => Err(self.cut_off()),
        }
    }
}
