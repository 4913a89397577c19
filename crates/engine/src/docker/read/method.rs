//! The ways to read a host engine's layers, and which of them an engine has.
//!
//! ```text
//!   graphdriver         files ─────────────────────────────────────────► save
//!   containerd store    content service ─► content files ─► its socket ─► save
//! ```
//! All but `save` give any one layer, from any offset, and read nothing else; `save` writes every
//! layer of an image to the engine's temporary folder first, and works wherever an engine answers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use transfer::{ImageSource, StoreKind};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::read::content::{ContainerdContent, ContentWay};
use crate::docker::read::overlay2::Overlay2Files;

/// How layers are read from an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Single layers from a graphdriver's own files, through tar-split.
    Files,
    /// Single blobs through the content service that the engine's socket offers.
    ContentService,
    /// Single blobs from the content store's own files.
    ContentFiles,
    /// Single blobs through the socket of the containerd beneath the engine.
    ContainerdSocket,
    /// Whole images, by `save`.
    Save,
}

/// A text that names no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no way to read layers: expected files, content-service, content-files, \
     containerd-socket or save"
)]
pub struct InvalidWay {
    /// What was given.
    pub text: String,
}

impl Way {
    /// Every way, the most direct first.
    pub const ALL: [Self; 5] =
        [Self::Files, Self::ContentService, Self::ContentFiles, Self::ContainerdSocket, Self::Save];

    /// Its name, as it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::ContentService => "content-service",
            Self::ContentFiles => "content-files",
            Self::ContainerdSocket => "containerd-socket",
            Self::Save => "save",
        }
    }

    /// The store whose images can be read like this; absent where any can.
    fn store(self) -> Option<StoreKind> {
        match self {
            Self::Files => Some(StoreKind::Graphdriver),
            Self::ContentService | Self::ContentFiles | Self::ContainerdSocket => {
                Some(StoreKind::Containerd)
            }
            Self::Save => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Way {
    type Err = InvalidWay;

    fn from_str(text: &str) -> Result<Self, InvalidWay> {
        let found = Self::ALL.into_iter().find(|way| way.as_str() == text);
        found.ok_or_else(|| InvalidWay { text: text.chars().take(80).collect() })
    }
}

/// Where an engine's own files can be read on this machine, when not where the engine says.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The engine's data-root; what the engine says when absent.
    pub data_root: Option<PathBuf>,
    /// The socket of the containerd beneath it; the usual places when absent.
    pub containerd_socket: Option<PathBuf>,
}

/// The root of the system's containerd, which an engine may use in the place of one of its own.
const SYSTEM_CONTAINERD: &str = "/var/lib/containerd";

/// Where the sockets of an engine's own containerd and of the system's are.
const SOCKETS: [&str; 2] =
    ["/run/docker/containerd/containerd.sock", "/run/containerd/containerd.sock"];

/// Opens `docker`'s images by this way; `None` for [`Way::Save`], which needs a store to export
/// into ([`super::Export`]).
///
/// # Errors
/// [`EngineError::Unsupported`] when the engine keeps its images in the other store, and what the
/// way itself says when it cannot be gone.
pub async fn open(
    docker: &Docker,
    way: Way,
    places: &Places,
) -> Result<Option<Arc<dyn ImageSource>>, EngineError> {
    let store = docker.info().await?.store;
    if way.store().is_some_and(|needed| needed != store) {
        let what = match store {
            StoreKind::Graphdriver => {
                "it keeps images by graphdriver: their layers are read by `files` or `save`"
            }
            StoreKind::Containerd => {
                "it keeps images in the containerd store: their layers are read by \
                 `content-service`, `content-files`, `containerd-socket` or `save`"
            }
        };
        return Err(EngineError::Unsupported { engine: docker.address().to_owned(), what });
    }
    Ok(match way {
        Way::Files => {
            let files = Overlay2Files::open(docker.clone(), data_root(docker, places).await?);
            Some(Arc::new(files.await?))
        }
        Way::ContentService => Some(content(docker, [ContentWay::Service]).await?),
        Way::ContentFiles => {
            let folders = [data_root(docker, places).await?, SYSTEM_CONTAINERD.into()];
            Some(content(docker, folders.map(ContentWay::Files)).await?)
        }
        Way::ContainerdSocket => Some(match &places.containerd_socket {
            Some(path) => content(docker, [ContentWay::Socket(path.clone())]).await?,
            None => content(docker, SOCKETS.map(|path| ContentWay::Socket(path.into()))).await?,
        }),
        Way::Save => None,
    })
}

/// Opens `docker`'s images by the most direct way that can be gone, and says which that is.
///
/// # Errors
/// The engine does not answer. A way that cannot be gone is no error, but a line in the log.
pub async fn open_best(
    docker: &Docker,
    places: &Places,
) -> Result<(Way, Option<Arc<dyn ImageSource>>), EngineError> {
    let store = docker.info().await?.store;
    for way in Way::ALL.into_iter().filter(|way| way.store().is_none_or(|kind| kind == store)) {
        match open(docker, way, places).await {
            Ok(images) => return Ok((way, images)),
            // Somebody who is late is asked again; taking `save` now would be for good.
            Err(error @ (EngineError::Unreachable { .. } | EngineError::TimedOut { .. })) => {
                return Err(error);
            }
            Err(error) => {
                let error = transfer::explain(&error);
                tracing::info!(engine = docker.address(), %way, error, "this way cannot be gone");
            }
        }
    }
    Ok((Way::Save, None))
}

async fn data_root(docker: &Docker, places: &Places) -> Result<PathBuf, EngineError> {
    let told = match &places.data_root {
        Some(path) => Some(path.clone()),
        None => docker.data_root().await?,
    };
    told.ok_or_else(|| EngineError::Unsupported {
        engine: docker.address().to_owned(),
        what: "it does not say where its data-root is; name the folder",
    })
}

/// The first of these ways that works; the first's error when none does.
async fn content(
    docker: &Docker,
    ways: impl IntoIterator<Item = ContentWay>,
) -> Result<Arc<dyn ImageSource>, EngineError> {
    let mut first = None;
    for way in ways {
        match ContainerdContent::open(docker.clone(), way).await {
            Ok(images) => return Ok(Arc::new(images)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.expect("invariant: there is always one way to try"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_as_it_is_written() {
        for way in Way::ALL {
            assert_eq!(way.to_string().parse::<Way>(), Ok(way));
        }
        let error = "docker-load".parse::<Way>().unwrap_err().to_string();
        assert!(Way::ALL.iter().all(|way| error.contains(way.as_str())), "{error}");
    }
}
