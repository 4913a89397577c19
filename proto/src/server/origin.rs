//! The source of a request: how far away it is, and the connection that it came on.

use tokio_util::sync::CancellationToken;

/// Distance of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On this host: through a Unix socket or the loopback interface.
    Host,
    /// Across a network or any tunnel.
    Network,
}

/// Source of a request.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) reach: Reach,
    /// Ends the connection with all its streams.
    pub(super) end: CancellationToken,
}

impl Origin {
    /// The origin of a request with these extensions; a request without a connection is from this host.
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        let here = || Self { reach: Reach::Host, end: CancellationToken::new() };
        extensions.get().cloned().unwrap_or_else(here)
    }
}
