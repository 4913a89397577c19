//! Opens an engine of any kind by its address.

use std::sync::Arc;

use crate::address::Address;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::{archive, docker, oci_layout};

/// Settings for engines; each kind looks at its own.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For Docker engines.
    pub docker: docker::Options,
}

/// Opens the engine at `address`.
///
/// # Errors
/// It does not answer, or cannot be opened.
pub async fn open(address: &Address, options: &Options) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match address {
        Address::Docker(address) => {
            Arc::new(docker::DockerEngine::open(address, options.docker.clone()).await?)
        }
        Address::OciLayout(root) => Arc::new(oci_layout::LayoutEngine::at(root)),
        Address::Archive(path) => Arc::new(archive::ArchiveEngine::open(path).await?),
    })
}
