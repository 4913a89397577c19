//! The images that each range may read: its wanted ones, and those that its patterns match.
//!
//! While an administrator has a range plan an image, the range may see the documents of that image,
//! and no blob. What a range's own agent asks for grants nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use control::lending::Access;
use control::{Caller, Pattern, RangeName};
use transfer::Reference;

/// The grants of all ranges. Clones are the same grants.
#[derive(Clone, Debug, Default)]
pub struct Grants(Arc<RwLock<HashMap<RangeName, Granted>>>);

/// The grants of one range.
#[derive(Debug, Default)]
struct Granted {
    wanted: HashSet<Reference>,
    patterns: Vec<Pattern>,
    /// Images of plans under way, as often as they are planned.
    planned: Vec<Reference>,
}

impl Granted {
    fn is_all(&self) -> bool {
        self.patterns.iter().any(Pattern::is_all)
    }

    fn has(&self, name: &Reference) -> bool {
        self.wanted.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

impl Grants {
    /// Replaces the grants of a range; plans under way keep theirs.
    pub fn set(&self, range: &RangeName, wanted: &[Reference], patterns: &[Pattern]) {
        let mut all = self.write();
        let granted = all.entry(range.clone()).or_default();
        granted.wanted = wanted.iter().cloned().collect();
        granted.patterns = patterns.to_vec();
    }

    /// Forgets a range.
    pub fn remove(&self, range: &RangeName) {
        self.write().remove(range);
    }

    /// Shows the documents of images to a range for the time of a plan.
    pub fn plan(&self, range: &RangeName, images: &[Reference]) {
        if let Some(granted) = self.write().get_mut(range) {
            granted.planned.extend_from_slice(images);
        }
    }

    /// Ends what [`plan`](Self::plan) allowed.
    pub fn planned(&self, range: &RangeName, images: &[Reference]) {
        if let Some(granted) = self.write().get_mut(range) {
            for image in images {
                if let Some(at) = granted.planned.iter().position(|it| it == image) {
                    granted.planned.swap_remove(at);
                }
            }
        }
    }

    /// True if some range may not read every image: for such a range the names of images matter.
    #[must_use]
    pub fn need_names(&self) -> bool {
        self.read().values().any(|granted| !granted.is_all())
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<RangeName, Granted>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<RangeName, Granted>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access for Grants {
    fn may_read_all(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Admin | Caller::Inspector => true,
            Caller::Range(range) => self.read().get(range).is_some_and(Granted::is_all),
        }
    }

    fn may_read(&self, caller: &Caller, name: &Reference) -> bool {
        match caller {
            Caller::Admin | Caller::Inspector => true,
            Caller::Range(range) => self.read().get(range).is_some_and(|it| it.has(name)),
        }
    }

    fn may_plan(&self, caller: &Caller, name: &Reference) -> bool {
        let plans = |range| self.read().get(range).is_some_and(|it| it.planned.contains(name));
        self.may_read(caller, name) || matches!(caller, Caller::Range(range) if plans(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_reads_what_it_wants_and_what_patterns_match_and_sees_what_it_plans() {
        let (grants, range): (_, RangeName) = (Grants::default(), "lab-1".parse().unwrap());
        let caller = Caller::Range(range.clone());
        let name = |text: &str| text.parse::<Reference>().unwrap();
        let may = |text: &str| grants.may_read(&caller, &name(text));
        let may_see = |text: &str| grants.may_plan(&caller, &name(text));
        assert!(!may("app:1"), "a range that is not known reads nothing");
        grants.set(&range, &[name("app:1")], &["team/*".parse().unwrap()]);
        assert!(may("app:1") && may("docker.io/library/app:1") && may("team/tool:2"));
        assert!(!may("app:2") && !may("app") && !grants.may_read_all(&caller));
        assert!(grants.need_names());
        let other = Caller::Range("lab-2".parse().unwrap());
        assert!(!grants.may_read(&other, &name("app:1")));

        let images = [name("app:2"), name("app:2"), name("app:1")];
        grants.plan(&range, &images[..2]);
        grants.plan(&range, &images[..1]);
        grants.planned(&range, &images[..2]);
        assert!(may_see("app:2"), "another plan of it is under way");
        assert!(may_see("app:1") && !may("app:2"), "a plan grants nothing");
        grants.set(&range, &[], &[]);
        assert!(may_see("app:2") && !may_see("app:1"));
        grants.planned(&range, &images[..1]);
        assert!(!may_see("app:2"));

        grants.set(&range, &[], &[Pattern::all()]);
        assert!(grants.may_read_all(&caller) && may("app:9") && !grants.need_names());
        grants.remove(&range);
        assert!(!grants.may_read_all(&caller) && !may("app:9"));
    }
}
