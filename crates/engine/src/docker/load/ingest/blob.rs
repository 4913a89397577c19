//! A blob into containerd's content store: from where an earlier ingest stopped, and committed under
//! its digest or not at all.
//!
//! ```text
//!   ─► STAT ◄─ offset ─► WRITE, WRITE, … ─► COMMIT(digest, size, labels)
//!        └► it is there: held by our lease, and done
//! ```
//! containerd hashes what it takes, and what was there before when it goes on in mid-blob, and commits
//! nothing that is not what its name says: nobody hashes it here besides, until it refuses a commit.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;
use transfer::{BlobError, BlobSource, BlobStream, Descriptor, Digest};

use super::api::{self, Labels, WriteAction, WriteRequest, WriteResponse};
use super::client::{Containerd, Fault};
use super::error::IngestError;
use super::lease::Lease;
use crate::docker::load::watch::Progress;
use crate::docker::read::content::Line;

/// How long somebody else may be writing the same blob: the process before us, whose end containerd
/// has not noticed yet.
const MAX_LOCKED: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Messages between the source and the connection: one that is sent, one that is being read.
const QUEUE: usize = 2;

/// containerd's content store, and the lease under which it is written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) containerd: &'a Containerd,
    pub(super) lease: &'a Lease,
    pub(super) progress: &'a Progress,
}

/// An ingest that containerd has opened.
struct Opened {
    /// Where it goes on.
    offset: u64,
    sender: mpsc::Sender<WriteRequest>,
    answers: tonic::Streaming<WriteResponse>,
    _line: Line,
}

impl Content<'_> {
    /// Whether a blob is there.
    pub(super) async fn has(containerd: &Containerd, digest: &Digest) -> Result<bool, Fault> {
        let request = api::InfoRequest { digest: digest.to_string() };
        match containerd.tell(api::INFO, None, request).await {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(Code::NotFound) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Takes a document in, with labels that it has afterwards even when it was there before.
    pub(super) async fn keep(
        &self,
        document: &Descriptor,
        bytes: &Bytes,
        labels: Labels,
    ) -> Result<(), IngestError> {
        let Some(opened) = self.open(document).await? else {
            return Ok(self.label(&document.digest, labels).await?);
        };
        let mut commit = message(WriteAction::Commit, document, 0);
        (commit.data, commit.labels) = (bytes.clone(), labels);
        self.finish(opened, commit).await
    }

    /// Takes a layer in, reading what is not there yet from `blobs`; without these it has to be
    /// there.
    pub(super) async fn fetch(
        &self,
        layer: &Descriptor,
        blobs: Option<&dyn BlobSource>,
        labels: &Labels,
    ) -> Result<(), IngestError> {
        let Some(opened) = self.open(layer).await? else { return Ok(()) };
        let Some(blobs) = blobs else { return Err(IngestError::Gone(layer.digest)) };
        let offset = opened.offset;
        let read = blobs.open_unverified(&layer.digest, offset);
        match self.receive(opened, layer, read, labels).await {
            // Its beginning is from another time, or the source was mistaken. Verified, the one is
            // told from the other.
            Err(error) if error.is_about_bytes() => {
                tracing::info!(blob.digest = %layer.digest, offset, %error, "beginning again");
                blobs.doubt(&layer.digest);
                let Some(opened) = self.open(layer).await? else { return Ok(()) };
                let read = blobs.open(&layer.digest, opened.offset);
                self.receive(opened, layer, read, labels).await
            }
            received => received,
        }
    }

    /// Sets labels of a blob that is there.
    pub(super) async fn label(&self, digest: &Digest, labels: Labels) -> Result<(), Fault> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let request = api::UpdateRequest {
            info: Some(api::Info { digest: digest.to_string(), labels }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        self.containerd.tell(api::UPDATE, None, request).await
    }

    /// Opens the ingest of a blob; `None` when the blob is there, and then our lease holds it.
    async fn open(&self, blob: &Descriptor) -> Result<Option<Opened>, IngestError> {
        let since = Instant::now();
        loop {
            match self.try_open(blob).await {
                Err(fault) if fault.code() == Some(Code::AlreadyExists) => return Ok(None),
                Err(fault) if is_locked(&fault) && since.elapsed() < MAX_LOCKED => {
                    sleep(LOCK_INTERVAL).await;
                }
                // More than the blob has: some other end.
                Ok(opened) if blob.size < opened.offset => {
                    drop(opened);
                    self.abort(blob).await?;
                }
                opened => return Ok(Some(opened?)),
            }
        }
    }

    async fn try_open(&self, blob: &Descriptor) -> Result<Opened, Fault> {
        let mut line = self.containerd.dial(api::WRITE).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let first = message(WriteAction::Stat, blob, 0);
        sender.try_send(first).expect("invariant: a new queue has room");
        let lease = self.lease.id().await?;
        let request = self.containerd.request(ReceiverStream::new(receiver), Some(&lease));
        let path = PathAndQuery::from_static(api::WRITE);
        let answers = line.grpc.streaming(request, path, ProstCodec::default()).await;
        let mut answers = answers.map_err(|status| self.fault(&status))?.into_inner();
        let first = next(self, &mut answers).await?;
        let offset = u64::try_from(first.offset).unwrap_or_default();
        Ok(Opened { offset, sender, answers, _line: line })
    }

    /// Takes the rest of a blob into an ingest as it is `read` from the source, and commits it.
    async fn receive(
        &self,
        opened: Opened,
        layer: &Descriptor,
        read: impl Future<Output = Result<BlobStream, BlobError>>,
        labels: &Labels,
    ) -> Result<(), IngestError> {
        let Opened { offset, sender, mut answers, _line } = opened;
        let pump = async {
            let mut at = offset;
            let mut frames = read.await?;
            while let Some(frame) = frames.next().await.transpose()? {
                let mut write = message(WriteAction::Write, layer, at);
                at += frame.len() as u64;
                write.data = frame;
                if sender.send(write).await.is_err() {
                    // The call has ended, and its answer tells why.
                    return Ok(());
                }
                self.progress.made();
            }
            let mut commit = message(WriteAction::Commit, layer, at);
            commit.labels = labels.clone();
            let _ended = sender.send(commit).await;
            drop(sender);
            Ok::<_, IngestError>(())
        };
        let taken = async { Ok(self.committed(&mut answers).await?) };
        let received = tokio::try_join!(pump, taken).map(drop);
        match received {
            Err(IngestError::Way(fault)) if fault.code() == Some(Code::AlreadyExists) => Ok(()),
            Err(error) if error.is_about_bytes() => {
                drop((answers, _line));
                self.abort(layer).await?;
                Err(error)
            }
            received => received,
        }
    }

    /// Sends the last message of an ingest, and waits for the answer.
    async fn finish(&self, opened: Opened, commit: WriteRequest) -> Result<(), IngestError> {
        let Opened { sender, mut answers, _line, .. } = opened;
        let _ended = sender.send(commit).await;
        drop(sender);
        match self.committed(&mut answers).await {
            Err(fault) if fault.code() == Some(Code::AlreadyExists) => Ok(()),
            committed => Ok(committed?),
        }
    }

    /// Hears answers until the one to the commit.
    async fn committed(&self, answers: &mut tonic::Streaming<WriteResponse>) -> Result<(), Fault> {
        loop {
            let answer = next(self, answers).await?;
            self.progress.made();
            if answer.action == WriteAction::Commit as i32 {
                return Ok(());
            }
        }
    }

    /// Removes the ingest of a blob. containerd may still be closing the call that wrote to it, so an
    /// ingest that is locked or being written to is tried again.
    async fn abort(&self, blob: &Descriptor) -> Result<(), Fault> {
        let since = Instant::now();
        loop {
            let request = api::AbortRequest { reference: reference(blob) };
            match self.containerd.tell(api::ABORT, None, request).await {
                Err(fault) if fault.code() == Some(Code::NotFound) => return Ok(()),
                Err(fault) if is_in_use(&fault) && since.elapsed() < MAX_LOCKED => {
                    sleep(LOCK_INTERVAL).await;
                }
                aborted => return aborted,
            }
        }
    }

    fn fault(&self, status: &tonic::Status) -> Fault {
        self.containerd.fault(api::WRITE, status)
    }
}

/// The next answer of an ingest. Only its commit ends it.
async fn next(
    content: &Content<'_>,
    answers: &mut tonic::Streaming<WriteResponse>,
) -> Result<WriteResponse, Fault> {
    let answer = answers.message().await.map_err(|status| content.fault(&status))?;
    answer.ok_or_else(|| content.containerd.line(api::WRITE, "it ended before the commit"))
}

/// What an ingest is called: by the blob alone, so that whoever comes after a kill finds it.
fn reference(blob: &Descriptor) -> String {
    format!("longshore-{}", blob.digest)
}

fn message(action: WriteAction, blob: &Descriptor, offset: u64) -> WriteRequest {
    WriteRequest {
        action: action as i32,
        reference: reference(blob),
        total: api::signed(blob.size),
        expected: blob.digest.to_string(),
        offset: api::signed(offset),
        data: Bytes::new(),
        labels: Labels::new(),
    }
}

/// True if an ingest cannot be removed yet: a call still holds it, or wrote to its folder while
/// containerd removed it (`Content/Abort` holds no lock, and answers with the error of `unlinkat`).
fn is_in_use(fault: &Fault) -> bool {
    let is_refilled = |message: &str| message.contains("directory not empty");
    is_locked(fault) || matches!(fault, Fault::Answer { message, .. } if is_refilled(message))
}

/// Whether somebody else is writing the blob.
fn is_locked(fault: &Fault) -> bool {
    matches!(fault, Fault::Answer { code: Code::Unavailable, message, .. } if message.contains("locked"))
}

impl IngestError {
    /// Whether the bytes are not those of the blob: then what came of them is of no use.
    fn is_about_bytes(&self) -> bool {
        match self {
            Self::Source(error) => matches!(
                error,
                BlobError::DigestMismatch { .. }
                    | BlobError::SizeMismatch { .. }
                    | BlobError::OffsetBeyondEnd { .. }
            ),
            Self::Way(fault) => fault.code() == Some(Code::FailedPrecondition),
            Self::Gone(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingest_in_use_is_told_from_one_that_cannot_be_removed() {
        let fault =
            |code, message: &str| Fault::Answer { call: "Abort", code, message: message.into() };
        let ingest = "/var/lib/containerd/io.containerd.content.v1.content/ingest/cf24";
        let refilled = format!("unlinkat {ingest}: directory not empty");
        assert!(is_in_use(&fault(Code::Unknown, &refilled)));
        assert!(is_in_use(&fault(Code::Unavailable, "ref longshore-sha256:0a locked for 5ms")));
        assert!(!is_in_use(&fault(
            Code::Unknown,
            &format!("unlinkat {ingest}: read-only file system")
        )));
        assert!(!is_in_use(&fault(Code::NotFound, "no such ingest")));
    }
}
