//! Docker, on both of its image stores: the only module that names bollard.
//!
//! Small calls go through bollard with a deadline each. The two long streams, `save` and `load`,
//! and what bollard's types do not carry go through `http.rs`, which knows progress instead of
//! deadlines.

mod assemble;
mod catalogue;
mod containers;
mod content;
mod documents;
mod error;
mod export;
mod flight;
mod held;
mod http;
mod images;
mod journal;
mod load;
mod overlay2;
mod prove;
mod save;
mod spec;
mod split;
mod target;
mod thin;
mod verify;
pub mod way;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use transfer::{EngineInfo, StoreKind};

pub use containers::{ContainerState, ContainerSummary, ExecOutput, ImageSettings, VolumeSummary};
pub use content::{ContainerdContent, ContentStats, ContentWay};
pub use error::EngineError;
pub use export::Export;
pub use held::HeldImage;
pub use load::{DockerSink, InvalidLoadWay, LoadWay};
pub use overlay2::{FilesStats, Overlay2Files};
pub use save::ExportStats;
pub use spec::{Bind, ContainerSpec, Powers, PublishedPort, Restart};
pub use thin::ThinArchive;
pub use verify::Verification;

/// How long a call that only asks or changes one thing may take.
///
/// An engine that is extracting layers answers late, not never: on two busy cores `inspect` was
/// seen to take seconds. A dead engine is found within this time.
pub(crate) const UNARY_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to a Docker engine. Cheap to clone; each call opens its own connection.
#[derive(Clone)]
pub struct Docker {
    address: String,
    client: bollard::Docker,
    http: http::Http,
    /// How the engine keeps images, as it said last.
    store: Arc<Mutex<Option<StoreKind>>>,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Docker {
    /// Connects to the engine at `address`, in the form of a `DOCKER_HOST` value:
    /// `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`. A plain absolute path is a socket's.
    /// The API version is negotiated down to the engine's.
    ///
    /// # Errors
    /// [`EngineError::Address`], [`EngineError::Unreachable`] with what to do about it, or that the
    /// engine does not answer.
    pub async fn connect(address: &str) -> Result<Self, EngineError> {
        const ACTION: &str = "connecting";
        let http = http::Http::new(address)?;
        let address = http.address().to_owned();
        let seconds = UNARY_DEADLINE.as_secs();
        let version = bollard::API_DEFAULT_VERSION;
        let failed = |e| EngineError::from_bollard(&address, ACTION, UNARY_DEADLINE, e);
        let client = match http.socket() {
            Some(path) => bollard::Docker::connect_with_unix(path, seconds, version),
            None => bollard::Docker::connect_with_http(&address, seconds, version),
        };
        let client = client.map_err(failed)?;
        // Negotiation reads /version through a body that bollard does not bound in time.
        let client = tokio::time::timeout(UNARY_DEADLINE, client.negotiate_version())
            .await
            .map_err(|_| EngineError::timed_out(&address, ACTION, UNARY_DEADLINE))?
            .map_err(failed)?;
        Ok(Self { address, client, http, store: Arc::default() })
    }

    /// The socket or address that this engine answers at.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who the engine is. The image store is told by the engine's own status entry, never by its
    /// version: both stores exist in the same releases.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        const ACTION: &str = "asking who it is";
        let info = self.call(ACTION, self.client.info()).await?;
        let status = info.driver_status.unwrap_or_default();
        let containerd = status
            .iter()
            .any(|entry| matches!(entry.as_slice(), [key, value] if key == "driver-type" && value == "io.containerd.snapshotter.v1"));
        let store = if containerd { StoreKind::Containerd } else { StoreKind::Graphdriver };
        *self.last_store() = Some(store);
        Ok(EngineInfo {
            engine: format!("docker {}", info.server_version.unwrap_or_else(|| "?".into())),
            store,
            driver: info.driver.unwrap_or_default(),
            id: info.id.unwrap_or_default(),
        })
    }

    /// How the engine keeps images, as it said when it was last asked who it is. Whoever begins
    /// something with an image asks [`info`](Self::info), and so a change of the store is noticed.
    pub(crate) async fn store_kind(&self) -> Result<StoreKind, EngineError> {
        let last = *self.last_store();
        match last {
            Some(store) => Ok(store),
            None => Ok(self.info().await?.store),
        }
    }

    fn last_store(&self) -> MutexGuard<'_, Option<StoreKind>> {
        self.store.lock().expect("invariant: storing a value does not panic")
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.call("pinging it", self.client.ping()).await.map(|_| ())
    }

    /// One call with its deadline, and its error told with the engine's address.
    async fn call<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(UNARY_DEADLINE, call).await {
            Ok(answer) => answer.map_err(|error| {
                EngineError::from_bollard(&self.address, action, UNARY_DEADLINE, error)
            }),
            Err(_) => Err(EngineError::timed_out(&self.address, action, UNARY_DEADLINE)),
        }
    }
}
