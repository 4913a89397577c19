//! Archives as streams: one header after the other, contents as they pass.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::parser::{Parser, Step};
use super::{BLOCK, Entry, Rules, TarError};

/// Reads entries off a blocking stream. The reader itself gives the content of the current entry.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    parser: Parser,
}

impl<R: Read> Reader<R> {
    /// Reads the archive that `input` begins with.
    pub fn new(input: R, rules: Rules) -> Self {
        Self { input, parser: Parser::new(rules) }
    }

    /// The next entry; `None` at the archive's end. Skips what was not read of the one before.
    ///
    /// # Errors
    /// Any [`TarError`]. The reader cannot be used after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut block = [0; BLOCK];
        loop {
            let rest = self.parser.skip();
            if io::copy(&mut (&mut self.input).take(rest), &mut io::sink())? != rest {
                return Err(self.parser.cut_off());
            }
            let filled = self.fill(&mut block)?;
            match self.parser.block(&block[..filled])? {
                Step::Block => {}
                Step::Records(size) => {
                    let mut records = vec![0; size];
                    if self.fill(&mut records)? != size {
                        return Err(self.parser.cut_off());
                    }
                    self.parser.extend(&records)?;
                }
                Step::Entry(entry) => return Ok(Some(entry)),
                Step::End => return Ok(None),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.parser.left()).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.parser.took(read);
        Ok(read)
    }
}

/// Reads entries off an async stream.
#[derive(Debug)]
pub struct AsyncReader<R> {
    input: R,
    parser: Parser,
}

impl<R: AsyncRead + Unpin> AsyncReader<R> {
    /// Reads the archive that `input` begins with.
    pub fn new(input: R, rules: Rules) -> Self {
        Self { input, parser: Parser::new(rules) }
    }

    /// The next entry; `None` at the archive's end. Skips what was not read of the one before.
    ///
    /// # Errors
    /// Any [`TarError`]. The reader cannot be used after one.
    pub async fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut block = [0; BLOCK];
        loop {
            let rest = self.parser.skip();
            let mut skipped = (&mut self.input).take(rest);
            if tokio::io::copy(&mut skipped, &mut tokio::io::sink()).await? != rest {
                return Err(self.parser.cut_off());
            }
            let filled = self.fill(&mut block).await?;
            match self.parser.block(&block[..filled])? {
                Step::Block => {}
                Step::Records(size) => {
                    let mut records = vec![0; size];
                    if self.fill(&mut records).await? != size {
                        return Err(self.parser.cut_off());
                    }
                    self.parser.extend(&records)?;
                }
                Step::Entry(entry) => return Ok(Some(entry)),
                Step::End => return Ok(None),
            }
        }
    }

    /// The next bytes of the current content, `most` of them unless it ends; `None` at its end.
    ///
    /// # Errors
    /// Any [`TarError`]. The reader cannot be used after one.
    pub async fn frame(&mut self, most: usize) -> Result<Option<Bytes>, TarError> {
        let len = usize::try_from(self.parser.left()).unwrap_or(usize::MAX).min(most);
        if len == 0 {
            return Ok(None);
        }
        let mut frame = BytesMut::with_capacity(len);
        while frame.len() < len {
            // Bounded here: a full buffer would grow instead of ending the frame.
            let room = (len - frame.len()) as u64;
            let read = (&mut self.input).take(room).read_buf(&mut frame).await?;
            if read == 0 {
                return Err(self.parser.cut_off());
            }
            self.parser.took(read);
        }
        Ok(Some(frame.freeze()))
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]).await? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests;
