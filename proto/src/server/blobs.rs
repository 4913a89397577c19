//! `BlobService` over a library: blobs as streams of messages, as fast as their reader takes them.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::convert::blob;
use crate::convert::status::{from_blob_error, from_read_error};
use crate::identity::Caller;
use crate::library::Library;
use crate::wire::PROGRESS_TIMEOUT;
use crate::wire::generated as pb;
use crate::wire::generated::blob_service_server::BlobService;

/// Messages read ahead of the network: one being sent, one waiting. Each holds a frame.
const READ_AHEAD: usize = 2;

pub(super) struct Blobs {
    pub(super) caller: Caller,
    pub(super) library: Arc<Library>,
}

type Message = Result<pb::ReadBlobResponse, Status>;

#[tonic::async_trait]
impl BlobService for Blobs {
    type ReadBlobStream = BoxStream<'static, Message>;

    async fn stat_blobs(
        &self,
        request: Request<pb::StatBlobsRequest>,
    ) -> Result<Response<pb::StatBlobsResponse>, Status> {
        let (loan, digests) = blob::stat_request(request.into_inner())?;
        let mut sizes = Vec::with_capacity(digests.len());
        for digest in digests {
            let size = self.library.stat(&self.caller, &loan, &digest).await;
            sizes.push((digest, size.map_err(|error| from_blob_error(&error))?));
        }
        Ok(Response::new(blob::stat_response(&sizes)))
    }

    async fn read_blob(
        &self,
        request: Request<pb::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        let (loan, digest, offset) = blob::read_request(request.into_inner())?;
        let opened = self.library.open(&self.caller, &loan, &digest, offset).await;
        let (size, frames) = opened.map_err(|error| from_read_error(&error))?;
        let pieces = frames.map(|frame| match frame {
            Ok(frame) => Ok(blob::piece(frame)),
            Err(error) => Err(from_blob_error(&error)),
        });
        let head = futures::stream::iter([Ok(blob::head(size))]);
        Ok(Response::new(paced(head.chain(pieces).boxed())))
    }
}

/// The same messages, read a little ahead; a reader that takes none for [`PROGRESS_TIMEOUT`] loses
/// its stream, and what the stream held.
///
/// The pump is a task of its own since a body is not polled while its reader is slow; it ends with
/// the stream that it fills.
fn paced(mut messages: BoxStream<'static, Message>) -> BoxStream<'static, Message> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let pump = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let is_last = message.is_err();
            match sender.send_timeout(message, PROGRESS_TIMEOUT).await {
                Ok(()) if !is_last => {}
                _ => return is_last,
            }
        }
        true
    }));
    let tail = async move {
        // The channel is closed: either all was sent, or the pump lost its patience.
        match pump.await {
            Ok(true) => None,
            _ => Some(Err(Status::deadline_exceeded("the reader took nothing for too long"))),
        }
    };
    let tail = futures::stream::once(tail).filter_map(futures::future::ready);
    ReceiverStream::new(receiver).chain(tail).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(count: u64) -> BoxStream<'static, Message> {
        futures::stream::iter((0..count).map(|n| Ok(blob::head(n)))).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let mut paced = paced(messages(10));
        let mut seen = 0;
        while let Some(message) = paced.next().await {
            assert_eq!(message.unwrap().blob_size, Some(seen));
            seen += 1;
            tokio::time::sleep(PROGRESS_TIMEOUT / 2).await;
        }
        assert_eq!(seen, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_stream() {
        let held = Arc::new(());
        let stream = messages(100).map({
            let held = held.clone();
            move |message| {
                let _held = &held;
                message
            }
        });
        let mut paced = paced(stream.boxed());
        assert!(paced.next().await.unwrap().is_ok());
        tokio::time::sleep(PROGRESS_TIMEOUT * 2).await;
        assert_eq!(Arc::strong_count(&held), 1, "the stream is still held");
        let rest: Vec<Message> = paced.collect().await;
        let error = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let broken = messages(1).chain(futures::stream::iter([Err(Status::data_loss("bad"))]));
        let seen: Vec<Message> = paced(broken.chain(messages(1)).boxed()).collect().await;
        assert_eq!(seen.len(), 2);
        assert!(seen[1].is_err());
    }
}
