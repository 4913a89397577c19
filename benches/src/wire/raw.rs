//! The baseline: bytes in writes of 1 MiB on a bare socket, nothing around them.
//!
//! The server holds the whole blob in memory, so that no file is read while it sends: the fastest
//! sender that safe code can be, and why its peak memory is that of the blob.

use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use transfer::store::FsStore;
use transfer::{BlobSource as _, Digest, Hasher, MAX_FRAME};

use super::peer::Job;
use super::route::{Receiver, Transport};

const TCP: &str = "http://";
const UNIX: &str = "unix://";

/// A bound socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds a socket; its address in the form of our own endpoints.
pub(super) async fn listen(
    transport: Transport,
    socket: &Path,
) -> anyhow::Result<(Listener, String)> {
    match transport {
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("binding loopback")?;
            let endpoint = format!("{TCP}{}", listener.local_addr()?);
            Ok((Listener::Tcp(listener), endpoint))
        }
        Transport::Unix => {
            let endpoint = format!("{UNIX}{}", socket.display());
            let listener = UnixListener::bind(socket).context(endpoint.clone())?;
            Ok((Listener::Unix(listener), endpoint))
        }
    }
}

/// The blob's frames, in memory.
pub(super) async fn load(store: &Path, digest: &Digest) -> anyhow::Result<Vec<Bytes>> {
    let store = FsStore::open(store).await.context("opening the store")?;
    let stream = store.open(digest, 0).await?;
    Ok(stream.try_collect().await?)
}

/// Sends the blob to the first who connects.
pub(super) async fn serve(listener: Listener, blob: Vec<Bytes>) -> anyhow::Result<()> {
    match listener {
        Listener::Tcp(listener) => send(listener.accept().await?.0, &blob).await,
        Listener::Unix(listener) => send(listener.accept().await?.0, &blob).await,
    }
}

/// Takes the blob, and says how many bytes came.
pub(super) async fn fetch(from: &str, job: &Job) -> anyhow::Result<u64> {
    match from.strip_prefix(UNIX) {
        Some(path) => receive(UnixStream::connect(path).await?, job).await,
        None => receive(TcpStream::connect(from.trim_start_matches(TCP)).await?, job).await,
    }
}

async fn send(mut socket: impl AsyncWrite + Unpin, blob: &[Bytes]) -> anyhow::Result<()> {
    for frame in blob {
        socket.write_all(frame).await?;
    }
    Ok(socket.shutdown().await?)
}

async fn receive(mut socket: impl AsyncRead + Unpin, job: &Job) -> anyhow::Result<u64> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; MAX_FRAME];
    let mut seen = 0;
    loop {
        let len = socket.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        seen += len as u64;
        if job.route.receiver == Receiver::Verifies {
            hasher.update(&buffer[..len]);
        }
    }
    ensure!(seen == job.size, "{seen} of {} bytes came", job.size);
    if job.route.receiver == Receiver::Verifies {
        ensure!(hasher.digest() == job.digest, "other bytes came than were sent");
    }
    Ok(seen)
}
