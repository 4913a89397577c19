//! The compared routes: protocol, kind of socket, kind and number of receivers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The protocol on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// None: the blob's bytes in writes of 1 MiB, then the end of the stream.
    Raw,
    /// Longshore's `ReadBlob`, with both ends as in the agents.
    Grpc,
    /// The same RPC through tonic's generated code with default settings at both ends.
    Tonic,
}

/// The kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP over loopback.
    Tcp,
    /// A Unix stream socket.
    Unix,
}

/// The receiver's handling of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    /// Counts and drops them.
    Discards,
    /// Hashes them and compares digest and size.
    Verifies,
    /// Verifies them and writes them to a file store.
    Stores,
}

/// One way to transfer a blob between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The protocol on the socket.
    pub protocol: Protocol,
    /// The kind of socket.
    pub transport: Transport,
    /// The receivers' handling of the bytes.
    pub receiver: Receiver,
    /// Number of receivers, each with its own connection.
    pub receivers: u32,
}

/// Number of receivers in the goal for many.
const MANY: u32 = 16;

impl Route {
    /// All routes, in the order of the report.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use Protocol::{Grpc, Raw, Tonic};
        let mut all = Vec::new();
        for receiver in [Receiver::Discards, Receiver::Verifies] {
            for transport in [Transport::Tcp, Transport::Unix] {
                for protocol in [Raw, Grpc] {
                    all.push(Self { protocol, transport, receiver, receivers: 1 });
                }
            }
        }
        for protocol in [Grpc, Tonic] {
            all.push(Self { protocol, receiver: Receiver::Stores, ..Self::RAW_TCP });
        }
        for protocol in [Raw, Grpc] {
            all.push(Self { protocol, receivers: MANY, ..Self::RAW_TCP });
        }
        all
    }

    /// The baseline of every route: raw TCP with a discarding receiver.
    pub const RAW_TCP: Self = Self {
        protocol: Protocol::Raw,
        transport: Transport::Tcp,
        receiver: Receiver::Discards,
        receivers: 1,
    };

    /// The baseline that does the same work over the same kind of socket: raw, or tonic with default
    /// settings if the receiver stores the blob.
    #[must_use]
    pub fn same_work(self) -> Self {
        let protocol = match self.receiver {
            Receiver::Discards | Receiver::Verifies => Protocol::Raw,
            Receiver::Stores => Protocol::Tonic,
        };
        Self { protocol, ..self }
    }

    /// Offset in bytes at which a receiver starts in a blob of `size`.
    ///
    /// A discarding receiver starts at byte 1, as after a broken connection: neither end can verify a
    /// part of a blob, so neither hashes it. Each of many receivers reads the last eighth, so that
    /// their round takes no longer than the others.
    #[must_use]
    pub fn offset(self, size: u64) -> u64 {
        match self {
            Self { receivers: 2.., .. } => size - size / 8,
            Self { receiver: Receiver::Discards, .. } => 1.min(size),
            Self { receiver: Receiver::Verifies | Receiver::Stores, .. } => 0,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            Protocol::Raw => "raw",
            Protocol::Grpc => "grpc",
            Protocol::Tonic => "tonic",
        })?;
        f.write_str(match self.transport {
            Transport::Tcp => " tcp",
            Transport::Unix => " unix",
        })?;
        f.write_str(match self.receiver {
            Receiver::Discards => "",
            Receiver::Verifies => " + sha256",
            Receiver::Stores => " + store",
        })?;
        if 1 < self.receivers { write!(f, " x {}", self.receivers) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn routes_are_unique_and_have_their_baseline() {
        let all = Route::all();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(Route::to_string).collect::<HashSet<_>>().len(), all.len());
        for route in &all {
            assert!(all.contains(&route.same_work()), "{route} has no baseline");
        }
        assert_eq!(all[0], Route::RAW_TCP);
    }
}
