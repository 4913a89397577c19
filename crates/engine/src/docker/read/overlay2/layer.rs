//! One layer of an engine: what its tar consists of, and what can be wrong with that.

use std::fs::File;

use ::layer::tar_split::SplitError;
use transfer::{BlobError, Digest};

use super::beneath::{Folder, Refused};
use super::layerdb::{FilesError, LayerFiles};

/// A layer whose tar is rebuilt.
pub(super) struct Layer {
    pub(super) digest: Digest,
    /// Bytes of the whole tar.
    pub(super) size: u64,
    pub(super) files: LayerFiles,
    folder: Folder,
}

impl Layer {
    /// Opens the layer, whose tar has `size` bytes.
    pub(super) fn open(files: LayerFiles, digest: Digest, size: u64) -> Result<Self, BlobError> {
        let folder = Folder::open(&files.diff).map_err(|source| {
            let path = files.diff.display().to_string();
            FilesError::Unreadable { path, source }.about(digest)
        })?;
        Ok(Self { digest, size, files, folder })
    }

    pub(super) fn split_error(&self, error: SplitError) -> BlobError {
        self.files.split_error(error).about(self.digest)
    }

    pub(super) fn mismatch(&self, actual: u64) -> BlobError {
        BlobError::SizeMismatch { digest: self.digest, expected: self.size, actual }
    }

    /// The folder that its files were unpacked to.
    pub(super) fn folder(&self) -> Folder {
        self.folder.clone()
    }

    /// Opens the file `name`. A file that does not have `expected` bytes is not the unpacked one.
    pub(super) fn file(
        &self,
        folder: &mut Folder,
        name: &[u8],
        expected: u64,
    ) -> Result<File, BlobError> {
        let path = || format!("{}/{}", self.files.diff.display(), name.escape_ascii());
        let (file, actual) = match folder.file(name) {
            Ok(opened) => opened,
            Err(Refused::System(source)) => {
                return Err(FilesError::Unreadable { path: path(), source }.about(self.digest));
            }
            Err(refused) => {
                let error = FilesError::Wrong { path: path(), reason: refused.to_string() };
                return Err(error.about(self.digest));
            }
        };
        if actual != expected {
            let path = path();
            tracing::warn!(blob.digest = %self.digest, path, actual, expected, "a layer's file has another size");
            return Err(self.mismatch((self.size - expected.min(self.size)).saturating_add(actual)));
        }
        Ok(file)
    }
}
