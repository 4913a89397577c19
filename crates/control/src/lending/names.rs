//! The names of the host's images by their digests: a caller that asks by digest is granted an image
//! if it is granted one of its names.
//!
//! The host agent keeps this current with whole lists; single images are noted when they are resolved.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use transfer::{ConfigDigest, Digest, ImageKey, ImageSummary, Reference};

/// Names by digest.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    is_listed: bool,
    images: HashMap<ConfigDigest, Vec<Named>>,
}

/// One image and its names.
#[derive(Debug)]
struct Named {
    target_digest: Option<Digest>,
    references: Vec<Reference>,
    /// Names with a digest that callers resolved. A list does not have them, and they stay true as
    /// long as there is the image.
    pinned: Vec<Reference>,
}

impl Named {
    fn of(image: &ImageSummary) -> Self {
        let references = image.references.clone();
        Self { target_digest: image.target_digest, references, pinned: Vec::new() }
    }
}

impl Names {
    /// Takes over a whole list.
    pub(super) fn replace(&self, images: &[ImageSummary]) {
        let mut known = self.lock();
        let mut before = std::mem::take(&mut known.images);
        for image in images {
            let mut named = Named::of(image);
            let same = |before: &&mut Named| before.target_digest == image.target_digest;
            if let Some(before) =
                before.get_mut(&image.config_digest).and_then(|it| it.iter_mut().find(same))
            {
                named.pinned = std::mem::take(&mut before.pinned);
            }
            known.images.entry(image.config_digest).or_default().push(named);
        }
        known.is_listed = true;
    }

    /// Takes note of an image that a name was resolved to. The names that it has now are no other
    /// image's any more.
    pub(super) fn note(&self, image: &ImageSummary, asked: &Reference) {
        let mut known = self.lock();
        for named in known.images.values_mut().flatten() {
            named.references.retain(|name| !image.references.contains(name) && name != asked);
        }
        let of_config = known.images.entry(image.config_digest).or_default();
        let same = |named: &&mut Named| named.target_digest == image.target_digest;
        let named = match of_config.iter_mut().find(same) {
            Some(named) => named,
            None => {
                of_config.push(Named::of(image));
                of_config.last_mut().expect("invariant: it was put in just now")
            }
        };
        named.references.clone_from(&image.references);
        if image.references.contains(asked) || named.pinned.contains(asked) {
            return;
        }
        match asked.digest() {
            Some(_) => named.pinned.push(asked.clone()),
            None => named.references.push(asked.clone()),
        }
    }

    /// The names of the image with this key; `None` where there was no list yet and none are known.
    pub(super) fn of(&self, key: &ImageKey) -> Option<Vec<Reference>> {
        let known = self.lock();
        let fits = |named: &&Named| match (key.target_digest, named.target_digest) {
            (Some(asked), Some(has)) => asked == has,
            _ => true,
        };
        let named = known.images.get(&key.config_digest).into_iter().flatten().filter(fits);
        let names: Vec<_> =
            named.flat_map(|it| it.references.iter().chain(&it.pinned)).cloned().collect();
        (known.is_listed || !names.is_empty()).then_some(names)
    }

    /// The names of the images that have this digest as config or target.
    pub(super) fn of_digest(&self, digest: &Digest) -> Vec<Reference> {
        let known = self.lock();
        let images = known.images.iter().flat_map(|(config_digest, named)| {
            named
                .iter()
                .filter(move |it| config_digest.0 == *digest || it.target_digest == Some(*digest))
        });
        images.flat_map(|it| it.references.iter().chain(&it.pinned)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &[u8], target: &[u8], names: &[&str]) -> ImageSummary {
        ImageSummary {
            config_digest: ConfigDigest(Digest::of(config)),
            target_digest: Some(Digest::of(target)),
            references: names.iter().map(|name| name.parse().unwrap()).collect(),
            diff_ids: Vec::new(),
            unpacked_size: 0,
            platform: transfer::Platform {
                os: "linux".into(),
                architecture: "amd64".into(),
                variant: None,
            },
        }
    }

    fn texts(names: Option<Vec<Reference>>) -> Option<Vec<String>> {
        names.map(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_those_of_the_last_list_and_of_what_was_resolved_since() {
        let names = Names::default();
        let (old, new) = (image(b"1", b"1", &["a:1", "b:1"]), image(b"2", b"2", &["c:1"]));
        assert_eq!(names.of(&old.key()), None, "nothing is known yet");
        names.note(&old, &"a:1".parse().unwrap());
        assert_eq!(texts(names.of(&old.key())).unwrap(), ["a:1", "b:1"]);
        names.replace(&[old.clone(), new.clone()]);
        assert_eq!(texts(names.of(&new.key())).unwrap(), ["c:1"]);
        // The name moves.
        names.note(&image(b"2", b"2", &["a:1", "c:1"]), &"a:1".parse().unwrap());
        assert_eq!(texts(names.of(&old.key())).unwrap(), ["b:1"]);
        names.replace(std::slice::from_ref(&new));
        assert_eq!(names.of(&old.key()), Some(vec![]), "it is not there any more");
    }

    #[test]
    fn two_images_of_one_config_have_their_own_names() {
        let names = Names::default();
        let (one, two) = (image(b"c", b"1", &["a:1"]), image(b"c", b"2", &["b:1"]));
        names.replace(&[one.clone(), two.clone()]);
        assert_eq!(texts(names.of(&one.key())).unwrap(), ["a:1"]);
        assert_eq!(texts(names.of(&two.key())).unwrap(), ["b:1"]);
        assert_eq!(texts(names.of(&one.config_digest.into())).unwrap(), ["a:1", "b:1"]);
        assert_eq!(names.of_digest(&Digest::of(b"2")), ["b:1".parse().unwrap()]);
        assert_eq!(names.of_digest(&Digest::of(b"c")).len(), 2);
    }

    #[test]
    fn a_name_with_a_digest_stays_as_long_as_its_image() {
        let names = Names::default();
        let one = image(b"1", b"1", &[]);
        let pinned: Reference = format!("a@{}", Digest::of(b"1")).parse().unwrap();
        names.note(&one, &pinned);
        names.replace(std::slice::from_ref(&one));
        assert_eq!(names.of(&one.key()).unwrap(), [pinned]);
        names.replace(&[]);
        assert_eq!(names.of(&one.key()), Some(vec![]));
    }
}
