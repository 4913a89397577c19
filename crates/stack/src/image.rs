//! An image of a stack and the services that use it.

use std::fmt;

use transfer::Reference;

use crate::location::Location;

/// An image of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackImage {
    /// The image.
    pub reference: Reference,
    /// The services that use it, at least one, in the order of their first mention.
    pub reasons: Vec<Reason>,
}

/// A service that uses an image, displayed as `compose.yaml:12 web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The location of its `image` value.
    pub location: Location,
    /// The service's name.
    pub service: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.location.file().display(), self.location.line(), self.service)
    }
}

/// Adds a reason for an image to a list that has each image once.
pub(crate) fn add(images: &mut Vec<StackImage>, reference: Reference, reason: Reason) {
    match images.iter_mut().find(|image| image.reference == reference) {
        Some(image) => image.reasons.push(reason),
        None => images.push(StackImage { reference, reasons: vec![reason] }),
    }
}
