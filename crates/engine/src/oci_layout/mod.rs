//! A folder of the OCI image layout as source and as sink: an engine that is only files.
//!
//! ```text
//!   <folder>/oci-layout              {"imageLayoutVersion":"1.0.0"}
//!            index.json              which manifest has which name; replaced as a whole
//!            blobs/sha256/<64 hex>   manifests, configs, layers: as stored, never unpacked
//!            ingest/                 the sink's: what is coming in; a kill leaves files only here
//!            lock  loads             the sink's: who changes names, who brings blobs in
//! ```
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>. Links are
//! refused, in the place of any of these files: who wrote the folder is not trusted with the host's.

pub(crate) mod catalog;
pub(crate) mod index;

mod engine;
mod folder;
mod lock;
mod reach;
mod sink;
mod source;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::file_blob::read_small;
use bytes::Bytes;
use serde::Deserialize;
use transfer::image::InvalidImage;
use transfer::store::StoreError;
use transfer::{Digest, EngineInfo, StoreKind};

pub use self::engine::LayoutEngine;
pub use self::sink::OciLayoutSink;
pub use self::source::OciLayout;

/// The file that makes a folder an image layout, and what it says.
const MARK: &str = "oci-layout";
const MARK_CONTENT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest `oci-layout` that is read, in bytes; it has thirty.
const MAX_MARK: usize = 4096;

/// A fault of a layout itself, not of one of its blobs.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The folder is something else.
    #[error("{} is no OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
        /// What it lacks, and how it is made.
        reason: String,
    },
    /// `index.json` is not what the specification allows.
    #[error("{} cannot be used", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: InvalidImage,
    },
    /// The store of its blobs could not be opened.
    #[error(transparent)]
    Store(StoreError),
    /// No such folder, no permission, no space, a broken disk: a person has to act.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LayoutError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

/// Checks what makes `root` a layout that we know.
fn check_mark(root: &Path) -> Result<(), LayoutError> {
    let path = root.join(MARK);
    let not = |reason: String| LayoutError::NotALayout { path: root.to_owned(), reason };
    let bytes = match read_small(&path, MAX_MARK) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => {
            return Err(not("it has no file oci-layout; skopeo makes one: \
                 skopeo copy docker://alpine:3 oci:FOLDER:docker.io/library/alpine:3"
                .into()));
        }
        Err(error) => return Err(LayoutError::io("read", &path)(error)),
    };
    match serde_json::from_slice::<Mark>(&bytes) {
        Ok(Mark { image_layout_version: version }) if version == "1.0.0" => Ok(()),
        Ok(Mark { image_layout_version: version }) => {
            let version: String = version.chars().take(40).collect();
            Err(not(format!("its version is {version:?}, not \"1.0.0\"")))
        }
        Err(error) => Err(not(format!("its file oci-layout cannot be read: {error}"))),
    }
}

fn index_path(root: &Path) -> PathBuf {
    root.join("index.json")
}

fn blobs_folder(root: &Path) -> PathBuf {
    root.join("blobs/sha256")
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    blobs_folder(root).join(digest.hex())
}

/// A blob that should be a small document; `None` where there is none.
fn document(root: &Path, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>> {
    match read_small(&blob_path(root, digest), limit) {
        Ok((bytes, _)) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Describes the folder as an engine. It keeps blobs unchanged, as containerd does.
fn info(root: &Path) -> Result<EngineInfo, LayoutError> {
    let metadata = root.metadata().map_err(LayoutError::io("look at", root))?;
    Ok(EngineInfo {
        engine: "oci layout".into(),
        store: StoreKind::Containerd,
        driver: "files".into(),
        id: format!("{}:{}:{}", metadata.dev(), metadata.ino(), root.display()),
    })
}
