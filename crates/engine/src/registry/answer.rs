//! Answers: a status, the specification's headers, and a body that holds itself back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use transfer::{BlobError, BlobStream, Digest};

use super::Refusal;
use super::request::{Bounds, Page, Route};
use super::shelf::{Blob, Content, Document, Shelf};

/// How long whoever has the images may take for a document. A host that learns an image only by
/// exporting it may take longer; it goes on with that, and the client's next attempt finds it done.
const DOCUMENT_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// Says that this is a registry, to clients that ask.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);
/// The digest of what a body has.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";

pub(super) type Body = UnsyncBoxBody<Bytes, BlobError>;
type Answer = Response<Body>;

/// Answers one request. `streams` bounds the blobs that are read at once: who comes when all are
/// taken waits for its turn.
pub(super) async fn answer(
    shelf: &dyn Shelf,
    streams: &Arc<Semaphore>,
    request: Request<Incoming>,
) -> Answer {
    let answer = match given(shelf, streams, &request).await {
        Ok(answer) => answer,
        Err(refusal) => refused(&refusal),
    };
    tracing::debug!(
        method = %request.method(), path = request.uri().path(), status = answer.status().as_u16(),
        "answered"
    );
    answer
}

async fn given(
    shelf: &dyn Shelf,
    streams: &Arc<Semaphore>,
    request: &Request<Incoming>,
) -> Result<Answer, Refusal> {
    let uri = request.uri();
    let head = request.method() == Method::HEAD;
    // The path first: what no client may ask for in any way should not be called read-only.
    let route = Route::parse(uri.path(), uri.query());
    if !head && request.method() != Method::GET || !request.body().is_end_stream() {
        return Err(Refusal::ReadOnly);
    }
    match route? {
        Route::Base => Ok(document(head, JSON, None, Bytes::from_static(b"{}"))),
        Route::Manifest(repository, name) => {
            let Document { descriptor, bytes } =
                in_time(shelf.manifest(&repository, &name)).await?;
            let media_type = descriptor.media_type.as_str();
            Ok(document(head, media_type, Some(&descriptor.digest), bytes))
        }
        Route::Tags(repository, page) => {
            let tags = in_time(shelf.tags(&repository)).await?;
            Ok(list(head, uri.path(), &tags, &page))
        }
        Route::Blob(repository, digest) => {
            let blob = in_time(shelf.blob(&repository, &digest)).await?;
            give(head, streams, request, blob).await
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::time::timeout(DOCUMENT_DEADLINE, asked).await.unwrap_or_else(|_| {
        let seconds = DOCUMENT_DEADLINE.as_secs();
        Err(Refusal::Unavailable(format!("the host did not answer within {seconds} s")))
    })
}

/// A blob or a piece of it.
async fn give(
    head: bool,
    streams: &Arc<Semaphore>,
    request: &Request<Incoming>,
    blob: Blob,
) -> Result<Answer, Refusal> {
    let Blob { digest, size, content } = blob;
    // A range of what is not given means nothing.
    let bounds = if head { Bounds::Whole } else { Bounds::parse(request.headers(), size) };
    let (start, end) = match bounds {
        Bounds::Whole => (0, size),
        Bounds::Part(start, end) => (start, end),
        Bounds::BeyondEnd => return Err(Refusal::BeyondEnd(size)),
    };
    let length = end - start;
    let body = match content {
        _ if head => full(Bytes::new()),
        Content::Here(bytes) => {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            full(bytes.slice(place(start)..place(end)))
        }
        Content::From(source) => {
            let turn = streams.clone().acquire_owned().await;
            let turn = turn.expect("invariant: the semaphore is never closed");
            let stream = source.open(&digest, start).await?;
            // The client drops bytes that are wrong, and says nothing of it.
            let pieces = pieces(stream, digest, length, turn).inspect_err(move |error| {
                if error.wrong_blob().is_some() {
                    source.doubt(&digest);
                }
            });
            StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
        }
    };
    let mut answer = with_length(body, OCTETS, length);
    let headers = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DIGEST, text(&digest.to_string()));
    if matches!(bounds, Bounds::Part(..)) {
        let range = format!("bytes {start}-{}/{size}", end - 1);
        headers.insert(header::CONTENT_RANGE, text(&range));
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(answer)
}

/// The first `length` bytes of a blob's stream. One that ends before them ends badly, so that no
/// client takes it for the whole.
fn pieces(
    stream: BlobStream,
    digest: Digest,
    length: u64,
    turn: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = Result<Bytes, BlobError>> + Send {
    stream::try_unfold((stream, length, turn), move |(mut stream, left, turn)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut frame) = stream.next().await.transpose()? else {
            let actual = length - left;
            return Err(BlobError::SizeMismatch { digest, expected: length, actual });
        };
        if let Ok(most) = usize::try_from(left) {
            frame.truncate(most);
        }
        let left = left - frame.len() as u64;
        Ok(Some((frame, (stream, left, turn))))
    })
}

/// A list of tags, or the page of it that was asked for, with the way to the next.
fn list(head: bool, path: &str, tags: &[String], page: &Page) -> Answer {
    #[derive(Serialize)]
    struct Tags<'a> {
        name: &'a str,
        tags: &'a [String],
    }
    let name = path.trim_start_matches("/v2/").trim_end_matches("/tags/list");
    let from = page.last.as_ref().map_or(0, |last| tags.partition_point(|tag| tag <= last));
    let rest = &tags[from..];
    let shown = &rest[..page.limit.unwrap_or(rest.len()).min(rest.len())];
    let body = serde_json::to_vec(&Tags { name, tags: shown });
    let body = body.expect("invariant: texts always serialize").into();
    let mut answer = document(head, JSON, None, body);
    if let (Some(limit), Some(last)) =
        (page.limit, shown.last().filter(|_| shown.len() < rest.len()))
    {
        let link = format!("<{path}?n={limit}&last={last}>; rel=\"next\"");
        answer.headers_mut().insert(header::LINK, text(&link));
    }
    answer
}

fn document(head: bool, media_type: &str, digest: Option<&Digest>, bytes: Bytes) -> Answer {
    let length = bytes.len() as u64;
    let body = full(if head { Bytes::new() } else { bytes });
    let mut answer = with_length(body, media_type, length);
    if let Some(digest) = digest {
        answer.headers_mut().insert(CONTENT_DIGEST, text(&digest.to_string()));
    }
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let document = refusal.document();
    let length = document.len() as u64;
    let mut answer = with_length(full(document), JSON, length);
    *answer.status_mut() = refusal.status();
    let headers = answer.headers_mut();
    match refusal {
        Refusal::ReadOnly => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            // What comes in the body is not read, so nothing can follow it.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Refusal::BeyondEnd(size) => {
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes */{size}")));
        }
        _ => {}
    }
    answer
}

fn with_length(body: Body, media_type: &str, length: u64) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    let (name, version) = API_VERSION;
    headers.insert(name, version);
    headers.insert(header::CONTENT_TYPE, text(media_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A media type that no header can carry is none: a document may say anything.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(OCTETS))
}
