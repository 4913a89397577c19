//! All that an image source has, as a registry.
//!
//! A client asks for a tag first and for what it found by digest then, so the images that were
//! given last are remembered. Who comes with a digest alone (a pull by digest, a client that goes on
//! after a restart) is answered from the images that have the repository's name.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use transfer::{
    Digest, Image, ImageKey, ImageSource, LayerForm, OpenImage, Reference, SourceError,
};

use super::shelf::{Blob, Document, Shelf, blob_of, document_of};
use super::{ManifestName, Refusal, Repository};

/// Bytes of documents that are remembered: hundreds of images of common size.
const MAX_REMEMBERED: usize = 8 << 20;

/// Most images of one repository that are looked through for a digest.
const MAX_SEARCHED: usize = 64;

/// An image source as a registry.
pub(super) struct Library {
    source: Arc<dyn ImageSource>,
    /// Images with the repository that they were given in, the last one last.
    remembered: Mutex<VecDeque<(Repository, Arc<OpenImage>)>>,
}

impl Library {
    pub(super) fn new(source: Arc<dyn ImageSource>) -> Self {
        Self { source, remembered: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Repository, Arc<OpenImage>)>> {
        self.remembered.lock().expect("invariant: no one panics while holding the images")
    }

    fn remember(&self, repository: &Repository, opened: OpenImage) -> Arc<OpenImage> {
        let opened = Arc::new(opened);
        let mut remembered = self.lock();
        remembered.retain(|(other, old)| {
            other != repository || old.image.target_digest() != opened.image.target_digest()
        });
        remembered.push_back((repository.clone(), opened.clone()));
        let mut size: usize = remembered.iter().map(|(_, opened)| weight(&opened.image)).sum();
        while MAX_REMEMBERED < size && 1 < remembered.len() {
            size -= remembered.pop_front().map_or(0, |(_, opened)| weight(&opened.image));
        }
        opened
    }

    /// What `find` finds in an image of the repository that is remembered.
    fn recall<T>(
        &self,
        repository: &Repository,
        find: impl Fn(&OpenImage) -> Option<T>,
    ) -> Option<T> {
        let remembered = self.lock();
        let of = remembered.iter().rev().filter(|(other, _)| other == repository);
        of.into_iter().find_map(|(_, opened)| find(opened))
    }

    /// What `find` finds in an image of the repository, remembered or not.
    async fn search<T>(
        &self,
        repository: &Repository,
        find: impl Fn(&OpenImage) -> Option<T> + Send + Sync,
    ) -> Result<Option<T>, Refusal> {
        if let Some(found) = self.recall(repository, &find) {
            return Ok(Some(found));
        }
        let named = self
            .source
            .list()
            .await?
            .into_iter()
            .filter(|image| image.references.iter().any(|reference| repository.has(reference)));
        let keys: Vec<ImageKey> = named.map(|image| image.key()).take(MAX_SEARCHED).collect();
        for key in keys {
            match self.source.open(&key, LayerForm::AsStored).await {
                Ok(opened) => {
                    let opened = self.remember(repository, opened);
                    if let Some(found) = find(&opened) {
                        return Ok(Some(found));
                    }
                }
                // Gone since the list, or of no use: another may have what is looked for.
                Err(SourceError::NotFound { .. } | SourceError::Malformed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The image that a tag names now.
    async fn tagged(&self, repository: &Repository, tag: &str) -> Result<Arc<OpenImage>, Refusal> {
        for reference in repository.references(&format!(":{tag}")) {
            match self.source.resolve(&reference).await {
                Ok(summary) => {
                    let opened = self.source.open(&summary.key(), LayerForm::AsStored).await?;
                    return Ok(self.remember(repository, opened));
                }
                Err(SourceError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::UnknownManifest)
    }
}

/// Bytes that an image's documents take.
fn weight(image: &Image) -> usize {
    image.manifest.len() + image.config.len() + image.index.as_ref().map_or(0, Bytes::len)
}

#[async_trait]
impl Shelf for Library {
    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Document, Refusal> {
        match name {
            ManifestName::Tag(tag) => {
                self.tagged(repository, tag).await.map(|opened| Document::target(&opened.image))
            }
            ManifestName::Digest(digest) => {
                let find = |opened: &OpenImage| document_of(&opened.image, digest);
                let found = self.search(repository, find).await?;
                found.ok_or(Refusal::UnknownManifest)
            }
        }
    }

    async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob, Refusal> {
        let found = self.search(repository, |opened| blob_of(&opened.image, digest, &opened.blobs));
        found.await?.ok_or(Refusal::UnknownBlob)
    }

    async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Refusal> {
        let listed = self.source.list().await?;
        let names = listed.iter().flat_map(|image| &image.references);
        let tags: BTreeSet<String> = names
            .filter(|reference| repository.has(reference))
            .filter_map(Reference::tag)
            .map(str::to_owned)
            .collect();
        if tags.is_empty() { Err(Refusal::UnknownName) } else { Ok(tags.into_iter().collect()) }
    }
}
