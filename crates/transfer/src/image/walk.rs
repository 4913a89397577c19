//! From the digest that an image has in a registry or an engine to the image, one document after
//! another.
//!
//! ```text
//!   target ─┬──────────────────────► manifest ─► config ─► image
//!           └─► index ─► (index …) ─┘
//!                  the platform's child; attestations are left alone
//! ```
//! The walk does no I/O. Its caller reads each document by its digest, and has verified the bytes.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::index::{IndexEntry, choose_platform, parse_index};
use super::{Image, InvalidImage, MAX_CONFIG, MAX_MANIFEST, Manifest, Platform};
use crate::digest::Digest;

/// How deep indexes may nest; `docker save` of the containerd store makes two.
const MAX_DEPTH: usize = 4;

/// A document to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, where the document above it says so.
    pub size: Option<u64>,
    /// Most bytes that may be read of it.
    pub limit: usize,
}

/// A walk under way.
#[derive(Clone, Debug)]
pub struct Walk {
    platform: Platform,
    wanted: Wanted,
    place: Place,
    /// Indexes so far, the outermost of them kept.
    depth: usize,
    top: Option<Bytes>,
}

/// What the wanted document is.
#[derive(Clone, Debug)]
enum Place {
    /// An index or a manifest, as its own text shows.
    Target,
    Index,
    Manifest,
    /// The config of this manifest.
    Config(Bytes),
}

/// What follows a document.
#[derive(Clone, Debug)]
pub enum Step {
    /// The next document.
    Read(Walk),
    /// The image. Its layers need not be there.
    Image(Box<Image>),
}

impl Walk {
    /// Begins at `target`, a manifest or an index.
    #[must_use]
    pub fn new(target: Digest, platform: Platform) -> Self {
        let wanted = Wanted { digest: target, size: None, limit: MAX_MANIFEST };
        Self { platform, wanted, place: Place::Target, depth: 0, top: None }
    }

    /// Begins at a child of an index.
    #[must_use]
    pub fn of(entry: &IndexEntry, platform: Platform) -> Self {
        Self::new(entry.descriptor.digest, platform).at(entry)
    }

    /// The document to read next.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Takes the wanted document.
    ///
    /// # Errors
    /// [`InvalidImage`] when a document is malformed, contradicts another, nests too deep, or has
    /// nothing for the platform.
    pub fn take(mut self, document: Bytes) -> Result<Step, InvalidImage> {
        let is_index = match self.place {
            Place::Target => is_index(&document),
            Place::Index => true,
            Place::Manifest | Place::Config(_) => false,
        };
        if is_index {
            self.depth += 1;
            if MAX_DEPTH < self.depth {
                let reason = format!("it nests deeper than {MAX_DEPTH}");
                return Err(InvalidImage::rule("index", reason));
            }
            let entries = parse_index(&document)?;
            let Some(entry) = choose_platform(&entries, &self.platform) else {
                let reason = format!("it has nothing for {}", self.platform);
                return Err(InvalidImage::rule("index", reason));
            };
            self.top.get_or_insert(document);
            return Ok(Step::Read(self.at(entry)));
        }
        let Place::Config(manifest) = self.place else {
            let config = Manifest::parse(&document)?.config;
            self.wanted =
                Wanted { digest: config.digest, size: Some(config.size), limit: MAX_CONFIG };
            self.place = Place::Config(document);
            return Ok(Step::Read(self));
        };
        let image = Image::parse(manifest, document)?;
        let image = match self.top {
            // An index of indexes does not name the manifest itself: then it has no part in it.
            Some(top) => image.clone().under(top).unwrap_or(image),
            None => image,
        };
        Ok(Step::Image(Box::new(image)))
    }

    fn at(self, entry: &IndexEntry) -> Self {
        let (digest, size) = (entry.descriptor.digest, Some(entry.descriptor.size));
        Self {
            wanted: Wanted { digest, size, limit: MAX_MANIFEST },
            place: if entry.is_index() { Place::Index } else { Place::Manifest },
            ..self
        }
    }
}

/// Whether a document lists manifests. The parser of either refuses a document that is an index and a
/// manifest at once.
fn is_index(document: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        manifests: Option<IgnoredAny>,
    }
    serde_json::from_slice(document).is_ok_and(|shape: Shape| shape.manifests.is_some())
}
