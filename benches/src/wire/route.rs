//! The ways that are compared: protocol, socket, what a receiver does with the bytes, and how many
//! receivers there are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What speaks on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Nothing: the blob's bytes in writes of 1 MiB, then the end.
    Raw,
    /// Longshore's own `ReadBlob`, both ends as the agents run them.
    Grpc,
    /// The same RPC as tonic comes: generated code at both ends, no setting touched.
    Tonic,
}

/// What kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP over loopback.
    Tcp,
    /// A Unix stream socket.
    Unix,
}

/// What the receiver does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    /// Counts and drops them.
    Discards,
    /// Hashes them and compares digest and size.
    Verifies,
    /// Verifies them and keeps them in a file store.
    Stores,
}

/// One way of a blob from process to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// What speaks on the socket.
    pub protocol: Protocol,
    /// What kind of socket.
    pub transport: Transport,
    /// What each receiver does with the bytes.
    pub receiver: Receiver,
    /// How many receivers there are, with a connection each.
    pub receivers: u32,
}

/// As many receivers as the goal for many names.
const MANY: u32 = 16;

impl Route {
    /// All routes, in the order in which they are reported.
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

    /// What every route is compared with: raw TCP, discarding.
    pub const RAW_TCP: Self = Self {
        protocol: Protocol::Raw,
        transport: Transport::Tcp,
        receiver: Receiver::Discards,
        receivers: 1,
    };

    /// What does the same work over the same kind of socket: the raw one, or where the blob is
    /// kept, tonic as it comes.
    #[must_use]
    pub fn same_work(self) -> Self {
        let protocol = match self.receiver {
            Receiver::Discards | Receiver::Verifies => Protocol::Raw,
            Receiver::Stores => Protocol::Tonic,
        };
        Self { protocol, ..self }
    }

    /// Where a receiver begins, in bytes from the start of a blob of `size`.
    ///
    /// One that discards begins behind the first byte, as after a broken connection: neither end
    /// can verify a piece, so neither hashes it. Many together take the last eighth each, so that a
    /// round of them takes no longer than the others.
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
    fn each_route_is_there_once_with_what_it_is_compared_with() {
        let all = Route::all();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(Route::to_string).collect::<HashSet<_>>().len(), all.len());
        for route in &all {
            assert!(all.contains(&route.same_work()), "{route} has nothing beside it");
        }
        assert_eq!(all[0], Route::RAW_TCP);
    }
}
