//! Address for inspection over TCP: on this machine, unless the user insists.

use std::net::SocketAddr;
use std::str::FromStr;

/// The flags that say where an agent may be inspected.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct InspectFlags {
    /// Serve on this TCP address as well, for grpcurl and its like; `off` for none. Every caller
    /// that can reach it sees the lists and states, and can read no layer and change nothing.
    /// Without this flag a host agent takes 127.0.0.1:7070, and the agent in a range none.
    #[arg(long, value_name = "ADDRESS:PORT", env = "LONGSHORE_INSPECT")]
    pub inspect: Option<Inspect>,

    /// Allow an inspection address that other machines can reach.
    #[arg(long, env = "LONGSHORE_INSPECT_ANY")]
    pub inspect_any: bool,
}

impl InspectFlags {
    /// Returns the address to listen on: `default` without the flag, `None` when it is switched
    /// off.
    ///
    /// # Errors
    /// [`InspectError::NotLoopback`].
    pub fn address(self, default: Inspect) -> Result<Option<SocketAddr>, InspectError> {
        self.inspect.unwrap_or(default).address(self.inspect_any)
    }
}

/// An inspection listener: an address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// No listener.
    Off,
    /// Listens here, for every caller that can reach the address.
    At(SocketAddr),
}

/// Reasons why there is no such listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Not an address with a port.
    #[error("expected `off`, or an address and port such as 127.0.0.1:7070")]
    Address,
    /// An address that other machines can reach, without insisting.
    #[error(
        "{address} can be reached from other machines, and every caller there sees all images and \
         ranges: use a loopback address, or add --inspect-any to insist"
    )]
    NotLoopback {
        /// The requested address.
        address: SocketAddr,
    },
}

impl Inspect {
    /// The address to listen on, if any; one that is not a loopback's only with `any`.
    ///
    /// # Errors
    /// [`InspectError::NotLoopback`].
    pub fn address(self, any: bool) -> Result<Option<SocketAddr>, InspectError> {
        match self {
            Self::Off => Ok(None),
            Self::At(address) if any || address.ip().is_loopback() => Ok(Some(address)),
            Self::At(address) => Err(InspectError::NotLoopback { address }),
        }
    }
}

impl FromStr for Inspect {
    type Err = InspectError;

    fn from_str(text: &str) -> Result<Self, InspectError> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| InspectError::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on_unless_somebody_insists() {
        let cases = [
            ("127.0.0.1:7070", false, true),
            ("127.8.9.1:0", false, true),
            ("[::1]:7070", false, true),
            ("0.0.0.0:7070", false, false),
            ("[::]:7070", false, false),
            ("10.0.0.1:7070", false, false),
            ("0.0.0.0:7070", true, true),
        ];
        for (text, any, allowed) in cases {
            let inspect: Inspect = text.parse().unwrap();
            assert_eq!(inspect.address(any).is_ok(), allowed, "{text}, any: {any}");
        }
        assert_eq!("off".parse::<Inspect>().unwrap().address(false), Ok(None));
        for text in ["", "7070", "localhost", "localhost:7070", "127.0.0.1", "on"] {
            assert_eq!(text.parse::<Inspect>(), Err(InspectError::Address), "{text:?}");
        }
    }
}
