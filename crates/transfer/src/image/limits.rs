//! Limits of an image's documents, and the error for a document that is not acceptable.

/// Largest manifest or index in bytes; registries and engines refuse larger ones as well.
pub const MAX_MANIFEST: usize = 4 << 20;

/// Largest image config in bytes; real ones have a few KiB.
pub const MAX_CONFIG: usize = 8 << 20;

/// Most layers that a graphdriver can stack: a deeper image loads nowhere.
pub const MAX_LAYERS: usize = 125;

/// A document is not an image's, or two engines could read it in two ways.
#[derive(Debug, thiserror::Error)]
pub enum InvalidImage {
    /// The document is larger than engines accept, and was not read.
    #[error("the {document} has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// `manifest`, `index` or `config`.
        document: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most that is allowed, in bytes.
        limit: usize,
    },
    /// The document is not JSON, has another shape, or is ambiguous: a key occurs twice.
    #[error("the {document} cannot be read")]
    Json {
        /// `manifest`, `index` or `config`.
        document: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The document breaks a rule of the specification, or contradicts another one.
    #[error("the {document} is wrong: {reason}")]
    Rule {
        /// `manifest`, `index` or `config`.
        document: &'static str,
        /// Which rule, with the values.
        reason: String,
    },
}

impl InvalidImage {
    /// The `document` breaks a rule, for this `reason`.
    pub(super) fn rule(document: &'static str, reason: impl Into<String>) -> Self {
        Self::Rule { document, reason: reason.into() }
    }
}
