//! The ways to an engine's content, and whether one of them leads there.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use transfer::blob::Cause;
use transfer::blocking::blocking;
use transfer::{BlobError, BlobSource};

use super::files::Files;
use super::service::Service;
use crate::docker::api::Docker;
use crate::docker::api::images::Inspected;

/// By which way single blobs are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentWay {
    /// containerd's content service behind the engine's own socket. Engines since 28 were seen to
    /// serve it; nobody promised that they will.
    Service,
    /// The same service behind containerd's socket at this path.
    Socket(PathBuf),
    /// The content store's files: its folder, or the data-root or containerd root that has it.
    Files(PathBuf),
}

impl fmt::Display for ContentWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("content service of the engine"),
            Self::Socket(path) => write!(f, "containerd at {}", path.display()),
            Self::Files(path) => write!(f, "content files at {}", path.display()),
        }
    }
}

/// Why the content of an engine cannot be read in some way; says what to do instead.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    #[error(
        "it does not serve its content: name containerd's socket or the folder of its content, or \
         have images exported by save"
    )]
    NoService(#[source] Cause),
    #[error("containerd does not answer at {}: is this its socket, and may this user use it?", path.display())]
    NoSocket {
        path: PathBuf,
        #[source]
        source: Cause,
    },
    #[error(
        "{} has no blobs/sha256: expected the engine's data-root, or a folder \
         io.containerd.content.v1.content below it or below /var/lib/containerd",
        path.display()
    )]
    NoFolder { path: PathBuf },
    #[error("{} cannot be read: be root, or mount it where this user may read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("none of this engine's images is there: it is another engine's, or an old one's")]
    Stranger,
    #[error("it could not be asked for a blob")]
    Blob(#[from] BlobError),
}

/// The content by this way, after trying whether it answers.
pub(super) async fn find(
    docker: &Docker,
    way: &ContentWay,
) -> Result<Arc<dyn BlobSource>, ContentError> {
    match way {
        ContentWay::Service => {
            let service = Service::Engine(docker.http.clone());
            service.probe().await.map_err(ContentError::NoService)?;
            Ok(Arc::new(service))
        }
        ContentWay::Socket(path) => {
            let service = Service::Containerd(path.clone());
            let silent = |source| ContentError::NoSocket { path: path.clone(), source };
            service.probe().await.map_err(silent)?;
            Ok(Arc::new(service))
        }
        ContentWay::Files(path) => {
            let folder = path.clone();
            let path = path.clone();
            match blocking(move || Files::find(&folder)).await {
                Ok(Some(files)) => Ok(Arc::new(files)),
                Ok(None) => Err(ContentError::NoFolder { path }),
                Err(source) => Err(ContentError::Unreadable { path, source }),
            }
        }
    }
}

/// Whether the content is that of an engine with these images. One is enough: others may be deleted
/// at this moment, or were never whole.
pub(super) async fn check_own(
    content: &dyn BlobSource,
    targets: &[Inspected],
) -> Result<(), ContentError> {
    for target in targets {
        if content.stat(&target.id.0).await?.is_some() {
            return Ok(());
        }
    }
    if targets.is_empty() { Ok(()) } else { Err(ContentError::Stranger) }
}
