//! A Docker engine: the connection, and one call for each thing that is asked of it.
//!
//! Small calls go through bollard with a deadline each. The two long streams, `save` and `load`, and
//! everything that bollard's types do not carry go through `http.rs`, which knows progress instead of
//! deadlines.

mod containers;
pub(in crate::docker) mod error;
mod events;
pub(in crate::docker) mod http;
pub(in crate::docker) mod images;
pub(in crate::docker) mod pulled;
mod spec;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use transfer::{EngineInfo, StoreKind};

pub use self::containers::{
    ContainerState, ContainerSummary, ExecOutput, ImageSettings, VolumeSummary,
};
use self::error::EngineError;
pub(crate) use self::http::UNARY_DEADLINE;
pub use self::spec::{Bind, ContainerSpec, Powers, PublishedPort, Restart};

/// How long engine info stays cached. An engine takes longer than this to come up with another store,
/// and this question costs it more than any other that a look at an image needs.
const FRESH: Duration = Duration::from_secs(2);

/// A connection to a Docker engine. Cheap to clone; each call opens its own connection.
#[derive(Clone)]
pub struct Docker {
    address: String,
    pub(in crate::docker) client: bollard::Docker,
    pub(in crate::docker) http: http::Http,
    /// What the engine said of itself last; held while it is asked, so that all who want to know
    /// ask once.
    said: Arc<Mutex<Option<Said>>>,
}

/// What an engine says of itself that everything else depends on.
#[derive(Clone, Debug)]
struct Said {
    at: Instant,
    store: StoreKind,
    /// Where it keeps its data, on its own host; absent where it does not say.
    data_root: Option<PathBuf>,
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
        Ok(Self { address, client, http, said: Arc::default() })
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
        let (info, said) = self.ask().await?;
        *self.said.lock().await = Some(said);
        Ok(info)
    }

    async fn ask(&self) -> Result<(EngineInfo, Said), EngineError> {
        const ACTION: &str = "asking who it is";
        let info = self.call(ACTION, self.client.info()).await?;
        let status = info.driver_status.unwrap_or_default();
        let containerd = status
            .iter()
            .any(|entry| matches!(entry.as_slice(), [key, value] if key == "driver-type" && value == "io.containerd.snapshotter.v1"));
        let store = if containerd { StoreKind::Containerd } else { StoreKind::Graphdriver };
        let data_root = info.docker_root_dir.filter(|path| path.starts_with('/'));
        let said = Said { at: Instant::now(), store, data_root: data_root.map(PathBuf::from) };
        let info = EngineInfo {
            engine: format!("docker {}", info.server_version.unwrap_or_else(|| "?".into())),
            store,
            driver: info.driver.unwrap_or_default(),
            id: info.id.unwrap_or_default(),
        };
        Ok((info, said))
    }

    /// How the engine keeps images, as it said within [`FRESH`].
    pub(crate) async fn store_kind(&self) -> Result<StoreKind, EngineError> {
        Ok(self.said().await?.store)
    }

    /// Where the engine says that its data-root is, on its own host; `None` where it does not say.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn data_root(&self) -> Result<Option<PathBuf>, EngineError> {
        Ok(self.said().await?.data_root)
    }

    async fn said(&self) -> Result<Said, EngineError> {
        let mut last = self.said.lock().await;
        if let Some(said) = last.as_ref().filter(|said| said.at.elapsed() < FRESH) {
            return Ok(said.clone());
        }
        let (_, said) = self.ask().await?;
        Ok(last.insert(said).clone())
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.call("pinging it", self.client.ping()).await.map(|_| ())
    }

    /// One call with its deadline, and its error told with the engine's address.
    pub(in crate::docker) async fn call<T>(
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
