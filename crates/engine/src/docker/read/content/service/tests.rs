//! The client against a content service inside the test process, an honest one and others.

use std::collections::HashMap;
use std::sync::Arc;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::service::service_fn;
use prost::Message as _;
use tokio::net::UnixListener;
use transfer::fixture::{contract, drain};

use super::*;

/// How a service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// The last byte never comes.
    Short,
    /// A byte comes more than there is.
    Long,
    /// The bytes are turned over.
    Wrong,
    /// Every call ends with this status.
    Refuses(u8),
    /// A message says to be larger than memory.
    Huge,
    /// The size of every blob is told as below nothing.
    Negative,
}

type Blobs = Arc<HashMap<String, Bytes>>;

/// A service at a socket; it ends with the folder and the task.
fn serve(manner: Manner) -> (tempfile::TempDir, Service, AbortOnDropHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("containerd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let blobs = contract::blobs();
    let blobs = blobs.into_iter().map(|blob| (Digest::of(&blob).to_string(), blob)).collect();
    let blobs: Blobs = Arc::new(blobs);
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let blobs = blobs.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| answer(request, blobs.clone(), manner));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (folder, Service::Containerd(path), AbortOnDropHandle::new(server))
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>>;

async fn answer(
    request: Request<Incoming>,
    blobs: Blobs,
    manner: Manner,
) -> Result<Answer, hyper::Error> {
    assert_eq!(request.headers()["containerd-namespace"], NAMESPACE);
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let message = body.slice(5..);
    let (messages, status) = match (path.as_str(), manner) {
        (_, Manner::Refuses(status)) => (Vec::new(), status),
        (INFO, _) => {
            let wanted = InfoRequest::decode(message).unwrap().digest;
            match blobs.get(&wanted) {
                Some(blob) => {
                    let size = i64::try_from(blob.len()).unwrap();
                    let size = if manner == Manner::Negative { -1 } else { size };
                    (vec![InfoResponse { info: Some(Info { size }) }.encode_to_vec()], 0)
                }
                None => (Vec::new(), 5),
            }
        }
        (READ, _) => (pieces(&ReadContentRequest::decode(message).unwrap(), &blobs, manner), 0),
        _ => (Vec::new(), 12),
    };
    let mut frames: Vec<_> = messages.iter().map(|message| Frame::data(framed(message))).collect();
    if manner == Manner::Huge {
        frames.push(Frame::data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.to_string().parse().unwrap());
    frames.push(Frame::trailers(trailers));
    let body = StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync();
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(body).unwrap())
}

fn framed(message: &[u8]) -> Bytes {
    let size = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &size[..], message].concat().into()
}

/// The bytes that were asked for, in messages that are larger than our frames.
fn pieces(asked: &ReadContentRequest, blobs: &Blobs, manner: Manner) -> Vec<Vec<u8>> {
    let at = usize::try_from(asked.offset).unwrap();
    let end = at + usize::try_from(asked.size).unwrap();
    let mut bytes = blobs[&asked.digest][at..end].to_vec();
    match manner {
        Manner::Short => drop(bytes.pop()),
        Manner::Long => bytes.push(0),
        Manner::Wrong => bytes.iter_mut().for_each(|byte| *byte = !*byte),
        _ => {}
    }
    let pieces = bytes.chunks(MAX_FRAME + 1000);
    pieces
        .map(|piece| ReadContentResponse { data: Bytes::copy_from_slice(piece) }.encode_to_vec())
        .collect()
}

#[tokio::test]
async fn a_content_service_is_a_source() {
    let (_folder, service, _server) = serve(Manner::Honest);
    service.probe().await.unwrap();
    contract::source(&service, &contract::blobs()).await;
}

#[tokio::test]
async fn what_a_service_gets_wrong_never_ends_well() {
    let blob = contract::blobs().pop().unwrap();
    let digest = Digest::of(&blob);
    for manner in [Manner::Short, Manner::Long, Manner::Wrong, Manner::Huge] {
        let (_folder, service, _server) = serve(manner);
        let opened = service.open(&digest, 0).await;
        let end = match opened {
            Ok(stream) => drain(stream).await.1,
            Err(error) => Err(error),
        };
        match (manner, end.unwrap_err()) {
            (Manner::Short | Manner::Long, BlobError::SizeMismatch { .. })
            | (Manner::Wrong, BlobError::DigestMismatch { .. })
            | (Manner::Huge, BlobError::Unavailable { .. }) => {}
            (manner, error) => panic!("{manner:?}: {error:?}"),
        }
        // From a later byte the length still shows.
        if manner == Manner::Short || manner == Manner::Long {
            let (_, end) = drain(service.open(&digest, 7).await.unwrap()).await;
            assert!(matches!(end, Err(BlobError::SizeMismatch { .. })), "{manner:?}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_service_that_does_not_serve_is_told_from_a_blob_that_is_not_there() {
    let digest = Digest::of(&contract::blobs()[1]);
    for manner in [Manner::Refuses(12), Manner::Refuses(7), Manner::Negative] {
        let (_folder, service, _server) = serve(manner);
        let error = service.stat(&digest).await.unwrap_err();
        assert!(matches!(error, BlobError::Unavailable { .. }), "{manner:?}: {error:?}");
        let probed = service.probe().await;
        assert!(probed.is_err(), "{manner:?}");
    }
    let (_folder, service, _server) = serve(Manner::Refuses(5));
    service.probe().await.unwrap();
    assert_eq!(service.stat(&digest).await.unwrap(), None);
    let nowhere = Service::Containerd("/nonexistent/containerd.sock".into());
    assert!(nowhere.probe().await.is_err());
}
