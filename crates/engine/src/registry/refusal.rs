//! What the endpoint does not give, and why: a status, the specification's code and a sentence.
//!
//! Spec: <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes>.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use transfer::{BlobError, SourceError};

/// Why there is no other answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No path of the API.
    NoSuchPath,
    /// Something is to be changed, or a body came: this is the read side.
    ReadOnly,
    /// The name breaks the specification's rule.
    InvalidName,
    /// The tag or digest breaks the specification's rule.
    InvalidDigest,
    /// The number of entries that was asked for is none.
    InvalidPage,
    /// There is no image of this name.
    UnknownName,
    /// There is no such manifest in the repository.
    UnknownManifest,
    /// There is no such blob in the repository.
    UnknownBlob,
    /// The range lies beyond the blob, which has this many bytes.
    BeyondEnd(u64),
    /// Whoever has the image does not answer now; trying again may help.
    Unavailable(String),
    /// Whoever has the image cannot give it.
    Broken(String),
}

impl Refusal {
    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::UnknownName | Self::UnknownManifest | Self::UnknownBlob => {
                StatusCode::NOT_FOUND
            }
            Self::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::InvalidName | Self::InvalidDigest | Self::InvalidPage => StatusCode::BAD_REQUEST,
            Self::BeyondEnd(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath | Self::ReadOnly => "UNSUPPORTED",
            Self::InvalidName => "NAME_INVALID",
            Self::InvalidDigest => "DIGEST_INVALID",
            // As is RANGE_INVALID not among the specification's own, which allows others.
            Self::InvalidPage => "PAGINATION_NUMBER_INVALID",
            Self::UnknownName => "NAME_UNKNOWN",
            Self::UnknownManifest => "MANIFEST_UNKNOWN",
            Self::UnknownBlob => "BLOB_UNKNOWN",
            Self::BeyondEnd(_) => "RANGE_INVALID",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::Broken(_) => "MANIFEST_INVALID",
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::NoSuchPath => "there is no such path in this registry",
            Self::ReadOnly => "this registry is only read: GET and HEAD, without a body",
            Self::InvalidName => "the repository's name is not allowed",
            Self::InvalidDigest => "neither a tag nor sha256: and 64 hex digits",
            Self::InvalidPage => "n is not a number of entries",
            Self::UnknownName => "the host has no image of this name",
            Self::UnknownManifest => "the host has no such image",
            Self::UnknownBlob => "no image of this name has such a blob",
            Self::BeyondEnd(_) => "the range lies beyond the blob's end",
            Self::Unavailable(why) | Self::Broken(why) => why,
        }
    }

    /// The specification's error document.
    pub(super) fn document(&self) -> Bytes {
        #[derive(Serialize)]
        struct Errors<'a> {
            errors: [One<'a>; 1],
        }
        #[derive(Serialize)]
        struct One<'a> {
            code: &'a str,
            message: &'a str,
        }
        let errors = Errors { errors: [One { code: self.code(), message: self.message() }] };
        serde_json::to_vec(&errors).expect("invariant: texts always serialize").into()
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let why = transfer::explain(&error);
        match error {
            SourceError::NotFound { .. } => Self::UnknownManifest,
            SourceError::Unavailable { .. } => Self::Unavailable(why),
            SourceError::Export { source, .. } => source.into(),
            SourceError::Malformed { .. } => Self::Broken(why),
        }
    }
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound { .. } => Self::UnknownBlob,
            BlobError::OffsetBeyondEnd { size, .. } => Self::BeyondEnd(size),
            error => Self::Unavailable(transfer::explain(&error)),
        }
    }
}
