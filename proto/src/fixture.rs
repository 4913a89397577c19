//! `ReadBlob` as the generated code speaks it, with no setting at all: what our own ends are tested
//! with and measured against.

use std::io;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use transfer::{BlobError, BlobSource, BlobStream, Digest};

use crate::channel::Endpoint;
use crate::convert::blob::{self, Wanted};
use crate::convert::status::{from_blob_error, to_blob_error};
use crate::failure::Failure;
use crate::wire::generated as pb;
use crate::wire::generated::blob_service_server::BlobService;
use crate::wire::{BlobClient, BlobServer, Encoding};
use control::lending::Loan;

/// Serves every blob of `blobs` to any caller, under any lease, until `end`.
///
/// # Errors
/// That tonic gave up.
pub async fn serve<I>(
    incoming: impl Stream<Item = io::Result<I>>,
    blobs: Arc<dyn BlobSource>,
    end: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    I: AsyncRead
        + AsyncWrite
        + Connected<ConnectInfo: Clone + Send + Sync>
        + Unpin
        + Send
        + 'static,
{
    tonic::transport::Server::builder()
        .add_service(BlobServer::new(Generated { blobs }))
        .serve_with_incoming_shutdown(incoming, end.cancelled_owned())
        .await
}

/// Reads a blob from the server at `endpoint`. Nothing is verified.
///
/// # Errors
/// As [`BlobSource::open`].
pub async fn read(
    endpoint: &Endpoint,
    loan: Loan,
    digest: Digest,
    offset: u64,
) -> Result<BlobStream, BlobError> {
    let name = endpoint.to_string();
    let failed = move |status| to_blob_error(digest, Failure::new(&name, status));
    let wanted = blob::read_wanted(&Wanted { loan, digest, offset, link: None });
    let mut client = BlobClient::new(endpoint.plain_channel());
    let messages = client.read_blob(wanted).await.map_err(&failed)?.into_inner();
    let data = messages.map(move |message| message.map(|it| it.data).map_err(&failed));
    Ok(data
        .filter(|data| futures::future::ready(!matches!(data, Ok(data) if data.is_empty())))
        .boxed())
}

struct Generated {
    blobs: Arc<dyn BlobSource>,
}

#[tonic::async_trait]
impl BlobService for Generated {
    type ReadBlobStream = BoxStream<'static, Result<pb::ReadBlobResponse, Status>>;

    async fn stat_blobs(
        &self,
        _: Request<pb::StatBlobsRequest>,
    ) -> Result<Response<pb::StatBlobsResponse>, Status> {
        Err(Status::unimplemented("only ReadBlob is compared"))
    }

    async fn read_blob(
        &self,
        request: Request<pb::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        let Wanted { digest, offset, .. } = blob::read_request(request.into_inner())?;
        let failed = |error| from_blob_error(&error);
        let size = self.blobs.stat(&digest).await.map_err(failed)?;
        let size = size.ok_or_else(|| from_blob_error(&BlobError::NotFound { digest }))?;
        let frames = self.blobs.open(&digest, offset).await.map_err(failed)?;
        let data = frames.map(move |frame| frame.map(blob::piece).map_err(failed));
        let head = futures::stream::iter([Ok(blob::head(size, Encoding::Unspecified))]);
        Ok(Response::new(head.chain(data).boxed()))
    }
}
