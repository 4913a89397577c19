//! Our ends and generated code in every pairing, and what a stream holds in memory.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use transfer::fixture::{MemorySource, bytes, descriptor_of, drain};
use transfer::store::Leases;
use transfer::{BlobError, DiffId, Digest, Image, LayerForm, MAX_FRAME};

use super::*;
use crate::channel::{Endpoint, Io};
use crate::client::pieces::read_blob;
use crate::convert::blob::{Wanted, read_wanted};
use crate::convert::status::{from_blob_error, reason};
use crate::fixture;
use crate::server::{Caps, Server, Services};
use control::identity::Caller;
use control::lending::{AllImages, ImageName, Library, Loan, Terms};

/// A server of one kind or the other on pipes of `size` bytes, and how to reach it.
struct Served {
    endpoint: Endpoint,
    loan: Loan,
    _server: AbortOnDropHandle<()>,
}

fn image_of(blobs: &[Bytes]) -> (MemorySource, Image) {
    let ids: Vec<_> = blobs.iter().map(|blob| DiffId(Digest::of(blob)).to_string()).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{ids:?}}}}}"#
    );
    let sizes: Vec<_> = blobs.iter().map(|blob| blob.len() as u64).collect();
    let image = Image::from_layers(config.into(), &sizes).unwrap();
    let source = MemorySource::default();
    let layers = blobs.iter().map(|blob| (descriptor_of(blob), blob.clone())).collect();
    source.insert("blobs", (image.clone(), layers));
    (source, image)
}

/// Connections over pipes, their far ends handed to `accepted`.
fn dialler<I: Send + 'static>(
    size: usize,
    accepted: mpsc::Sender<I>,
    wrap: fn(DuplexStream) -> I,
) -> Endpoint {
    Endpoint::dialled("pipe", move || {
        let (near, far) = tokio::io::duplex(size);
        let accepted = accepted.clone();
        async move {
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            accepted.send(wrap(far)).await.map_err(refused)?;
            Ok(Box::new(near) as Box<dyn Io>)
        }
    })
}

async fn raw(blobs: &[Bytes], size: usize) -> Served {
    let (source, image) = image_of(blobs);
    let caller = Caller::Range("a".parse().unwrap());
    let library =
        Library::new(Arc::new(source), Arc::new(AllImages), Leases::default(), Terms::default());
    let name = ImageName::Key(image.config_digest.into());
    let (_, lease) = library.image(&caller, &name, LayerForm::AsStored).await.unwrap();
    let blobs = RawBlobs::new(Blobs::new(caller.clone(), Arc::new(library)));
    let services = Services { caller, routes: Routes::new(blobs) };
    let (accepted, pipes) = mpsc::channel(4);
    let server = Server::on_pipes(pipes, services, Caps::default());
    let server = tokio::spawn(async move { server.run(CancellationToken::new()).await.unwrap() });
    Served {
        endpoint: dialler(size, accepted, |pipe| Box::new(pipe) as Box<dyn Io>),
        loan: Loan { config_digest: image.config_digest, lease_id: lease.id },
        _server: AbortOnDropHandle::new(server),
    }
}

fn generated(blobs: &[Bytes], size: usize) -> Served {
    let (source, image) = image_of(blobs);
    let (accepted, pipes) = mpsc::channel(4);
    let serve = fixture::serve(
        ReceiverStream::new(pipes),
        Arc::new(source.store().clone()),
        CancellationToken::new(),
    );
    let server = tokio::spawn(async move { serve.await.unwrap() });
    Served {
        endpoint: dialler(size, accepted, Ok),
        loan: Loan { config_digest: image.config_digest, lease_id: "any".into() },
        _server: AbortOnDropHandle::new(server),
    }
}

impl Served {
    async fn read_raw(&self, digest: Digest, offset: u64) -> Result<(u64, Vec<u8>), Status> {
        let wanted = Wanted { loan: self.loan.clone(), digest, offset, link: None };
        let channel = self.endpoint.channel();
        let (size, mut pieces) = read_blob(channel, &read_wanted(&wanted), Arc::default()).await?;
        let mut read = Vec::new();
        while let Some(frame) = pieces.next().await? {
            read.extend_from_slice(&frame);
        }
        Ok((size, read))
    }

    async fn read_generated(&self, digest: Digest, offset: u64) -> Result<Vec<u8>, BlobError> {
        let (endpoint, loan) = (&self.endpoint, self.loan.clone());
        let (read, end) = drain(fixture::read(endpoint, loan, digest, offset).await?).await;
        end.map(|()| read)
    }
}

/// Sizes at each boundary: empty, a byte, payloads copied behind their header, a frame, many.
fn blobs() -> Vec<Bytes> {
    let sizes = [
        0,
        1,
        (16 << 10) - 1,
        16 << 10,
        MAX_FRAME - 1,
        MAX_FRAME,
        MAX_FRAME + 1,
        3 * MAX_FRAME + 7,
    ];
    sizes.into_iter().zip(1..).map(|(size, seed)| bytes(seed, size)).collect()
}

async fn check(served: &Served, blobs: &[Bytes]) {
    for blob in blobs {
        let (digest, size) = (Digest::of(blob), blob.len());
        for offset in [0, 1, size / 2, size].map(|offset| offset.min(size)) {
            let at = format!("{size} bytes from {offset}");
            let (whole, read) = served.read_raw(digest, offset as u64).await.unwrap();
            assert_eq!(whole, size as u64, "{at}");
            assert!(read == blob[offset..], "{at}: other bytes came to our client");
            let read = served.read_generated(digest, offset as u64).await.unwrap();
            assert!(read == blob[offset..], "{at}: other bytes came to the generated client");
        }
    }
    let unknown = transfer::fixture::unknown();
    let error = served.read_raw(unknown, 0).await.unwrap_err();
    let expected = from_blob_error(&BlobError::NotFound { digest: unknown });
    assert_eq!((error.code(), error.message()), (expected.code(), expected.message()));
    assert_eq!(reason(&error), "BLOB_NOT_FOUND");
    let error = served.read_generated(unknown, 0).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn both_clients_read_from_our_server() {
    check(&raw(&blobs(), 8191).await, &blobs()).await;
}

#[tokio::test]
async fn both_clients_read_from_a_generated_server() {
    check(&generated(&blobs(), 8191), &blobs()).await;
}

#[tokio::test]
async fn a_pipe_that_splits_every_header_makes_no_difference() {
    let blobs = [0, 1, 63, 64, 65, 10_000].map(|size| bytes(size as u64, size));
    check(&raw(&blobs, 64).await, &blobs).await;
    check(&generated(&blobs, 64), &blobs).await;
}

#[tokio::test]
async fn a_request_that_is_none_is_refused() {
    let served = raw(&blobs(), 8191).await;
    let long = "x".repeat(MAX_REQUEST + 1);
    let mut wanted = read_wanted(&Wanted {
        loan: served.loan.clone(),
        digest: Digest::of(b""),
        offset: 0,
        link: None,
    });
    for (lease_id, code) in
        [(long.as_str(), tonic::Code::OutOfRange), ("", tonic::Code::InvalidArgument)]
    {
        wanted.lease_id = lease_id.into();
        let read = read_blob(served.endpoint.channel(), &wanted, Arc::default()).await;
        let error = read.map(|(size, _)| size).unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
    }
}
