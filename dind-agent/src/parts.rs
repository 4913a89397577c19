//! What every command that moves images is made of: the engine and the host agent.

use std::sync::Arc;

use anyhow::Context as _;
use proto::RemoteHost;
use proto::client::Manners;

use crate::config::Path;
use crate::engine::RangeEngine;

/// The two ends of a range's way.
pub(crate) struct Parts {
    pub(crate) engine: RangeEngine,
    pub(crate) host: Arc<RemoteHost>,
}

impl Parts {
    /// Makes both; neither needs to answer yet.
    pub(crate) async fn make(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path.state_dir)
            .with_context(|| format!("making the state folder {}", path.state_dir.display()))?;
        let engine = RangeEngine::at(&path.engine, path.state_dir.join("journal.json"))?
            .loading_by(path.load_way, path.containerd_socket.clone());
        let host = Arc::new(RemoteHost::new(path.host.clone(), Manners::default()));
        Ok(Self { engine, host })
    }
}
