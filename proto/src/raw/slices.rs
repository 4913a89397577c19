//! Payloads sliced out of what a connection received, wherever that was cut.
//!
//! ```text
//!             5 bytes            key, value
//!   Prefix ────────────► Field ◄────────────┐
//!     ▲                    │ length          │
//!     │ message is over    ├──► Data ────────┤   slices of what came, nothing copied
//!     └────────────────────┴──► Unknown ─────┘   passed over
//! ```
//!
//! Messages may be cut anywhere and several may come in one piece: how a sender cuts is its own
//! affair. What does not add up is refused at the byte where it shows, so that nothing is ever
//! kept for a message but a few bytes of a number.

use bytes::{Buf as _, Bytes};

use super::{PREFIX, VARINT, key};
use crate::convert::Malformed;
use crate::wire::{Encoding, MAX_MESSAGE};

/// Parts of a stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The size of the whole blob.
    BlobSize(u64),
    /// Encoding of the data.
    Encoding(Encoding),
    /// The next bytes of a message's data.
    Data(Bytes),
    /// A message is over.
    End,
}

/// Position in the stream.
#[derive(Clone, Copy, Debug)]
enum State {
    Prefix { bytes: [u8; PREFIX], len: usize },
    Key(Varint),
    Value { field: u8, value: Varint },
    Length { field: u8, length: Varint },
    Data { left: usize },
    Unknown { left: usize },
}

const START: State = State::Prefix { bytes: [0; PREFIX], len: 0 };

/// Reads messages from the pieces of a stream.
#[derive(Debug)]
pub(crate) struct Slices {
    state: State,
    /// Bytes of the message that did not come yet.
    left: usize,
    /// True if the message had its data.
    had_data: bool,
}

/// A number of which some bytes came.
#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    len: usize,
}

impl Varint {
    /// Takes one more byte; the number when it was the last.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, Malformed> {
        // The tenth byte has room for one bit.
        if VARINT <= self.len || (self.len == VARINT - 1 && 1 < byte) {
            return Err(malformed("a number has more than 64 bits"));
        }
        self.value |= u64::from(byte & 0x7f) << (7 * self.len);
        self.len += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

fn malformed(reason: impl ToString) -> Malformed {
    Malformed::new("message", reason)
}

impl Default for Slices {
    fn default() -> Self {
        Self { state: START, left: 0, had_data: false }
    }
}

impl Slices {
    /// True if the stream may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Prefix { len: 0, .. })
    }

    /// Returns the next part of `input`, and removes it from there; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Malformed`]; the stream is of no more use then.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Part>, Malformed> {
        loop {
            if let Some(end) = self.end()? {
                return Ok(Some(end));
            }
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(part) = self.step(input)? {
                return Ok(Some(part));
            }
        }
    }

    /// Key → Prefix: all bytes of a message came.
    fn end(&mut self) -> Result<Option<Part>, Malformed> {
        if 0 < self.left {
            return Ok(None);
        }
        match self.state {
            State::Prefix { .. } => Ok(None),
            State::Key(Varint { len: 0, .. }) => {
                self.state = START;
                Ok(Some(Part::End))
            }
            _ => Err(malformed("ends within a field")),
        }
    }

    fn step(&mut self, input: &mut Bytes) -> Result<Option<Part>, Malformed> {
        match self.state {
            State::Prefix { bytes, len } => self.prefix(bytes, len, input.get_u8())?,
            State::Key(mut key) => {
                self.left -= 1;
                self.state = match key.push(input.get_u8())? {
                    Some(key) => self.field(key)?,
                    None => State::Key(key),
                };
            }
            State::Value { field, mut value } => {
                self.left -= 1;
                let done = value.push(input.get_u8())?;
                self.state = done.map_or(State::Value { field, value }, |_| next_field());
                return done.map_or(Ok(None), |value| known_value(field, value));
            }
            State::Length { field, mut length } => {
                self.left -= 1;
                self.state = match length.push(input.get_u8())? {
                    Some(length) => self.bytes(field, length)?,
                    None => State::Length { field, length },
                };
            }
            State::Data { left } => {
                let data = input.split_to(left.min(input.len()));
                self.left -= data.len();
                let left = left - data.len();
                self.state = if left == 0 { next_field() } else { State::Data { left } };
                return Ok(Some(Part::Data(data)));
            }
            State::Unknown { left } => {
                let passed = left.min(input.len());
                input.advance(passed);
                self.left -= passed;
                let left = left - passed;
                self.state = if left == 0 { next_field() } else { State::Unknown { left } };
            }
        }
        Ok(None)
    }

    fn prefix(&mut self, mut bytes: [u8; PREFIX], len: usize, byte: u8) -> Result<(), Malformed> {
        bytes[len] = byte;
        let [flag, length @ ..] = bytes;
        if flag != 0 {
            return Err(malformed("is compressed, or is no message of gRPC"));
        }
        if len + 1 < PREFIX {
            self.state = State::Prefix { bytes, len: len + 1 };
            return Ok(());
        }
        self.left = u32::from_be_bytes(length) as usize;
        if MAX_MESSAGE < self.left {
            let reason = format!("has {} bytes, the most are {MAX_MESSAGE}", self.left);
            return Err(malformed(reason));
        }
        self.had_data = false;
        self.state = next_field();
        Ok(())
    }

    /// State after a field's key.
    fn field(&self, key: u64) -> Result<State, Malformed> {
        // Fields past the 15th have keys of two bytes; none of ours does, and 0 is no field.
        let field = u8::try_from(key).ok().filter(|key| *key < 0x80).unwrap_or(0);
        match (key & 7, field >> 3) {
            (0, 1) | (1 | 2 | 5, 2 | 3) | (1 | 5, 1) => Err(malformed("a field has another type")),
            _ if key >> 3 == 0 || (1 << 29) <= key >> 3 => Err(malformed("there is no such field")),
            (0, _) => Ok(State::Value { field, value: Varint::default() }),
            (2, _) => Ok(State::Length { field, length: Varint::default() }),
            (1, _) => self.unknown(8),
            (5, _) => self.unknown(4),
            (other, _) => Err(malformed(format!("there is no type {other}"))),
        }
    }

    /// State after a field's length.
    fn bytes(&mut self, field: u8, length: u64) -> Result<State, Malformed> {
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        if field != key::DATA || left == 0 {
            return self.unknown(left);
        }
        if self.left < left {
            return Err(malformed("ends within a field"));
        }
        // The last of several would count, and the first is given away already.
        if std::mem::replace(&mut self.had_data, true) {
            return Err(Malformed::new("data", "is there twice"));
        }
        Ok(State::Data { left })
    }

    fn unknown(&self, left: usize) -> Result<State, Malformed> {
        match left {
            0 => Ok(next_field()),
            left if self.left < left => Err(malformed("ends within a field")),
            left => Ok(State::Unknown { left }),
        }
    }
}

fn next_field() -> State {
    State::Key(Varint::default())
}

fn known_value(field: u8, value: u64) -> Result<Option<Part>, Malformed> {
    match field {
        key::BLOB_SIZE => Ok(Some(Part::BlobSize(value))),
        key::ENCODING => {
            let encoding = i32::try_from(value).ok().and_then(|it| Encoding::try_from(it).ok());
            let unknown = || Malformed::new("encoding", format!("{value} is not one that we know"));
            encoding.map(Part::Encoding).map(Some).ok_or_else(unknown)
        }
        _ => Ok(None),
    }
}
