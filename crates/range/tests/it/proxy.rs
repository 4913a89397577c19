//! A Unix socket before another: counts what passes, slows it down, and cuts it off.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Bytes passed on in one piece: the greatest error in the moment of a kill or a cut.
const PIECE: usize = 32 << 10;

/// A listener whose connections lead to another socket. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    back: PathBuf,
    /// Total bytes from `back` to the caller.
    moved: watch::Sender<u64>,
    /// Number of times that all connections were cut.
    cuts: watch::Sender<u64>,
    /// Bytes a second, over all connections; 0 for as fast as they come.
    rate: AtomicU64,
    /// Time at which the next piece may pass.
    free: Mutex<Instant>,
}

impl Proxy {
    /// Listens at `front` for callers of `back`, which need not be there yet.
    pub(crate) fn start(front: &Path, back: &Path) -> Self {
        let listener = UnixListener::bind(front).unwrap();
        let shared = Arc::new(Shared {
            back: back.to_owned(),
            moved: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            rate: AtomicU64::new(0),
            free: Mutex::new(Instant::now()),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { shared, task }
    }

    /// Lets no more than so many bytes a second pass to callers.
    pub(crate) fn throttle(&self, bytes_a_second: u64) {
        self.shared.rate.store(bytes_a_second, Ordering::Relaxed);
    }

    /// Bytes that callers have got so far.
    pub(crate) fn moved(&self) -> u64 {
        *self.shared.moved.borrow()
    }

    /// Waits until callers have got so many bytes.
    pub(crate) async fn reached(&self, bytes: u64) {
        let mut moved = self.shared.moved.subscribe();
        moved.wait_for(|moved| bytes <= *moved).await.expect("invariant: the sender is ours");
    }

    /// Ends every connection there is.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((front, _)) = accepted else { return };
                connections.spawn(connect(front, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until both ends are done or it is cut; then both are closed.
async fn connect(front: UnixStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    // A caller sees at once that nobody is there.
    let Ok(back) = UnixStream::connect(&shared.back).await else { return };
    let (from_front, to_front) = front.into_split();
    let (from_back, to_back) = back.into_split();
    let both = async {
        tokio::join!(pass(from_front, to_back, None), pass(from_back, to_front, Some(&shared)));
    };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {}
    }
}

/// Passes bytes on until an end, which it passes on too; counted where there is a count.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counted: Option<&Shared>) {
    let mut piece = vec![0; PIECE];
    loop {
        let size = match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(size) => size,
        };
        if let Some(shared) = counted {
            shared.wait(size as u64).await;
            shared.moved.send_modify(|moved| *moved += size as u64);
        }
        if to.write_all(&piece[..size]).await.is_err() {
            break;
        }
    }
    // A caller that is gone needs no end.
    drop(to.shutdown().await);
}

impl Shared {
    /// Waits until it is the turn of a piece of this size.
    async fn wait(&self, size: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let turn = {
            let mut free = self.free.lock().expect("invariant: no one panics with it");
            let turn = Instant::now().max(*free);
            *free = turn + Duration::from_micros(size * 1_000_000 / rate);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
