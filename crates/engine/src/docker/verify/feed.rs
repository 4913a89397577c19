//! A stream of the engine, read by code that waits: on a thread of its own, as fast as it goes.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf as _, Bytes};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// How a reader tells that the stream itself broke, from what its content may be wrong with.
pub(super) const BROKEN: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// What the reading thread reads from.
pub(super) struct Fed {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    read: Arc<AtomicU64>,
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    return Err(io::Error::new(BROKEN, transfer::explain(&error)));
                }
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Has `work` read `stream`: what it came to, the bytes that it read, and whether the stream broke.
///
/// Dropping the future ends the stream, and with it the work.
pub(super) async fn feed<T: Send + 'static>(
    mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin,
    work: impl FnOnce(Fed) -> T + Send + 'static,
) -> (T, u64, bool) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let read = Arc::new(AtomicU64::new(0));
    let broken = AtomicBool::new(false);
    let fed = Fed { pieces, piece: Bytes::new(), read: read.clone() };
    let working = tokio::task::spawn_blocking(move || work(fed));
    let feeding = async {
        while let Some(piece) = stream.next().await {
            broken.fetch_or(piece.is_err(), Ordering::Relaxed);
            if sender.send(piece).await.is_err() {
                // It has read enough.
                break;
            }
        }
        drop(sender);
    };
    let ((), done) = tokio::join!(feeding, working);
    let done = done.expect("invariant: reading an archive does not panic");
    (done, read.load(Ordering::Relaxed), broken.load(Ordering::Relaxed))
}
