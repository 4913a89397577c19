//! What a range is to have: the wanted set that the host agent keeps for it.

use std::collections::HashSet;

use transfer::Reference;

/// The images that a range is to have, and how often that was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedSet {
    /// Each once, in the order they were set.
    pub references: Vec<Reference>,
    /// Grows with each change of this range's set; 0 for one that was never set.
    pub revision: u64,
}

impl WantedSet {
    /// The set that follows this one. What is there twice counts once.
    #[must_use]
    pub fn replaced(&self, references: Vec<Reference>) -> Self {
        let mut seen = HashSet::new();
        let mut references = references;
        references.retain(|reference| seen.insert(reference.clone()));
        Self { references, revision: self.revision.saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_each_image_once_and_grows_with_each_change() {
        let images = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let first = WantedSet::default().replaced(images(&["b", "a", "b:latest", "a"]));
        assert_eq!(first, WantedSet { references: images(&["b", "a"]), revision: 1 });
        assert_eq!(first.replaced(Vec::new()), WantedSet { references: vec![], revision: 2 });
    }
}
