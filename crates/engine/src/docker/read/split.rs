//! A save, split into blobs as it streams: nothing but the blobs themselves touches the disk.
//!
//! ```text
//! engines before 25                          from 25
//!   <v1 id>/layer.tar   name not known         blobs/sha256/<hex>   layers, configs, and manifests
//!   <v1 id>/layer.tar → a repeated layer       manifest.json        that the engine makes up; on
//!   <hex>.json          a config               index.json …         the containerd store all as
//!                                                                   stored, in order of digests
//! ```
//!
//! A layer is known by its hash and by nothing else: what the archive says of names and positions
//! is not read. The order of an image's layers comes from its config, whose own hash is its name.
//! (Engine 25.0 wrote wrong positions: another reason.)

use std::collections::HashSet;
use std::io;

use layer::tar::{AsyncReader, Kind, Rules, TarError};
use tokio::io::AsyncRead;
use transfer::{BlobError, BlobStore, ConfigDigest, Descriptor, Digest, MAX_FRAME, MediaType};

/// Largest config that is taken in, in bytes; the same limit as for parsing one.
const MAX_CONFIG: u64 = 8 << 20;

/// Why a save could not be split.
#[derive(Debug, thiserror::Error)]
pub(super) enum SplitError {
    /// The stream broke off, stood still, or is no archive.
    #[error("the engine's export could not be read")]
    Read(#[from] TarError),
    /// The store could not take a blob in.
    #[error("a layer could not be stored")]
    Store(#[from] BlobError),
}

/// The blobs to keep of a save. All others are skipped.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) configs: HashSet<ConfigDigest>,
    pub(super) layers: HashSet<Digest>,
    /// Every blob that has its digest for a name: which ones an image has is not known before its
    /// manifest has come, and that may be the last.
    pub(super) everything: bool,
}

/// The meaning of an entry, by its path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// A blob named by its digest.
    Named(Digest),
    /// A layer whose digest is known at its end.
    Anonymous,
    /// Anything else.
    Other,
}

impl Entry {
    fn of(path: &str) -> Self {
        let named = |hex| Digest::from_hex(hex).map_or(Self::Other, Self::Named);
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            return named(hex);
        }
        if let Some(hex) = path.strip_suffix(".json") {
            return named(hex);
        }
        match path.strip_suffix("/layer.tar").map(Digest::from_hex) {
            Some(Ok(_)) => Self::Anonymous,
            _ => Self::Other,
        }
    }
}

/// Reads a save and puts what is wanted into a store.
pub(super) struct Splitter<'a, R: AsyncRead + Unpin> {
    /// Lenient: a blob counts by its hash, wherever a path says that it lies.
    save: AsyncReader<R>,
    store: &'a dyn BlobStore,
    wanted: &'a Wanted,
}

impl<'a, R: AsyncRead + Unpin + Send> Splitter<'a, R> {
    pub(super) fn new(save: R, store: &'a dyn BlobStore, wanted: &'a Wanted) -> Self {
        Self { save: AsyncReader::new(save, Rules::Lenient), store, wanted }
    }

    /// Reads on until something wanted is in the store, and tells what; `None` at the end of the
    /// archive. What the store had before is told as well, and not written again.
    pub(super) async fn next(&mut self) -> Result<Option<Digest>, SplitError> {
        while let Some(entry) = self.save.next_entry().await? {
            if entry.kind != Kind::File {
                continue;
            }
            let arrived = match str::from_utf8(&entry.path).map_or(Entry::Other, Entry::of) {
                Entry::Named(digest) => self.named(digest).await?,
                Entry::Anonymous => self.anonymous().await?,
                Entry::Other => None,
            };
            if arrived.is_some() {
                return Ok(arrived);
            }
        }
        Ok(None)
    }

    async fn named(&mut self, digest: Digest) -> Result<Option<Digest>, SplitError> {
        let is_config = self.wanted.configs.contains(&ConfigDigest(digest));
        if !is_config && !self.wanted.everything && !self.wanted.layers.contains(&digest) {
            return Ok(None);
        }
        if self.store.stat(&digest).await?.is_some() {
            return Ok(Some(digest));
        }
        let limit = if is_config { MAX_CONFIG } else { u64::MAX };
        let ingest = self.ingest(limit).await?;
        let media_type = if is_config { MediaType::CONFIG } else { MediaType::LAYER };
        let expected =
            Descriptor { media_type: MediaType::new(media_type), digest, size: ingest.size() };
        ingest.commit(&expected).await?;
        Ok(Some(digest))
    }

    async fn anonymous(&mut self) -> Result<Option<Digest>, SplitError> {
        let ingest = self.ingest(u64::MAX).await?;
        let digest = ingest.digest();
        if !self.wanted.layers.contains(&digest) {
            tracing::debug!(blob.digest = %digest, "the export has a layer that nobody asked for");
            return Ok(None);
        }
        if self.store.stat(&digest).await?.is_none() {
            let media_type = MediaType::new(MediaType::LAYER);
            let layer = Descriptor { media_type, digest, size: ingest.size() };
            ingest.commit(&layer).await?;
        }
        Ok(Some(digest))
    }

    /// Ingests the content of the current entry.
    async fn ingest(&mut self, limit: u64) -> Result<Box<dyn transfer::Ingest>, SplitError> {
        let mut ingest = self.store.ingest().await?;
        while let Some(frame) = self.save.frame(MAX_FRAME).await? {
            if limit < ingest.size() + frame.len() as u64 {
                let reason = format!("a config is longer than {limit} bytes");
                let error = io::Error::new(io::ErrorKind::InvalidData, reason);
                return Err(TarError::Read(error).into());
            }
            ingest.write(frame).await?;
        }
        Ok(ingest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_paths_are_blobs() {
        let hex = "ab".repeat(32);
        let digest = Digest::from_hex(&hex).unwrap();
        let table = [
            (format!("blobs/sha256/{hex}"), Entry::Named(digest)),
            (format!("{hex}.json"), Entry::Named(digest)),
            (format!("{hex}/layer.tar"), Entry::Anonymous),
            (format!("./{hex}/layer.tar"), Entry::Other),
            (format!("blobs/sha256/../{hex}"), Entry::Other),
            (format!("blobs/sha512/{hex}"), Entry::Other),
            ("manifest.json".into(), Entry::Other),
            ("repositories".into(), Entry::Other),
            (format!("{hex}/VERSION"), Entry::Other),
            ("layer.tar".into(), Entry::Other),
        ];
        for (path, expected) in table {
            assert_eq!(Entry::of(&path), expected, "{path}");
        }
    }
}
