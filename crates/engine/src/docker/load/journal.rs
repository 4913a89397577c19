//! What each manifest consists of, remembered by digest.
//!
//! The containerd store tells which manifests are whole, but not which blobs they consist of, and
//! its diff IDs say nothing of blobs that were pulled compressed. So the bytes of every manifest
//! that we saw proven are kept: a manifest that the engine calls available proves its blobs. An
//! entry's name is computed from its bytes, so a journal that is old, foreign or damaged can only
//! know less; then more bytes move, and nothing else.
//!
//! The file has one JSON object a line, `{"manifest":"…"}`, and is replaced as a whole.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use transfer::image::Manifest;
use transfer::{ConfigDigest, Digest, Image};

/// Largest journal that is read, in bytes: ten thousand manifests of common size.
const MAX_JOURNAL: u64 = 64 << 20;

/// Manifests that are remembered without looking whether the engine still has them.
///
/// Not fewer: a list that was asked for just before an image was proven lacks it, and what was
/// learnt of that image meanwhile has to stay.
const MAX_FORGOTTEN: usize = 4096;

/// Manifests by digest.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Where it outlives the process; in memory only when absent.
    path: Option<PathBuf>,
    manifests: Mutex<HashMap<Digest, String>>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    manifest: String,
}

impl Journal {
    /// Reads the journal at `path`. One that is not there or cannot be read is empty.
    pub(super) fn open(path: PathBuf) -> Self {
        let manifests = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the journal is not readable");
            }
            HashMap::new()
        });
        Self { path: Some(path), manifests: Mutex::new(manifests) }
    }

    /// Remembers what a proven image consists of.
    pub(super) async fn learn(&self, image: &Image) {
        let Ok(manifest) = std::str::from_utf8(&image.manifest) else { return };
        let known = self.lock().insert(image.manifest_digest, manifest.to_owned()).is_some();
        if !known {
            self.save().await;
        }
    }

    /// The blobs of those of `available` that are known.
    pub(super) fn blobs_of(&self, available: &HashSet<Digest>) -> HashSet<Digest> {
        let mut manifests = self.lock();
        if MAX_FORGOTTEN < manifests.len() {
            manifests.retain(|digest, _| available.contains(digest));
        }
        let known = available.iter().filter_map(|digest| manifests.get(digest));
        let parsed = known.filter_map(|text| Manifest::parse(text.as_bytes()).ok());
        parsed.flat_map(|manifest| manifest.layers).map(|layer| layer.digest).collect()
    }

    /// The config that a manifest names, where it is known.
    pub(super) fn config_of(&self, manifest: &Digest) -> Option<ConfigDigest> {
        let manifest = Manifest::parse(self.lock().get(manifest)?.as_bytes()).ok()?;
        Some(ConfigDigest(manifest.config.digest))
    }

    /// Replaces the file. A journal that cannot be written costs bytes later, so no one fails.
    async fn save(&self) {
        let Some(path) = self.path.clone() else { return };
        let manifests: Vec<String> = self.lock().values().cloned().collect();
        let written = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || write(&path, manifests)).await
        };
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(path = %path.display(), %error, "the journal could not be written");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, String>> {
        self.manifests.lock().expect("invariant: no one panics while holding the journal")
    }
}

fn read(path: &Path) -> io::Result<HashMap<Digest, String>> {
    let size = std::fs::metadata(path)?.len();
    if MAX_JOURNAL < size {
        return Err(io::Error::other(format!("it is {size} bytes long")));
    }
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    Ok(lines.map(|line| (Digest::of(line.manifest.as_bytes()), line.manifest)).collect())
}

/// Beside the file, then renamed over it. Two writers at once leave one journal or the other.
fn write(path: &Path, manifests: Vec<String>) -> io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for manifest in manifests {
        let line = serde_json::to_string(&Line { manifest })?;
        writeln!(file, "{line}")?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use transfer::fixture;

    use super::*;

    #[tokio::test]
    async fn what_was_learnt_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/journal");
        let (image, _) = fixture::image(1, &[10, 20]);
        Journal::open(path.clone()).learn(&image).await;
        let blobs = Journal::open(path).blobs_of(&HashSet::from([image.manifest_digest]));
        assert_eq!(blobs, image.layers.iter().map(|layer| layer.blob.digest).collect());
    }

    #[tokio::test]
    async fn a_manifest_that_the_engine_does_not_have_proves_nothing() {
        let journal = Journal::default();
        let (image, _) = fixture::image(1, &[10]);
        journal.learn(&image).await;
        assert!(journal.blobs_of(&HashSet::new()).is_empty());
    }

    #[tokio::test]
    async fn a_damaged_journal_only_knows_less() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (image, _) = fixture::image(1, &[10]);
        let (other, _) = fixture::image(2, &[10]);
        let journal = Journal::open(path.clone());
        journal.learn(&image).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let other_digest = other.layers[0].blob.digest.hex();
        let forged = text.replace(&image.layers[0].blob.digest.hex(), &other_digest);
        for text in [String::new(), "{".into(), text[..text.len() / 2].into(), forged] {
            std::fs::write(&path, &text).unwrap();
            let blobs =
                Journal::open(path.clone()).blobs_of(&HashSet::from([image.manifest_digest]));
            assert!(blobs.is_empty(), "{text:?}");
        }
    }
}
