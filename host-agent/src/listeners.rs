//! The listeners of one range: its socket, and an address of its own where it is remote.

use std::net::SocketAddr;

use control::RangeName;
use control::admin::AdminError;
use proto::server::{Connections, Listener, Server};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// One listener that is served.
#[derive(Debug)]
pub(crate) struct Serving {
    connections: Connections,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Serves until draining begins, or [`end`](Self::end).
    pub(crate) fn begin(
        name: &RangeName,
        server: Server,
        tasks: &TaskTracker,
        draining: &CancellationToken,
    ) -> Self {
        let connections = server.connections();
        let ended = CancellationToken::new();
        let serving = ended.clone().run_until_cancelled_owned(server.run(draining.clone()));
        let task = async move {
            if let Some(Err(error)) = serving.await {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(error, "not served any more");
            }
        };
        let task = tasks.spawn(task.instrument(tracing::info_span!("range", range = %name)));
        Self { connections, ended, task }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u32 {
        self.connections.open()
    }

    /// Stops listening and ends the connections; does not wait for that.
    pub(crate) fn stop(&self) {
        self.ended.cancel();
    }

    /// Stops listening and ends the connections.
    pub(crate) async fn end(self) {
        self.stop();
        // A task that panicked is as gone as one that ended.
        let _ended = self.task.await;
    }
}

/// Listens on a range's address. Addresses that other machines can reach are refused without
/// `remote_any`.
///
/// # Errors
/// [`AdminError::RemoteNotAllowed`], [`AdminError::Listen`].
pub(crate) async fn listen(
    name: &RangeName,
    address: SocketAddr,
    remote_any: bool,
) -> Result<(SocketAddr, Listener), AdminError> {
    if !remote_any && !address.ip().is_loopback() {
        return Err(AdminError::RemoteNotAllowed { name: name.clone(), address });
    }
    let failed = |source| AdminError::Listen { name: name.clone(), address, source };
    let listener = Listener::tcp(address).await.map_err(failed)?;
    let bound = listener.tcp_address().unwrap_or(address);
    Ok((bound, listener))
}
