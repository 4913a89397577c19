//! `index.json`: which images have which names, and giving a name to one.
//!
//! A name is the annotation `io.containerd.image.name`, or `org.opencontainers.image.ref.name` where
//! that is a full name (it has a `/`, a `:` or a `@`). A bare tag such as `1` or `latest`, as skopeo
//! and oras write when they are told no more, says of no repository what it is a tag of: it names
//! nothing here, and the log tells so. Both annotations are written, with the full name in both.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};
use transfer::image::{IndexEntry, InvalidImage, Platform, parse_index};
use transfer::{Descriptor, Digest, Reference};

/// The annotation of the image layout specification.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation of containerd and of Docker's own archives.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A child of `index.json`.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// The manifest or index.
    pub(crate) entry: IndexEntry,
    /// Its full names; empty when it has none.
    pub(crate) references: Vec<Reference>,
    /// Texts in the place of a name that name nothing.
    pub(crate) nameless: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    manifests: Vec<ChildDocument>,
}

#[derive(Deserialize)]
struct ChildDocument {
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The images and indexes of an `index.json`, each once.
///
/// # Errors
/// As [`parse_index`]: what two parsers could read differently is refused.
pub(crate) fn children(index: &[u8]) -> Result<Vec<Child>, InvalidImage> {
    let entries = parse_index(index)?;
    let document: Document = serde_json::from_slice(index)
        .map_err(|source| InvalidImage::Json { document: "index", source })?;
    let mut annotations: HashMap<Digest, Vec<BTreeMap<String, String>>> = HashMap::new();
    for child in document.manifests {
        annotations.entry(child.digest).or_default().extend(child.annotations);
    }
    let mut children: Vec<Child> = Vec::new();
    for entry in entries {
        // One that is listed under each of its names has all of them at its first place.
        let Some(told) = annotations.remove(&entry.descriptor.digest) else { continue };
        let (mut references, mut nameless) = (Vec::new(), Vec::new());
        for text in told.iter().flat_map(texts) {
            match full_name(text) {
                Some(reference) => references.push(reference),
                None => nameless.push(text.chars().take(200).collect()),
            }
        }
        references.sort();
        references.dedup();
        children.push(Child { entry, references, nameless });
    }
    Ok(children)
}

fn texts(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let full = annotations.get(IMAGE_NAME).map(String::as_str);
    // Beside a full name a bare tag is only its last part.
    let short = annotations.get(REF_NAME).map(String::as_str);
    let short = short.filter(|text| full.is_none() || full_name(text).is_some());
    [full, short].into_iter().flatten()
}

/// The name that an annotation tells; `None` for a bare tag and for what is no name at all.
fn full_name(text: &str) -> Option<Reference> {
    text.contains(['/', ':', '@']).then(|| text.parse().ok()).flatten()
}

/// The `index.json` of a layout without images.
pub(crate) fn empty() -> Vec<u8> {
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    index.as_bytes().to_vec()
}

/// The same `index.json` with `reference` naming the manifest or index `target` and nothing else;
/// an index runs on no single platform. What others wrote into it stays.
///
/// # Errors
/// As [`children`].
pub(crate) fn with_name(
    index: &[u8],
    reference: &Reference,
    target: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Vec<u8>, InvalidImage> {
    parse_index(index)?;
    let json = |source| InvalidImage::Json { document: "index", source };
    let mut document: Value = serde_json::from_slice(index).map_err(json)?;
    if let Some(manifests) = document.get_mut("manifests").and_then(Value::as_array_mut) {
        manifests.retain_mut(|child| !loses_its_last_name(child, reference));
        manifests.push(named(reference, target, platform));
    }
    serde_json::to_vec(&document).map_err(json)
}

/// Takes the name from a child; whether it had it, and is left with no other.
fn loses_its_last_name(child: &mut Value, reference: &Reference) -> bool {
    let Some(annotations) = child.get_mut("annotations").and_then(Value::as_object_mut) else {
        return false;
    };
    let name = |value: Option<&Value>| value.and_then(Value::as_str).and_then(full_name);
    let mut had = false;
    for key in [IMAGE_NAME, REF_NAME] {
        if name(annotations.get(key)).as_ref() == Some(reference) {
            annotations.remove(key);
            had = true;
        }
    }
    let named = [IMAGE_NAME, REF_NAME].iter().any(|key| name(annotations.get(*key)).is_some());
    had && !named
}

fn named(reference: &Reference, target: &Descriptor, platform: Option<&Platform>) -> Value {
    let name = reference.canonical();
    let mut entry = json!({
        "mediaType": target.media_type.as_str(),
        "digest": target.digest,
        "size": target.size,
        "annotations": { IMAGE_NAME: name, REF_NAME: name },
    });
    if let Some(Platform { os, architecture, variant }) = platform {
        entry["platform"] = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use transfer::MediaType;

    use super::*;

    fn target(content: &[u8]) -> Descriptor {
        Descriptor::of(MediaType::MANIFEST, content)
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn names(index: &[u8]) -> Vec<(Digest, Vec<String>)> {
        let children = children(index).unwrap();
        let named = |child: &Child| {
            let names = child.references.iter().map(ToString::to_string).collect();
            (child.entry.descriptor.digest, names)
        };
        children.iter().map(named).collect()
    }

    #[test]
    fn a_full_name_is_a_name_and_a_bare_tag_is_none() {
        for (annotations, expected) in [
            (r#"{"org.opencontainers.image.ref.name":"alpine:3"}"#, vec!["alpine:3"]),
            (r#"{"org.opencontainers.image.ref.name":"quay.io/a/b:1"}"#, vec!["quay.io/a/b:1"]),
            (r#"{"org.opencontainers.image.ref.name":"latest"}"#, vec![]),
            (r#"{"org.opencontainers.image.ref.name":"3.20"}"#, vec![]),
            (r#"{"org.opencontainers.image.ref.name":"../x:1"}"#, vec![]),
            (
                r#"{"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}"#,
                vec!["a:1"],
            ),
            (r#"{"other":"a:1"}"#, vec![]),
            ("null", vec![]),
        ] {
            let digest = target(b"x").digest;
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":1,"annotations":{annotations}}}]}}"#,
                MediaType::MANIFEST
            );
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(names(index.as_bytes()), [(digest, expected)], "{annotations}");
        }
    }

    #[test]
    fn a_name_moves_and_what_others_wrote_stays() {
        let platform =
            Platform { os: "linux".into(), architecture: "arm".into(), variant: Some("v7".into()) };
        let set = |index: &[u8], text: &str, content: &[u8]| {
            with_name(index, &name(text), &target(content), Some(&platform)).unwrap()
        };
        let (a, b) = (target(b"a").digest, target(b"b").digest);
        let index = set(&empty(), "x:1", b"a");
        let index = set(&index, "x:2", b"a");
        assert_eq!(names(&index), [(a, vec!["x:1".to_owned(), "x:2".to_owned()])]);
        let index = set(&index, "x:1", b"b");
        assert_eq!(names(&index), [(a, vec!["x:2".to_owned()]), (b, vec!["x:1".to_owned()])]);
        let again = set(&index, "x:1", b"b");
        assert_eq!(names(&again), names(&index));

        let foreign =
            String::from_utf8(index).unwrap().replacen('{', r#"{"annotations":{"k":"v"},"#, 1);
        let index = String::from_utf8(set(foreign.as_bytes(), "x:2", b"b")).unwrap();
        assert!(index.contains(r#""k":"v""#), "{index}");
        assert_eq!(children(index.as_bytes()).unwrap()[0].entry.platform, Some(platform));
    }
}
