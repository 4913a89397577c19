//! Transfers under way on a host: blobs to callers, and blobs into the store.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use transfer::{ConfigDigest, Digest};

use crate::identity::Caller;

/// Names a transfer while it is under way: `read-7`, `ingest-2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransferId {
    /// A blob on its way to a caller; counted from the agent's start.
    Read(u64),
    /// A blob on its way into the store; counted from the agent's start.
    Ingest(u64),
}

/// A text that names no transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a transfer's id: expected read-<number> or ingest-<number>")]
pub struct InvalidTransferId;

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(serial) => write!(f, "read-{serial}"),
            Self::Ingest(serial) => write!(f, "ingest-{serial}"),
        }
    }
}

impl FromStr for TransferId {
    type Err = InvalidTransferId;

    fn from_str(text: &str) -> Result<Self, InvalidTransferId> {
        let (kind, serial) = text.split_once('-').ok_or(InvalidTransferId)?;
        let serial = serial.parse().map_err(|_| InvalidTransferId)?;
        match kind {
            "read" => Ok(Self::Read(serial)),
            "ingest" => Ok(Self::Ingest(serial)),
            _ => Err(InvalidTransferId),
        }
    }
}

/// Something that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its name.
    pub id: TransferId,
    /// Start of the transfer, by the host's clock.
    pub started: SystemTime,
    /// Bytes moved since.
    pub bytes: u64,
    /// Kind of the transfer.
    pub kind: TransferKind,
}

/// Kinds of transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// A blob on its way to a caller.
    Read {
        /// The caller that reads, as [`Caller`] is shown: `range/lab-1`.
        caller: String,
        /// The image that the blob is read as a part of.
        config_digest: ConfigDigest,
        /// The blob.
        digest: Digest,
        /// Size of the whole blob in bytes.
        size: u64,
        /// Offset of the next byte in the blob.
        offset: u64,
    },
    /// A blob on its way into the store.
    Ingest {
        /// The blob; absent while it is being found out.
        digest: Option<Digest>,
        /// Size of the whole blob in bytes; absent while it is not known.
        size: Option<u64>,
    },
}

impl TransferKind {
    /// True for a read of `caller`.
    #[must_use]
    pub fn is_read_of(&self, caller: &Caller) -> bool {
        matches!(self, Self::Read { caller: reader, .. } if *reader == caller.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_it_was_written_and_reads_come_first() {
        let ids = [TransferId::Read(2), TransferId::Read(10), TransferId::Ingest(1)];
        assert!(ids.is_sorted());
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "read", "read-", "write-1", "read--1", "read-1 ", "7"] {
            assert_eq!(text.parse::<TransferId>(), Err(InvalidTransferId), "{text:?}");
        }
    }
}
