//! The ways to bring an image into an engine, by name.

use std::fmt;
use std::str::FromStr;

/// How images are brought into an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadWay {
    /// The fastest one that the engine's store and what is mounted allow; another where it fails.
    #[default]
    Auto,
    /// One thin archive per image into the engine's `load`: works everywhere.
    Archive,
    /// Straight into the containerd beneath an engine with the containerd store.
    Containerd,
    /// The engine pulls from an endpoint on its own loopback address.
    Registry,
}

/// A text that names no way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no way to load images: expected auto, archive, containerd or registry")]
pub struct InvalidLoadWay {
    /// What was given, cut to a length that is safe to print.
    pub text: String,
}

impl LoadWay {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Archive, Self::Containerd, Self::Registry];

    /// Its name, as it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Archive => "archive",
            Self::Containerd => "containerd",
            Self::Registry => "registry",
        }
    }
}

impl fmt::Display for LoadWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LoadWay {
    type Err = InvalidLoadWay;

    fn from_str(text: &str) -> Result<Self, InvalidLoadWay> {
        let found = Self::ALL.into_iter().find(|way| way.as_str() == text);
        found.ok_or_else(|| InvalidLoadWay { text: text.chars().take(80).collect() })
    }
}
