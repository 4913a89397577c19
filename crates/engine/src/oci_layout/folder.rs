//! The files of a layout that takes images: what each step of a load does to them.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use transfer::blocking::blocking;
use transfer::image::{ConfigFile, MAX_CONFIG, MAX_MANIFEST, Manifest, parse_index};
use transfer::store::FsStore;
use transfer::{
    BlobError, BlobSource as _, BlobStore as _, Descriptor, Digest, Image, LoadError, MediaType,
    Reference, explain,
};

use super::catalog::Documents;
use super::lock::{self, Held};
use super::{
    LayoutError, MARK, MARK_CONTENT, blob_path, check_mark, document, index, index_path, reach,
};
use crate::document::described;
use crate::file_blob::read_small;

/// Free space that a load leaves in the file system, in bytes: for documents, and for others.
const RESERVE: u64 = 16 << 20;

/// A folder: its names, and the store of its blobs.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) blobs: FsStore,
    /// The locks of loads whose images have no name yet, by target.
    loads: Mutex<HashMap<Digest, Held>>,
}

/// Every blob that an image consists of, each once, with its size in bytes.
pub(super) fn blobs_of(image: &Image) -> HashMap<Digest, u64> {
    let documents = [
        (image.manifest_digest, image.manifest.len() as u64),
        (image.config_digest.0, image.config.len() as u64),
    ];
    let index = image.index.as_ref().map(|index| (image.target_digest(), index.len() as u64));
    let layers = image.layers.iter().map(|layer| (layer.blob.digest, layer.blob.size));
    documents.into_iter().chain(index).chain(layers).collect()
}

/// Refuses a folder that can be no layout. It must be a layout, empty, or the leftover of a making
/// that was killed.
fn check_makeable(root: &Path) -> Result<(), LayoutError> {
    std::fs::create_dir_all(root).map_err(LayoutError::io("make", root))?;
    let mut entries = root.read_dir().map_err(LayoutError::io("list", root))?;
    if entries.next().is_some() && !root.join(MARK).exists() && !ingest(root).exists() {
        let reason =
            "it has other files and no oci-layout; name a folder that is empty or not there yet";
        return Err(LayoutError::NotALayout { path: root.to_owned(), reason: reason.into() });
    }
    Ok(())
}

/// Writes the files of a layout that are not there yet.
fn make(root: &Path) -> Result<(), LayoutError> {
    let _changing = lock::changing(root).map_err(LayoutError::io("lock", root))?;
    for (path, content) in
        [(index_path(root), index::empty()), (root.join(MARK), MARK_CONTENT.into())]
    {
        if !path.exists() {
            replace(root, &path, &content).map_err(LayoutError::io("write", &path))?;
        }
    }
    check_mark(root)
}

/// Replaces a file as a whole; a kill leaves the old one or the new one. The caller holds the lock.
fn replace(root: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    let mut file = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(ingest(root))?;
    file.as_file().lock()?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(root)?.sync_all()
}

/// The folder of the blob store's ingests.
fn ingest(root: &Path) -> PathBuf {
    root.join("ingest")
}

impl Folder {
    /// Opens the layout in `root`, making it where there is none.
    pub(super) async fn open(root: PathBuf) -> Result<Self, LayoutError> {
        let path = root.clone();
        blocking(move || check_makeable(&path)).await?;
        let blobs = FsStore::open_shared(&root).await.map_err(LayoutError::Store)?;
        let path = root.clone();
        blocking(move || make(&path)).await?;
        Ok(Self { root, blobs, loads: Mutex::default() })
    }

    pub(super) fn address(&self) -> String {
        format!("oci:{}", self.root.display())
    }

    pub(super) fn loads(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.loads.lock().expect("invariant: no one panics while holding the loads")
    }

    pub(super) fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> LoadError + '_ {
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LoadError::NoSpace { message: format!("{}: {error}", self.root.display()) }
            }
            _ => LoadError::Unavailable { engine: self.address(), action, source: error.into() },
        }
    }

    pub(super) fn unusable(&self, action: &'static str) -> impl Fn(LayoutError) -> LoadError + '_ {
        move |error| LoadError::Unavailable { engine: self.address(), action, source: error.into() }
    }

    /// A blob that was not kept: by our own disk's fault, or by the host's.
    pub(super) fn not_kept(&self, error: BlobError) -> LoadError {
        match error {
            BlobError::Storage { source, .. } => self.failed("keeping a blob")(source),
            error @ BlobError::NoSpace { .. } => LoadError::NoSpace { message: explain(&error) },
            error => error.into(),
        }
    }

    /// Whether the blob need not be sent. It is not hashed: the proof does that.
    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool, LoadError> {
        let size = self.blobs.stat(&blob.digest).await.map_err(|error| self.not_kept(error))?;
        Ok(size == Some(blob.size))
    }

    /// Refuses a load that the file system has no room for, before a byte moves.
    pub(super) fn check_space(&self, needed: u64) -> Result<(), LoadError> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|error| self.failed("asking for free space")(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed.saturating_add(RESERVE) {
            let message = format!(
                "{} has {free} bytes free, the image needs {needed} and {RESERVE} stay free",
                self.root.display()
            );
            return Err(LoadError::NoSpace { message });
        }
        Ok(())
    }

    /// Keeps config, manifest and index, which come with the image and not from a stream.
    pub(super) async fn keep_documents(&self, image: &Image) -> Result<(), LoadError> {
        for bytes in [&image.config, &image.manifest].into_iter().chain(&image.index) {
            let document = Descriptor::of(MediaType::CONFIG, bytes);
            let kept = async {
                let mut ingest = self.blobs.ingest_of(&document).await?;
                ingest.write(bytes.clone()).await?;
                ingest.commit(&document).await
            };
            kept.await.map_err(|error| self.not_kept(error))?;
        }
        Ok(())
    }

    fn index(&self) -> Result<Bytes, LoadError> {
        let read = read_small(&index_path(&self.root), MAX_MANIFEST);
        Ok(read.map_err(self.failed("reading index.json"))?.0)
    }

    pub(super) fn names_of(&self, manifest: &Digest) -> Result<Vec<Reference>, LoadError> {
        let children = index::children(&self.index()?);
        let children = children.map_err(|error| self.refused(&explain(&error)))?;
        let named = children.into_iter().find(|child| child.entry.descriptor.digest == *manifest);
        Ok(named.map(|child| child.references).unwrap_or_default())
    }

    fn refused(&self, why: &str) -> LoadError {
        LoadError::Refused { message: format!("{}: {why}", self.root.display()) }
    }

    /// Names a manifest, or the index that an image was published under.
    pub(super) fn tag(&self, target: &Digest, reference: &Reference) -> Result<(), LoadError> {
        let needed = |digest: &Digest, limit| {
            let read = self.read(digest, limit).map_err(self.failed("reading a manifest"))?;
            read.ok_or_else(|| self.refused(&format!("blob {digest} is not there")))
        };
        let invalid = |error| self.refused(&explain(&error));
        let bytes = needed(target, MAX_MANIFEST)?;
        let (target, platform) = if parse_index(&bytes).is_ok() {
            (described(&bytes, MediaType::INDEX), None)
        } else {
            let config = Manifest::parse(&bytes).map_err(invalid)?.config.digest;
            let file = ConfigFile::parse(&needed(&config, MAX_CONFIG)?).map_err(invalid)?;
            (described(&bytes, MediaType::MANIFEST), Some(file.platform))
        };
        let _changing = lock::changing(&self.root).map_err(self.failed("locking the folder"))?;
        let index = index::with_name(&self.index()?, reference, &target, platform.as_ref());
        let index = index.map_err(invalid)?;
        replace(&self.root, &index_path(&self.root), &index)
            .map_err(self.failed("writing index.json"))
    }

    /// Removes the blobs of the image that no entry of `index.json` reaches; nothing while anybody
    /// loads, since what comes in has no name yet.
    pub(super) fn discard(&self, image: &Image) -> Result<(), LoadError> {
        let failed = self.failed("discarding a failed load");
        self.loads().remove(&image.target_digest());
        let _changing = lock::changing(&self.root).map_err(&failed)?;
        let Some(_alone) = lock::without_loads(&self.root).map_err(&failed)? else {
            return Ok(());
        };
        let reached = match reach::reachable(&self.index()?, self) {
            Ok(reached) => reached,
            Err(reason) => {
                tracing::warn!(folder = %self.root.display(), reason, "leftovers of a load stay");
                return Ok(());
            }
        };
        for digest in blobs_of(image).into_keys().filter(|digest| !reached.contains(digest)) {
            match std::fs::remove_file(blob_path(&self.root, &digest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Documents for Folder {
    fn read(&self, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>> {
        document(&self.root, digest, limit)
    }
}
