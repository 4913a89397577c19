//! The images that a range is to have: the wanted set that the host agent keeps for it.

use std::collections::HashSet;

use transfer::Reference;

/// The images that a range is to have, and how often that was changed and looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedSet {
    /// Each once, in the order they were set.
    pub references: Vec<Reference>,
    /// Grows with each change of this range's set; 0 for one that was never set.
    pub revision: u64,
    /// Grows with each change of the set, and each time the range is to look at all of it again.
    pub round: u64,
}

impl WantedSet {
    /// The set that follows this one, in a new round. A reference that is there twice counts once.
    ///
    /// `now` is in milliseconds since 1970. Rounds are never below it: so they do not repeat when the
    /// record of a range is lost, or a range is removed and added again.
    #[must_use]
    pub fn replaced(&self, references: Vec<Reference>, now: u64) -> Self {
        let mut seen = HashSet::new();
        let mut references = references;
        references.retain(|reference| seen.insert(reference.clone()));
        Self { references, revision: self.revision.saturating_add(1), ..self.next_round(now) }
    }

    /// The same set in a new round.
    #[must_use]
    pub fn next_round(&self, now: u64) -> Self {
        Self { round: self.round.saturating_add(1).max(now), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_each_image_once_and_grows_with_each_change() {
        let images = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let first = WantedSet::default().replaced(images(&["b", "a", "b:latest", "a"]), 0);
        assert_eq!(first, WantedSet { references: images(&["b", "a"]), revision: 1, round: 1 });
        let second = first.replaced(Vec::new(), 0);
        assert_eq!(second, WantedSet { references: vec![], revision: 2, round: 2 });
    }

    #[test]
    fn rounds_grow_and_follow_the_clock() {
        let first = WantedSet::default().next_round(100);
        assert_eq!((first.revision, first.round), (0, 100));
        assert_eq!(first.next_round(100).round, 101, "two in one millisecond");
        assert_eq!(first.next_round(7).round, 101, "a clock that was set back");
        assert_eq!(first.next_round(500).round, 500);
    }
}
