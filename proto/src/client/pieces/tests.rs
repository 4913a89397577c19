//! A sender that breaks the protocol is found out, and what it says of itself is believed.

use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use transfer::fixture::bytes;

use super::*;
use crate::convert::status::{is_transient, reason};
use crate::raw;

type Script = Vec<Result<Frame<Bytes>, Status>>;

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(bytes.into()))
}

fn head(size: u64, encoding: Encoding) -> Result<Frame<Bytes>, Status> {
    data(raw::head(size, encoding))
}

fn plain(size: u64) -> Result<Frame<Bytes>, Status> {
    head(size, Encoding::Unspecified)
}

fn message(payload: Bytes) -> Result<Frame<Bytes>, Status> {
    let (message, rest) = raw::message(payload);
    data([&message[..], &rest.unwrap_or_default()[..]].concat())
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    Ok(Frame::trailers(trailers))
}

fn well() -> Result<Frame<Bytes>, Status> {
    trailers(&Status::ok(""))
}

/// Size, frames and end of what a body says.
async fn read(script: Script) -> Result<(u64, Vec<Bytes>), Status> {
    let body = Body::new(StreamBody::new(stream::iter(script)));
    let mut pieces = Pieces::new(body, Arc::default());
    let size = pieces.begin().await?;
    let mut frames = Vec::new();
    while let Some(frame) = pieces.next().await? {
        frames.push(frame);
    }
    Ok((size, frames))
}

#[tokio::test]
async fn a_stream_is_its_size_and_its_frames() {
    let blob = bytes(1, MAX_FRAME);
    let script = vec![plain(1 << 20), message(blob.clone()), message(blob.slice(..1)), well()];
    let (size, frames) = read(script).await.unwrap();
    assert_eq!((size, frames), (1 << 20, vec![blob.clone(), blob.slice(..1)]));
    assert_eq!(read(vec![plain(0), well()]).await.unwrap(), (0, vec![]));
}

#[tokio::test]
async fn data_that_comes_along_with_the_size_is_not_lost() {
    // data, then blob_size: in the order of their numbers, as generated code writes them.
    let first = [0, 0, 0, 0, 6, 0x0a, 2, b'h', b'i', 0x10, 3];
    let whole = vec![data(first.to_vec()), message(Bytes::from_static(b"!")), well()];
    let cut = first.iter().map(|byte| data(vec![*byte]));
    let cut = cut.chain([message(Bytes::from_static(b"!")), well()]).collect();
    for script in [whole, cut] {
        let (size, frames) = read(script).await.unwrap();
        assert_eq!((size, frames.concat()), (3, b"hi!".to_vec()));
    }
}

#[tokio::test]
async fn compressed_frames_come_out_as_they_were() {
    let frames = [bytes(1, MAX_FRAME), Bytes::from(vec![0; MAX_FRAME]), Bytes::from_static(b"x")];
    let mut script = vec![head(9, Encoding::Zstd)];
    for frame in &frames {
        script.push(message(zstd::bulk::compress(frame, 1).unwrap().into()));
    }
    script.push(well());
    assert_eq!(read(script).await.unwrap().1, frames);
}

#[tokio::test]
async fn a_sender_that_breaks_the_protocol_is_not_asked_again() {
    let large = bytes(1, MAX_FRAME + 1);
    let bomb = zstd::bulk::compress(&vec![0; MAX_FRAME + 1], 1).unwrap();
    let empty = zstd::bulk::compress(&[], 1).unwrap();
    let hostile: Vec<(&str, Script)> = vec![
        ("no message", vec![well()]),
        ("no size", vec![message(Bytes::from_static(b"a")), well()]),
        ("two sizes", vec![plain(1), plain(1), well()]),
        ("an encoding too late", vec![plain(1), head(1, Encoding::Zstd), well()]),
        ("an empty message", vec![plain(1), data(&[0; 5][..]), well()]),
        ("a frame too large", vec![plain(1), message(large), well()]),
        ("half a message", vec![plain(1), data(&[0, 0, 0, 0, 9, 0x0a][..]), well()]),
        ("a compressed message", vec![plain(1), data(&[1, 0, 0, 0, 1, 0][..]), well()]),
        ("no message of gRPC", vec![data(&b"<html>"[..]), well()]),
        ("a bomb", vec![head(1, Encoding::Zstd), message(bomb.into()), well()]),
        ("no zstd", vec![head(1, Encoding::Zstd), message(Bytes::from_static(b"a")), well()]),
    ];
    for (what, script) in hostile {
        let error = read(script).await.expect_err(what);
        assert!(!is_transient(&error), "{what} would be asked for again: {error:?}");
    }
    // Says nothing, and does no harm: the whole blob is counted and verified.
    let script = vec![head(1, Encoding::Zstd), message(empty.into()), well()];
    assert_eq!(read(script).await.unwrap(), (1, vec![]));
}

#[tokio::test]
async fn a_stream_that_ends_without_a_status_broke() {
    let cut = vec![plain(9), message(Bytes::from_static(b"a"))];
    let nothing_said = vec![plain(9), Ok(Frame::trailers(HeaderMap::new()))];
    for script in [cut, nothing_said, vec![]] {
        let error = read(script).await.unwrap_err();
        assert!(is_transient(&error), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_sender_arrives_with_its_details() {
    let sent = crate::convert::status::from_blob_error(&transfer::BlobError::LeaseLost {
        digest: transfer::Digest::of(b"blob"),
    });
    let begun = vec![plain(9), message(Bytes::from_static(b"a")), trailers(&sent)];
    let within_a_message = vec![plain(9), data(&[0, 0, 0][..]), trailers(&sent)];
    for script in [begun, within_a_message, vec![trailers(&sent)]] {
        let error = read(script).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (sent.code(), "LEASE_LOST"));
        assert_eq!(error.message(), sent.message());
    }
}
