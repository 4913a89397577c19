//! The range's own registry: `docker pull` in a range, unmodified, gets what the host has.
//!
//! ```text
//!   docker pull 127.0.0.1:5055/app:1 ──► engine ──► 127.0.0.1:5055 ──► host agent
//!   docker pull app:1 ──────────────────► engine ──┘  as a mirror of docker.io, where the engine was
//!                                                     started with it (`engine::docker::daemon`)
//! ```
//! What the range may read is for the host agent to decide, as with everything else it asks for. A
//! mirror that has not the image says so, and the engine goes on to the registry that was meant.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use engine::{InvalidLoopback, Loopback, Registry};
use proto::RemoteHost;

/// Default address of a range's registry. Not port 5000: people run registries of their own in
/// ranges, and publish that one.
const USUAL: Loopback = Loopback::port(5055);

/// The registry beside the engine.
#[derive(Clone, Debug, Default, Args)]
pub struct RegistryFlags {
    /// Loopback address on which to serve the host's images to `docker pull`, read-only, or `off`.
    /// With `run` the default is 127.0.0.1:5055, if that is free; with `serve` it is off, since the
    /// engine may be in another network namespace.
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REGISTRY")]
    pub registry: Option<Choice>,

    /// True for the agent that a supervisor runs in a range.
    #[arg(skip)]
    in_range: bool,
}

/// Address of the registry, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// There is none.
    Off,
    /// It listens there.
    At(Loopback),
}

impl FromStr for Choice {
    type Err = InvalidLoopback;

    fn from_str(text: &str) -> Result<Self, InvalidLoopback> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

impl RegistryFlags {
    /// The same for the agent of a range, which has a registry unless somebody says otherwise.
    pub(crate) fn in_range(self) -> Self {
        Self { in_range: true, ..self }
    }

    /// Address that it listens on; `None` without a registry.
    pub(crate) fn address(&self) -> Option<Loopback> {
        match self.registry {
            Some(Choice::At(address)) => Some(address),
            Some(Choice::Off) => None,
            None => self.in_range.then_some(USUAL),
        }
    }

    /// Listens, to serve the images of `host`. `None` where there is to be no registry, or where
    /// another process has the usual address.
    ///
    /// # Errors
    /// Listening on a requested address failed.
    pub(crate) async fn listen(&self, host: Arc<RemoteHost>) -> anyhow::Result<Option<Registry>> {
        let Some(address) = self.address() else { return Ok(None) };
        match Registry::of_source(address, host).await {
            Ok(registry) => {
                tracing::info!(address = %registry.address(), "serving the host's images to pulls");
                Ok(Some(registry))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.registry.is_none() => {
                tracing::warn!(%address, "another program listens there: no registry; see --registry");
                Ok(None)
            }
            Err(error) => Err(error).context(format!("listening on {address}; see --registry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::Endpoint;
    use proto::client::Manners;

    use super::*;

    #[test]
    fn a_range_has_a_registry_unless_somebody_says_otherwise() {
        let check = |text: Option<&str>, in_range: bool, expected: Option<&str>| {
            let registry = text.map(|text| text.parse().unwrap());
            let flags = RegistryFlags { registry, in_range };
            let address = flags.address().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{text:?} {in_range}");
        };
        check(None, true, Some("127.0.0.1:5055"));
        check(None, false, None);
        check(Some("off"), true, None);
        check(Some("127.0.0.1:7000"), true, Some("127.0.0.1:7000"));
        check(Some("127.0.0.1:7000"), false, Some("127.0.0.1:7000"));
        assert!("0.0.0.0:5000".parse::<Choice>().is_err());
    }

    #[tokio::test]
    async fn only_the_usual_address_may_be_taken() {
        let host = RemoteHost::new(Endpoint::unix("/nowhere"), Manners::default());
        let host = Arc::new(host);
        let any: Choice = "127.0.0.1:0".parse().unwrap();
        let first = RegistryFlags { registry: Some(any), in_range: true };
        let first = first.listen(host.clone()).await.unwrap().unwrap();
        let taken = Some(Choice::At(first.address()));
        let error = RegistryFlags { registry: taken, in_range: true }.listen(host).await;
        assert!(format!("{:#}", error.unwrap_err()).contains("--registry"));
    }
}
