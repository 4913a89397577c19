//! The baseline: writes of 1 MiB on a bare socket.
//!
//! The server keeps the whole blob in memory and reads no file while it sends. Safe code cannot send
//! faster; the price is a peak memory of the blob's size.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use transfer::store::FsStore;
use transfer::{BlobSource as _, Hasher, MAX_FRAME};

use super::job::Job;
use super::route::{Receiver, Transport};

const TCP: &str = "http://";
const UNIX: &str = "unix://";

/// A bound socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds a socket; returns it with its address in the form of Longshore's endpoints.
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

/// Loads the frames to send into memory.
pub(super) async fn load(store: &Path, job: &Job) -> anyhow::Result<Vec<Bytes>> {
    let store = FsStore::open(store).await.context("opening the store")?;
    let stream = store.open(&job.digest, job.offset()).await?;
    Ok(stream.try_collect().await?)
}

/// Sends the blob to the first `receivers` connections.
pub(super) async fn serve(
    listener: Listener,
    blob: Vec<Bytes>,
    receivers: u32,
) -> anyhow::Result<()> {
    let (blob, mut sending) = (Arc::new(blob), JoinSet::new());
    for _ in 0..receivers {
        let blob = blob.clone();
        match &listener {
            Listener::Tcp(listener) => sending.spawn(send(listener.accept().await?.0, blob)),
            Listener::Unix(listener) => sending.spawn(send(listener.accept().await?.0, blob)),
        };
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}

/// Receives the blob; returns the number of bytes.
pub(super) async fn fetch(from: &str, job: &Job) -> anyhow::Result<u64> {
    match from.strip_prefix(UNIX) {
        Some(path) => receive(UnixStream::connect(path).await?, job).await,
        None => receive(TcpStream::connect(from.trim_start_matches(TCP)).await?, job).await,
    }
}

async fn send(mut socket: impl AsyncWrite + Unpin, blob: Arc<Vec<Bytes>>) -> anyhow::Result<()> {
    for frame in blob.iter() {
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
    ensure!(seen == job.expected(), "received {seen} of {} bytes", job.expected());
    if job.route.receiver == Receiver::Verifies {
        ensure!(hasher.digest() == job.digest, "received bytes do not match digest {}", job.digest);
    }
    Ok(seen)
}
