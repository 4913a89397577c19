//! An image that a stack wants, and which services want it.

use std::fmt;

use transfer::Reference;

use crate::place::Place;

/// An image that a stack wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The image.
    pub reference: Reference,
    /// Who wants it: at least one, in the order of their first mention.
    pub reasons: Vec<Reason>,
}

/// A service that wants an image. Displayed as `compose.yaml:12 web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Where its image is written.
    pub place: Place,
    /// Its name.
    pub service: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.place.file().display(), self.place.line(), self.service)
    }
}

/// Adds a reason for an image to a list in which each image stands once.
pub(crate) fn add(wanted: &mut Vec<Wanted>, reference: Reference, reason: Reason) {
    match wanted.iter_mut().find(|wanted| wanted.reference == reference) {
        Some(there) => there.reasons.push(reason),
        None => wanted.push(Wanted { reference, reasons: vec![reason] }),
    }
}
