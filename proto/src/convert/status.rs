//! Errors as statuses and back: codes, reasons, and the details of `google.rpc`.
//!
//! | reason | code | beside `ErrorInfo` |
//! |---|---|---|
//! | `IMAGE_NOT_FOUND`, `BLOB_NOT_FOUND`, `RANGE_NOT_FOUND` | `NOT_FOUND` | `ResourceInfo` |
//! | `OFFSET_BEYOND_END` | `OUT_OF_RANGE` | |
//! | `LEASE_LOST`, `IMAGE_MALFORMED`, `IMAGE_CHANGED` | `FAILED_PRECONDITION` | `ResourceInfo` |
//! | `SIZE_MISMATCH`, `DIGEST_MISMATCH` | `DATA_LOSS` | |
//! | `STORAGE`, `NO_SPACE`, `LISTEN` | `INTERNAL` | |
//! | `REMOTE_NOT_ALLOWED` | `FAILED_PRECONDITION` | `ResourceInfo` |
//! | `REVISION`, `REPLACED` | `ABORTED` | `ResourceInfo` |
//! | `BUSY`, `TOO_MANY_RANGES` | `RESOURCE_EXHAUSTED` | `RetryInfo` for `BUSY` |
//! | `UNAVAILABLE`, `NOT_ATTACHED` | `UNAVAILABLE` | `RetryInfo` |
//! | `INVALID_ARGUMENT` | `INVALID_ARGUMENT` | `BadRequest` |
//! | `NOT_ALLOWED` | `PERMISSION_DENIED` | |

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use transfer::{BlobError, Digest, SourceError};

use crate::failure::Failure;
use control::admin::AdminError;
use control::lending::ReadError;
use control::link::{LinkEnd, LinkError};
use control::range::ControlError;

/// Domain of the error reasons.
const DOMAIN: &str = "longshore.dev";

/// Delay before a retry if none is known to be better.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Longest message in characters: it travels in a trailer, and those are bounded.
const MAX_MESSAGE: usize = 1024;

/// An error and all its causes in one line that fits a trailer.
pub(crate) fn explain(error: &dyn Error) -> String {
    transfer::explain(error).chars().take(MAX_MESSAGE).collect()
}

/// Parts of a status before it is built.
struct Answer {
    code: Code,
    reason: &'static str,
    metadata: HashMap<String, String>,
    resource: Option<(&'static str, String)>,
    retry: bool,
}

impl Answer {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, metadata: HashMap::new(), resource: None, retry: false }
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Keeps the cause apart from the message, which also contains it: a peer that rebuilds the
    /// error from its parts needs the cause alone.
    fn caused_by(self, cause: &dyn Error) -> Self {
        let cause = explain(cause);
        self.with("cause", cause)
    }

    fn about(mut self, kind: &'static str, name: impl ToString) -> Self {
        self.resource = Some((kind, name.to_string()));
        self
    }

    fn retry(mut self) -> Self {
        self.retry = true;
        self
    }

    fn status(self, error: &dyn Error) -> Status {
        let message = explain(error);
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason, DOMAIN, self.metadata);
        if let Some((kind, name)) = self.resource {
            details.set_resource_info(format!("longshore.dev/{kind}"), name, "", "");
        }
        if self.retry {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Status::with_error_details(self.code, message, details)
    }
}

/// A field of a request is wrong.
pub(crate) fn invalid(field: &str, reason: impl Display) -> Status {
    let reason = reason.to_string();
    let mut details = ErrorDetails::new();
    details.set_error_info("INVALID_ARGUMENT", DOMAIN, HashMap::new());
    details.add_bad_request_violation(field, reason.as_str());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}

/// The caller may not call this at all.
pub(crate) fn not_allowed(caller: &impl Display, path: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_ALLOWED", DOMAIN, HashMap::new());
    let message = format!("{caller} may not call {path}");
    Status::with_error_details(Code::PermissionDenied, message, details)
}

fn blob_answer(error: &BlobError) -> Answer {
    match error {
        BlobError::NotFound { digest } => {
            Answer::new(Code::NotFound, "BLOB_NOT_FOUND").about("blob", digest)
        }
        BlobError::OffsetBeyondEnd { size, offset, .. } => {
            let answer = Answer::new(Code::OutOfRange, "OFFSET_BEYOND_END");
            answer.with("size", size).with("offset", offset)
        }
        BlobError::SizeMismatch { expected, actual, .. } => {
            let answer = Answer::new(Code::DataLoss, "SIZE_MISMATCH");
            answer.with("expected", expected).with("actual", actual)
        }
        BlobError::DigestMismatch { actual, .. } => {
            Answer::new(Code::DataLoss, "DIGEST_MISMATCH").with("actual", actual)
        }
        BlobError::LeaseLost { digest } => {
            Answer::new(Code::FailedPrecondition, "LEASE_LOST").about("blob", digest)
        }
        BlobError::NoSpace { path, need, free, .. } => {
            let answer = Answer::new(Code::Internal, "NO_SPACE").with("path", path);
            answer.with("need", need).with("free", free)
        }
        BlobError::Storage { path, source, .. } => {
            Answer::new(Code::Internal, "STORAGE").with("path", path).caused_by(source)
        }
        BlobError::Unavailable { source, .. } => {
            Answer::new(Code::Unavailable, "UNAVAILABLE").caused_by(source.as_ref()).retry()
        }
    }
}

pub(crate) fn from_blob_error(error: &BlobError) -> Status {
    blob_answer(error).status(error)
}

pub(crate) fn from_read_error(error: &ReadError) -> Status {
    match error {
        ReadError::Blob(error) => from_blob_error(error),
        ReadError::Busy { .. } => {
            Answer::new(Code::ResourceExhausted, "BUSY").retry().status(error)
        }
    }
}

pub(crate) fn from_source_error(error: &SourceError) -> Status {
    let answer = match error {
        SourceError::NotFound { image } => {
            Answer::new(Code::NotFound, "IMAGE_NOT_FOUND").about("image", image)
        }
        SourceError::Malformed { image, reason } => {
            let answer = Answer::new(Code::FailedPrecondition, "IMAGE_MALFORMED");
            answer.about("image", image).with("reason", reason)
        }
        // A blob that the engine did not give: the image went away while it was being exported.
        SourceError::Export { image, source: BlobError::NotFound { digest } } => {
            let answer = Answer::new(Code::FailedPrecondition, "IMAGE_CHANGED");
            answer.about("image", image).with("digest", digest)
        }
        SourceError::Export { source, .. } => {
            let digest = digest_of(source);
            blob_answer(source).with("digest", digest).with("export", true)
        }
        SourceError::Unavailable { source, .. } => {
            Answer::new(Code::Unavailable, "UNAVAILABLE").caused_by(source.as_ref()).retry()
        }
    };
    answer.status(error)
}

pub(crate) fn from_control_error(error: &ControlError) -> Status {
    let answer = match error {
        ControlError::Busy { .. } => Answer::new(Code::ResourceExhausted, "BUSY").retry(),
        ControlError::Unavailable(_) => Answer::new(Code::Unavailable, "UNAVAILABLE").retry(),
    };
    answer.status(error)
}

pub(crate) fn from_admin_error(error: &AdminError) -> Status {
    let answer = match error {
        AdminError::UnknownRange { name } => {
            Answer::new(Code::NotFound, "RANGE_NOT_FOUND").about("range", name)
        }
        AdminError::Revision { name, revision } => {
            let answer = Answer::new(Code::Aborted, "REVISION").about("range", name);
            answer.with("revision", revision)
        }
        AdminError::NotAttached { name, .. } => {
            Answer::new(Code::Unavailable, "NOT_ATTACHED").about("range", name).retry()
        }
        AdminError::Busy { name } => {
            Answer::new(Code::ResourceExhausted, "BUSY").about("range", name).retry()
        }
        AdminError::RangeFailed { name, .. } => {
            Answer::new(Code::Unavailable, "UNAVAILABLE").about("range", name).retry()
        }
        AdminError::TooManyRanges { limit } => {
            Answer::new(Code::ResourceExhausted, "TOO_MANY_RANGES").with("limit", limit)
        }
        AdminError::RemoteNotAllowed { name, address } => {
            let answer = Answer::new(Code::FailedPrecondition, "REMOTE_NOT_ALLOWED");
            answer.about("range", name).with("address", address)
        }
        AdminError::Listen { address, .. } => {
            Answer::new(Code::Internal, "LISTEN").with("address", address)
        }
        AdminError::Record { .. } => Answer::new(Code::Internal, "STORAGE"),
        AdminError::Socket { path, .. } => {
            Answer::new(Code::Internal, "STORAGE").with("path", path.display())
        }
        AdminError::Store(_) => Answer::new(Code::Internal, "STORAGE"),
    };
    answer.status(error)
}

/// The end of a stream that has none of its own.
pub(crate) fn host_ending() -> Status {
    from_link_end(&LinkEnd::HostEnding)
}

pub(crate) fn from_link_end(end: &LinkEnd) -> Status {
    let answer = match end {
        LinkEnd::Replaced { name } => Answer::new(Code::Aborted, "REPLACED").about("range", name),
        LinkEnd::UnknownRange { name } => {
            Answer::new(Code::NotFound, "RANGE_NOT_FOUND").about("range", name)
        }
        LinkEnd::Unfit { name, .. } => {
            Answer::new(Code::InvalidArgument, "INVALID_ARGUMENT").about("range", name)
        }
        LinkEnd::HostEnding => Answer::new(Code::Unavailable, "UNAVAILABLE").retry(),
    };
    answer.status(end)
}

/// Converts a failure to the reason why a range has no link.
pub(crate) fn to_link_error(failure: Failure) -> LinkError {
    match failure.status().code() {
        Code::Unimplemented => LinkError::Unsupported(failure.into()),
        Code::NotFound | Code::PermissionDenied | Code::InvalidArgument | Code::Aborted
            if failure.was_answered() =>
        {
            LinkError::Refused(failure.into())
        }
        _ => LinkError::Broken(failure.into()),
    }
}

fn digest_of(error: &BlobError) -> Digest {
    match error {
        BlobError::NotFound { digest }
        | BlobError::OffsetBeyondEnd { digest, .. }
        | BlobError::SizeMismatch { digest, .. }
        | BlobError::DigestMismatch { expected: digest, .. }
        | BlobError::LeaseLost { digest }
        | BlobError::NoSpace { digest, .. }
        | BlobError::Storage { digest, .. }
        | BlobError::Unavailable { digest, .. } => *digest,
    }
}

/// Machine-readable reason of a status; empty if a peer of another protocol sent it.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    info.map(|info| info.reason).unwrap_or_default()
}

fn metadata(status: &Status) -> HashMap<String, String> {
    status.get_details_error_info().map(|info| info.metadata).unwrap_or_default()
}

/// True if a retry may help and the other side decided nothing.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::ResourceExhausted => is_busy(status),
        // Made here, not sent: the connection broke beneath the call.
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

/// True if the other side is at its limit and will serve the request in turn.
pub(crate) fn is_busy(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && reason(status) == "BUSY"
}

/// True if the lease shown is no longer known.
pub(crate) fn is_lease_lost(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && reason(status) == "LEASE_LOST"
}

/// Converts a failure to a blob error. A code unrelated to blobs becomes an unavailable source.
pub(crate) fn to_blob_error(digest: Digest, failure: Failure) -> BlobError {
    let fields = metadata(failure.status());
    let failure = failure.beneath(fields.get("cause"));
    let number = |key: &str| fields.get(key).and_then(|text| text.parse().ok());
    match (failure.status().code(), reason(failure.status()).as_str()) {
        (Code::NotFound, _) => BlobError::NotFound { digest },
        (Code::FailedPrecondition, "LEASE_LOST") => BlobError::LeaseLost { digest },
        (Code::OutOfRange, _) => match (number("size"), number("offset")) {
            (Some(size), Some(offset)) => BlobError::OffsetBeyondEnd { digest, size, offset },
            _ => BlobError::unavailable(digest, failure),
        },
        (Code::DataLoss, "SIZE_MISMATCH") => match (number("expected"), number("actual")) {
            (Some(expected), Some(actual)) => BlobError::SizeMismatch { digest, expected, actual },
            _ => BlobError::unavailable(digest, failure),
        },
        (Code::DataLoss, "DIGEST_MISMATCH") => {
            match fields.get("actual").and_then(|text| text.parse().ok()) {
                Some(actual) => BlobError::DigestMismatch { expected: digest, actual },
                None => BlobError::unavailable(digest, failure),
            }
        }
        (Code::Internal, "NO_SPACE") => match (number("need"), number("free")) {
            (Some(need), Some(free)) => {
                let path = fields.get("path").cloned().unwrap_or_default();
                BlobError::NoSpace { digest, path, need, free }
            }
            _ => BlobError::unavailable(digest, failure),
        },
        (Code::Internal, "STORAGE") => BlobError::Storage {
            digest,
            path: fields.get("path").cloned().unwrap_or_default(),
            source: std::io::Error::other(failure),
        },
        _ => BlobError::unavailable(digest, failure),
    }
}

/// Converts a failure to an image error; `image` is the requested image.
pub(crate) fn to_source_error(image: &str, failure: Failure) -> SourceError {
    let fields = metadata(failure.status());
    let failure = failure.beneath(fields.get("cause"));
    let digest = fields.get("digest").and_then(|text| text.parse().ok());
    let image = image.to_owned();
    match (failure.status().code(), reason(failure.status()).as_str(), digest) {
        (Code::NotFound, ..) => SourceError::NotFound { image },
        (_, "IMAGE_MALFORMED", _) => {
            let reason = fields.get("reason").cloned();
            let reason = reason.unwrap_or_else(|| failure.status().message().to_owned());
            SourceError::Malformed { image, reason }
        }
        (_, "IMAGE_CHANGED", Some(digest)) => {
            SourceError::Export { image, source: BlobError::NotFound { digest } }
        }
        (_, _, Some(digest)) if fields.contains_key("export") => {
            SourceError::Export { image, source: to_blob_error(digest, failure) }
        }
        _ => SourceError::unavailable(image, failure),
    }
}

/// A status as a part of an answer.
pub(crate) fn to_message(status: &Status) -> tonic_types::Status {
    // The details are such a message already, with code and text.
    match tonic_types::Status::decode(status.details()) {
        Ok(message) if message.code == status.code() as i32 => message,
        _ => tonic_types::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}

/// A status that came as a part of an answer.
pub(crate) fn from_message(message: tonic_types::Status) -> Status {
    let code = Code::from_i32(message.code);
    let details = message.encode_to_vec().into();
    Status::with_details(code, message.message, details)
}
