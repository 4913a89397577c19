//! A reader that takes nothing loses its stream, and everything that the stream held.
//!
//! ```text
//!              a piece is asked for
//!   waiting ─────────────────────────► a piece comes about
//!     │  ▲                                      │
//!     │  └──────────── it is given ─────────────┘
//!     └─ PROGRESS_TIMEOUT ─► late
//! ```
//! Nobody polls a stream while its reader is slow, so a task beside it looks at the clock. It is
//! only the time between two pieces that counts, not that which a piece takes to come about; and
//! after the last of them, that for which bytes are still on their way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::piece::{Piece, Pieces};
use crate::speed::Speed;
use crate::wire::PROGRESS_TIMEOUT;

/// Looks at the clock until it is dropped.
#[derive(Debug)]
pub(super) struct Watch(
    #[expect(dead_code, reason = "dropping it is what it is for")] AbortOnDropHandle<()>,
);

/// Passes the pieces on for as long as their reader takes one within [`PROGRESS_TIMEOUT`]. Also
/// returns the watch over that, to be held while any piece exists. `link` learns how long each
/// piece waited for the next request. An error is the last item.
///
/// A reader that is late loses what is left of the pieces, and `late` takes back those that it was
/// given and did not take: these are not here any more.
pub(super) fn watched(
    pieces: Pieces,
    link: Arc<Speed>,
    late: impl FnOnce() + Send + 'static,
) -> (Pieces, Watch) {
    let begun = Waiting { since: Instant::now(), len: 0 };
    let state = Arc::new(Mutex::new(State { pieces: Some(pieces), waiting: Some(begun) }));
    let guard = tokio::spawn(guard(state.clone(), late));
    let watched = Watched { state, link, is_over: false };
    (watched.boxed(), Watch(AbortOnDropHandle::new(guard)))
}

struct Watched {
    state: Arc<Mutex<State>>,
    link: Arc<Speed>,
    /// True once the end was reported.
    is_over: bool,
}

struct State {
    /// None when they ended, or were taken away.
    pieces: Option<Pieces>,
    /// Wait for the reader; `None` while a piece is being produced.
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
async fn guard(state: Arc<Mutex<State>>, late: impl FnOnce()) {
    while let Some(until) = next_look(&state) {
        sleep_until(until).await;
    }
    late();
}

/// Time of the next look; `None` once the reader is late and the pieces were taken away.
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
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut state = locked(&this.state);
        let Some(pieces) = &mut state.pieces else {
            this.is_over = true;
            let late = Status::deadline_exceeded("the reader took nothing for too long");
            return Poll::Ready(Some(Err(late)));
        };
        let polled = pieces.poll_next_unpin(context);
        if let Some(waiting) = state.waiting.take() {
            this.link.note(waiting.len, waiting.since.elapsed());
        }
        let piece = ready!(polled);
        let len = piece.iter().flatten().map(Piece::len).sum();
        state.waiting = Some(Waiting { since: Instant::now(), len });
        if !matches!(piece, Some(Ok(_))) {
            this.is_over = true;
            state.pieces = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The watch may live on, and nobody asks for these any more.
        let left = locked(&self.state).pieces.take();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::wire::Encoding;

    fn pieces(count: u64) -> Pieces {
        let head = |size| Ok(Piece::Head(size, Encoding::Unspecified));
        futures::stream::iter((0..count).map(head)).boxed()
    }

    /// The pieces, their watch, and whether their reader was late.
    fn watch(pieces: Pieces) -> (Pieces, Watch, Arc<AtomicBool>) {
        let was_late = Arc::new(AtomicBool::default());
        let late = was_late.clone();
        let late = move || late.store(true, Ordering::Relaxed);
        let (pieces, watch) = watched(pieces, Arc::default(), late);
        (pieces, watch, was_late)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let (mut watched, _watch, was_late) = watch(pieces(10));
        let mut seen = 0;
        while let Some(piece) = watched.next().await {
            assert!(matches!(piece, Ok(Piece::Head(size, _)) if size == seen), "{piece:?}");
            seen += 1;
            tokio::time::sleep(PROGRESS_TIMEOUT / 2).await;
        }
        assert_eq!(seen, 10);
        assert!(!was_late.load(Ordering::Relaxed));
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
        let (mut watched, _watch, was_late) = watch(stream.boxed());
        assert!(watched.next().await.unwrap().is_ok());
        tokio::time::sleep(PROGRESS_TIMEOUT * 2).await;
        assert_eq!(Arc::strong_count(&held), 1, "the stream is still held");
        assert!(was_late.load(Ordering::Relaxed), "nobody was told");
        let rest: Vec<_> = watched.collect().await;
        let error = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_has_all_is_late_only_while_bytes_are_on_their_way() {
        for on_their_way in [true, false] {
            let (watched, watch, was_late) = watch(pieces(3));
            assert_eq!(watched.count().await, 3);
            let kept = on_their_way.then_some(watch);
            tokio::time::sleep(PROGRESS_TIMEOUT * 2).await;
            assert_eq!(was_late.load(Ordering::Relaxed), on_their_way);
            drop(kept);
        }
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let broken = pieces(1).chain(futures::stream::iter([Err(Status::data_loss("bad"))]));
        let (watched, ..) = watch(broken.chain(pieces(1)).boxed());
        let seen: Vec<_> = watched.collect().await;
        assert_eq!(seen.len(), 2);
        assert!(seen[1].is_err());
    }
}
