//! A reader that takes nothing loses its stream, and what the stream held.
//!
//! Nobody polls a stream while its reader is slow, so a task beside it looks at the clock. It is
//! only the time between two pieces that counts, not that which a piece takes to come about.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::blobs::{Piece, Pieces};
use crate::speed::Speed;
use crate::wire::PROGRESS_TIMEOUT;

/// The same pieces for as long as their reader takes one within [`PROGRESS_TIMEOUT`]. `link` learns
/// how long pieces had to wait for the next to be asked for. An error is the last of them.
pub(super) fn watched(pieces: Pieces, link: Arc<Speed>) -> Pieces {
    let begun = Waiting { since: Instant::now(), len: 0 };
    let watched = Arc::new(Mutex::new(State { pieces: Some(pieces), waiting: Some(begun) }));
    let guard = AbortOnDropHandle::new(tokio::spawn(guard(watched.clone())));
    Watched { state: watched, link, _guard: guard }.boxed()
}

struct Watched {
    state: Arc<Mutex<State>>,
    link: Arc<Speed>,
    _guard: AbortOnDropHandle<()>,
}

struct State {
    /// None when they ended, or were taken away.
    pieces: Option<Pieces>,
    /// For the reader to ask for more; none while a piece comes about, and after the end.
    waiting: Option<Waiting>,
}

struct Waiting {
    since: Instant,
    /// Bytes of the piece that was given before.
    len: usize,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the pieces away once the reader has waited too long.
async fn guard(state: Arc<Mutex<State>>) {
    while let Some(until) = next_look(&state) {
        sleep_until(until).await;
    }
}

/// When to look again; `None` once the pieces were taken away.
fn next_look(state: &Mutex<State>) -> Option<Instant> {
    let now = Instant::now();
    // Looked at and taken under one lock: a reader that comes in between would wait for ever.
    let mut state = locked(state);
    let since = state.waiting.as_ref().map_or(now, |waiting| waiting.since);
    let until = since + PROGRESS_TIMEOUT;
    if now < until {
        return Some(until);
    }
    let late = state.pieces.take();
    // After the lock: what they hold may be a lot.
    drop(state);
    drop(late);
    None
}

impl Stream for Watched {
    type Item = Result<Piece, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = locked(&self.state);
        let Some(pieces) = &mut state.pieces else {
            let late = || Err(Status::deadline_exceeded("the reader took nothing for too long"));
            return Poll::Ready(state.waiting.take().map(|_| late()));
        };
        let polled = pieces.poll_next_unpin(context);
        if let Some(waiting) = state.waiting.take() {
            self.link.note(waiting.len, waiting.since.elapsed());
        }
        let piece = ready!(polled);
        match &piece {
            Some(Ok(piece)) => {
                state.waiting = Some(Waiting { since: Instant::now(), len: piece.len() });
            }
            Some(Err(_)) | None => state.pieces = None,
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Encoding;

    fn pieces(count: u64) -> Pieces {
        let head = |size| Ok(Piece::Head(size, Encoding::Unspecified));
        futures::stream::iter((0..count).map(head)).boxed()
    }

    fn watch(pieces: Pieces) -> Pieces {
        watched(pieces, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let mut watched = watch(pieces(10));
        let mut seen = 0;
        while let Some(piece) = watched.next().await {
            assert!(matches!(piece, Ok(Piece::Head(size, _)) if size == seen), "{piece:?}");
            seen += 1;
            tokio::time::sleep(PROGRESS_TIMEOUT / 2).await;
        }
        assert_eq!(seen, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_stream() {
        let held = Arc::new(());
        let stream = pieces(100).map({
            let held = held.clone();
            move |piece| {
                let _held = &held;
                piece
            }
        });
        let mut watched = watch(stream.boxed());
        assert!(watched.next().await.unwrap().is_ok());
        tokio::time::sleep(PROGRESS_TIMEOUT * 2).await;
        assert_eq!(Arc::strong_count(&held), 1, "the stream is still held");
        let rest: Vec<_> = watched.collect().await;
        let error = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let broken = pieces(1).chain(futures::stream::iter([Err(Status::data_loss("bad"))]));
        let seen: Vec<_> = watch(broken.chain(pieces(1)).boxed()).collect().await;
        assert_eq!(seen.len(), 2);
        assert!(seen[1].is_err());
    }
}
