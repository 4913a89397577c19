//! The same RPC through tonic's generated code with default settings.
//!
//! It uses the same file stores at both ends, so only the wire differs.

use std::sync::Arc;

use control::lending::Loan;
use futures::stream;
use proto::fixture;
use tokio_util::sync::CancellationToken;
use transfer::store::FsStore;
use transfer::verify::verify;
use transfer::{BlobStore as _, ConfigDigest};

use super::job::Job;
use super::route::Receiver;
use super::{grpc, raw};

/// Serves until `end`.
pub(super) async fn serve(
    listener: raw::Listener,
    store: FsStore,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let store = Arc::new(store);
    match listener {
        raw::Listener::Tcp(listener) => {
            let incoming = stream::unfold(listener, async |listener| {
                Some((listener.accept().await.map(|(socket, _)| socket), listener))
            });
            fixture::serve(incoming, store, end).await?;
        }
        raw::Listener::Unix(listener) => {
            let incoming = stream::unfold(listener, async |listener| {
                Some((listener.accept().await.map(|(socket, _)| socket), listener))
            });
            fixture::serve(incoming, store, end).await?;
        }
    }
    Ok(())
}

/// Receives the blob, verified if the route says so. Returns the number of bytes.
pub(super) async fn fetch(from: &str, job: &Job, kept: Option<FsStore>) -> anyhow::Result<u64> {
    let loan = Loan { config_digest: ConfigDigest(job.digest), lease_id: "any".into() };
    let stream = fixture::read(&from.parse()?, loan, job.digest, job.offset()).await?;
    let stream = match job.route.receiver {
        Receiver::Verifies => verify(stream, &job.blob()),
        // The ingest hashes a stored blob.
        Receiver::Stores | Receiver::Discards => stream,
    };
    let ingest = match &kept {
        Some(store) => Some(store.ingest_of(&job.blob()).await?),
        None => None,
    };
    grpc::take(stream, ingest, job).await
}
