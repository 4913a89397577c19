//! Names that every step of set-up uses: labels, needs, and the machine that results.

use std::fmt;

/// The label of every container, volume and network that xtask makes, by which teardown finds them.
pub(crate) const LABEL: &str = "dev.longshore=1";

/// The label of every image that xtask makes, with the [fingerprint](super::step::fingerprint) of its recipe.
///
/// It differs from [`LABEL`] because containers inherit the labels of their image, and teardown must
/// spare containers that users start from these images.
pub(super) const RECIPE_LABEL: &str = "dev.longshore.recipe";

/// Objects that a command needs, besides an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Range images.
    pub(crate) ranges: Ranges,
    /// The demo stack, in the host's engine.
    pub(crate) stack: bool,
}

/// A set of range images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// No range image.
    None,
    /// Current engines on each image store.
    Usual,
    /// The usual ones, and the oldest supported engine.
    All,
}

/// The result of a set-up.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Address of the engine that has the stack and runs the ranges, such as `unix:///…`.
    pub(crate) docker_host: String,
    /// True if that engine is private, so that teardown stops it and removes its data.
    pub(crate) private_engine: bool,
    /// The images of [`Needs::ranges`]; the first one of each store is the default.
    pub(crate) range_images: Vec<RangeImage>,
    /// References of the demo stack; empty without [`Needs::stack`].
    pub(crate) stack: Vec<String>,
}

/// An image for ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeImage {
    /// The image's name in the engine that runs the ranges.
    pub(crate) reference: String,
    /// The version that its engine reports.
    pub(crate) engine_version: String,
    /// The image store that its engine reports.
    pub(crate) store: Store,
}

/// One of Docker's two image stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// The graphdriver store, with overlay2.
    Overlay2,
    /// The containerd store.
    Containerd,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay2 => "overlay2",
            Self::Containerd => "containerd",
        })
    }
}
