//! Small documents beside the blobs: what we know that no digest names, such as which manifest
//! belongs to a config. All of it can be found out again.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;

use super::{FsStore, Inner, StoreError, blocking, make_folder, sync_folder};

/// Longest name of a document in bytes, folders included.
const MAX_NAME: usize = 200;

impl FsStore {
    /// Keeps `bytes` under `name` (such as `images/<hex>`), replacing what was there as a whole:
    /// after a kill there is the old document or the new one.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::Io`].
    pub async fn put_document(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<(), StoreError> {
        let path = self.0.document(name)?;
        let (inner, bytes) = (self.0.clone(), bytes.into());
        blocking(move || inner.replace(path, &bytes)).await
    }

    /// The document of that name; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::Io`].
    pub async fn get_document(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let path = self.0.document(name)?;
        blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        })
        .await
    }

    /// Forgets a document. Forgetting what is not there is not an error.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::Io`].
    pub async fn remove_document(&self, name: &str) -> Result<(), StoreError> {
        let path = self.0.document(name)?;
        blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            _ => Ok(()),
        })
        .await
    }

    /// The names of the documents in a folder, without the folder's, sorted; none where there is
    /// no such folder.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`], [`StoreError::Io`].
    pub async fn list_documents(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.0.document(folder)?;
        blocking(move || {
            let entries = match path.read_dir() {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(StoreError::io("list", &path)(error)),
            };
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry.map_err(StoreError::io("list", &path))?;
                names.extend(entry.file_name().into_string());
            }
            names.sort();
            Ok(names)
        })
        .await
    }
}

impl Inner {
    fn document(&self, name: &str) -> Result<PathBuf, StoreError> {
        if name.len() <= MAX_NAME && name.split('/').all(is_component) {
            Ok(self.documents().join(name))
        } else {
            Err(StoreError::InvalidName { name: name.chars().take(MAX_NAME).collect() })
        }
    }

    fn replace(&self, path: PathBuf, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().expect("invariant: a document lies below documents/").to_owned();
        make_folder(&folder)?;
        let ingest = self.ingest();
        let mut file = tempfile::NamedTempFile::new_in(&ingest)
            .map_err(StoreError::io("write in", &ingest))?;
        let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
        written.map_err(StoreError::io("write", file.path()))?;
        file.persist(&path).map_err(|error| StoreError::io("rename", &path)(error.error))?;
        sync_folder(&folder)
    }
}

/// One part of a name: it begins with a letter or digit, so it is never `..` or hidden.
fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    part.bytes().next().is_some_and(plain)
        && part.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}
