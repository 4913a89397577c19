//! The images of a layout, with their documents read and checked once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use transfer::image::{IndexEntry, InvalidImage, Step, Walk, Wanted, choose_platform};
use transfer::{
    ConfigDigest, Digest, Image, ImageKey, ImageSummary, Platform, Reference, SourceError, explain,
};

use super::index::{self, Child};

/// A place of manifests and configs: a folder, or a tar file of one.
pub(crate) trait Documents {
    /// The bytes of a blob that should be a small document; `None` where there is none. They are
    /// checked by the caller.
    fn read(&self, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>>;
}

/// Images and their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    images: BTreeMap<ImageKey, Described>,
    names: BTreeMap<Reference, Named>,
}

#[derive(Clone, Debug)]
struct Described {
    summary: ImageSummary,
    /// Absent where its layers' sizes are not known yet.
    image: Option<Arc<Image>>,
}

#[derive(Clone, Debug)]
struct Named {
    /// The image, or why there is none.
    image: Result<ImageKey, String>,
    /// The digests that the name may be pinned to: the index's child, and the manifest.
    targets: Vec<Digest>,
}

impl Catalog {
    /// Reads what `index` names. An image that cannot be read keeps its names, with the reason.
    ///
    /// # Errors
    /// [`InvalidImage`] when the index itself cannot be read.
    pub(crate) fn of_index(
        index: &[u8],
        wanted: &Platform,
        documents: &dyn Documents,
    ) -> Result<Self, InvalidImage> {
        let children = index::children(index)?;
        let mut catalog = Self::default();
        let mut named: BTreeMap<&Reference, Vec<&Child>> = BTreeMap::new();
        for child in &children {
            child.references.iter().for_each(|name| named.entry(name).or_default().push(child));
            if child.references.is_empty()
                && let Ok(image) = read_image(&child.entry, wanted, documents)
            {
                // Without a name nobody can ask for it, so nobody misses it.
                catalog.add(image, None);
            }
        }
        for (reference, children) in named {
            let read = choose(&children, wanted).and_then(|entry| {
                let image = read_image(&entry, wanted, documents)?;
                Ok((entry.descriptor.digest, image))
            });
            match read {
                Ok((target, image)) => {
                    let targets = vec![target, image.manifest_digest];
                    let key = catalog.add(image, Some(reference));
                    catalog.name(reference.clone(), Ok(key), targets);
                }
                Err(reason) => catalog.name(reference.clone(), Err(reason), Vec::new()),
            }
        }
        Ok(catalog)
    }

    /// Adds an image, and the name for it.
    fn add(&mut self, image: Image, reference: Option<&Reference>) -> ImageKey {
        let summary = ImageSummary {
            config_digest: image.config_digest,
            target_digest: Some(image.target_digest()),
            references: Vec::new(),
            diff_ids: image.diff_ids().collect(),
            unpacked_size: unpacked_size(&image),
            platform: image.platform.clone(),
        };
        let key = summary.key();
        let image = Some(Arc::new(image));
        let described = self.images.entry(key).or_insert(Described { summary, image });
        described.summary.references.extend(reference.cloned());
        key
    }

    /// Adds an image by what is known of it, unless one of its config is there.
    pub(crate) fn describe(&mut self, summary: ImageSummary) {
        if !self.has(&summary.config_digest) {
            self.images.insert(summary.key(), Described { summary, image: None });
        }
    }

    /// Gives a name to an image of that config. A name that means two images means none.
    pub(crate) fn name_also(&mut self, reference: Reference, config_digest: ConfigDigest) {
        match self.names.get(&reference) {
            Some(Named { image: Ok(other), .. }) if other.config_digest == config_digest => return,
            Some(Named { image: Ok(other), .. }) => {
                let reason = format!("two documents say which it is: {other} and {config_digest}");
                if let Some(described) = self.images.get_mut(other) {
                    described.summary.references.retain(|name| *name != reference);
                }
                self.name(reference, Err(reason), Vec::new());
                return;
            }
            Some(Named { image: Err(_), .. }) | None => {}
        }
        let mut images = self.images.iter_mut();
        let Some((key, described)) = images.find(|(key, _)| key.config_digest == config_digest)
        else {
            return;
        };
        let key = *key;
        described.summary.references.push(reference.clone());
        described.summary.references.sort();
        self.name(reference, Ok(key), Vec::new());
    }

    fn name(
        &mut self,
        reference: Reference,
        image: Result<ImageKey, String>,
        targets: Vec<Digest>,
    ) {
        self.names.insert(reference, Named { image, targets });
    }

    /// Every image, sorted by key.
    pub(crate) fn list(&self) -> Vec<ImageSummary> {
        self.images.values().map(|described| described.summary.clone()).collect()
    }

    /// The image of that name. A name with a digest is also found by the digest of the index's
    /// child or of the manifest, as an engine finds it.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::Malformed`].
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let named = self.names.get(reference).or_else(|| self.pinned(reference));
        match named.map(|named| &named.image) {
            Some(Ok(key)) => match self.images.get(key) {
                Some(described) => Ok(described.summary.clone()),
                None => Err(SourceError::NotFound { image: reference.to_string() }),
            },
            Some(Err(reason)) => {
                Err(SourceError::Malformed { image: reference.to_string(), reason: reason.clone() })
            }
            None => Err(SourceError::NotFound { image: reference.to_string() }),
        }
    }

    fn pinned(&self, reference: &Reference) -> Option<&Named> {
        let digest = reference.digest()?;
        let same = |name: &Reference| {
            name.repository() == reference.repository()
                && reference.tag().is_none_or(|tag| name.tag() == Some(tag))
        };
        let mut named = self.names.iter();
        named.find(|(name, named)| same(name) && named.targets.contains(digest)).map(|(_, n)| n)
    }

    /// The image that the key names, with all its documents; `None` where there is none or its
    /// layers are not known yet.
    pub(crate) fn image(&self, key: &ImageKey) -> Option<Arc<Image>> {
        let mut known = self.images.values().filter_map(|described| described.image.as_ref());
        known.find(|image| key.names(&image.config_digest, &image.target_digest())).cloned()
    }

    /// Whether there is an image of that config.
    pub(crate) fn has(&self, config_digest: &ConfigDigest) -> bool {
        self.images.keys().any(|key| key.config_digest == *config_digest)
    }

    /// The names that could not be read, and why.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&Reference, &str)> {
        self.names
            .iter()
            .filter_map(|(name, named)| Some((name, named.image.as_ref().err()?.as_str())))
    }
}

/// Chooses the one that runs here, of several that share a name.
fn choose(children: &[&Child], wanted: &Platform) -> Result<IndexEntry, String> {
    let entries: Vec<IndexEntry> = children.iter().map(|child| child.entry.clone()).collect();
    match entries.as_slice() {
        [only] => Ok(only.clone()),
        several => match choose_platform(several, wanted) {
            Some(entry) => Ok(entry.clone()),
            None => Err(format!(
                "index.json gives this name {} times, and not once for {wanted}",
                several.len()
            )),
        },
    }
}

/// The image for the platform that a child of the index leads to.
fn read_image(
    entry: &IndexEntry,
    platform: &Platform,
    documents: &dyn Documents,
) -> Result<Image, String> {
    let mut walk = Walk::of(entry, platform.clone());
    loop {
        let document = document(documents, walk.wanted())?;
        match walk.take(document).map_err(|error| explain(&error))? {
            Step::Read(next) => walk = next,
            Step::Image(image) => return Ok(*image),
        }
    }
}

/// Reads a document, and checks its size and digest.
fn document(documents: &dyn Documents, wanted: Wanted) -> Result<Bytes, String> {
    let Wanted { digest, size, limit } = wanted;
    let read = documents.read(&digest, limit);
    let read = read.map_err(|error| format!("blob {digest} could not be read: {error}"))?;
    let bytes = read.ok_or_else(|| format!("blob {digest} is not there"))?;
    let has_size = size.is_none_or(|size| size == bytes.len() as u64);
    if !has_size || Digest::of(&bytes) != digest {
        return Err(format!("blob {digest} has another size or other content"));
    }
    Ok(bytes)
}

/// Bytes of the unpacked layers, where the manifest tells: they are stored as they are.
fn unpacked_size(image: &Image) -> u64 {
    let known = image.layers.iter().all(|layer| layer.blob.media_type.is_uncompressed_layer());
    if known { image.layers.iter().map(|layer| layer.blob.size).sum() } else { 0 }
}
