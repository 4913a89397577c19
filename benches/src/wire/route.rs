//! The ways that are compared: protocol, socket, and what the receiver does with the bytes.

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
}

/// One way of a blob from process to process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// What speaks on the socket.
    pub protocol: Protocol,
    /// What kind of socket.
    pub transport: Transport,
    /// What the receiver does with the bytes.
    pub receiver: Receiver,
}

impl Route {
    /// All routes, in the order in which they are reported.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for receiver in [Receiver::Discards, Receiver::Verifies] {
            for transport in [Transport::Tcp, Transport::Unix] {
                for protocol in [Protocol::Raw, Protocol::Grpc] {
                    all.push(Self { protocol, transport, receiver });
                }
            }
        }
        all
    }

    /// What every route is compared with: raw TCP, discarding.
    pub const RAW_TCP: Self =
        Self { protocol: Protocol::Raw, transport: Transport::Tcp, receiver: Receiver::Discards };

    /// The raw socket of the same kind whose receiver does the same work.
    #[must_use]
    pub fn same_work(self) -> Self {
        Self { protocol: Protocol::Raw, ..self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            Protocol::Raw => "raw",
            Protocol::Grpc => "grpc",
        })?;
        f.write_str(match self.transport {
            Transport::Tcp => " tcp",
            Transport::Unix => " unix",
        })?;
        f.write_str(match self.receiver {
            Receiver::Discards => "",
            Receiver::Verifies => " + sha256",
        })
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
            assert!(all.contains(&route.same_work()), "{route} has no raw socket beside it");
        }
        assert_eq!(all[0], Route::RAW_TCP);
    }
}
