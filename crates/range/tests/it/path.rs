//! The paths that an image can take from a host's engine into a range's, each forced by a flag.

use std::fmt;

use range::{LoadWay, StoreKind};

use crate::nested::Nested;

/// A path: how it is read from which store, and how it is brought into which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    /// The store of the host's engine.
    pub(crate) host: StoreKind,
    /// The way that its layers are read, as the host agent calls it.
    pub(crate) export: &'static str,
    /// The store of the range's engine.
    pub(crate) range: StoreKind,
    /// Load method of the range's agent.
    pub(crate) load: LoadWay,
}

impl Path {
    /// Enough of them that each way is gone from and to each store that it is for: the two that are
    /// taken by default first.
    pub(crate) const ALL: [Self; 5] = [
        Self::of(StoreKind::Graphdriver, "files", StoreKind::Graphdriver, LoadWay::Archive),
        Self::of(
            StoreKind::Containerd,
            "content-service",
            StoreKind::Containerd,
            LoadWay::Containerd,
        ),
        Self::of(StoreKind::Graphdriver, "save", StoreKind::Graphdriver, LoadWay::Registry),
        Self::of(StoreKind::Graphdriver, "files", StoreKind::Containerd, LoadWay::Registry),
        Self::of(StoreKind::Containerd, "save", StoreKind::Containerd, LoadWay::Archive),
    ];

    const fn of(host: StoreKind, export: &'static str, range: StoreKind, load: LoadWay) -> Self {
        Self { host, export, range, load }
    }

    /// True if layers come through the socket of the host's engine; false if from its files.
    pub(crate) fn is_by_socket(self) -> bool {
        self.export != "files"
    }

    /// Returns the host agent's flags to read from `engine` by this method.
    pub(crate) fn flags(self, engine: &Nested) -> Vec<String> {
        let mut flags = vec![format!("--export-way={}", self.export)];
        if !self.is_by_socket() {
            flags.push(format!("--data-root={}", engine.data_root().display()));
        }
        flags
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, export, range, load } = self;
        write!(f, "{host} by {export} to {range} by {load}")
    }
}
