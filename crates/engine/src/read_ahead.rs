//! Frames made ahead of their reader, some at a time, and handed over in order.
//!
//! ```text
//!            ┌─► job ─► fill ─┐
//!   plan ────┼─► job ─► fill ─┼──► in order ──► reader
//!            └─► job ─► fill ─┘
//!   what comes next          on threads that may wait for a disk
//! ```
//! So a disk has several reads to do at once, and whoever hashes or sends a frame does not wait for
//! the next one. Nothing is read before the first frame is asked for, and never more than
//! [`AHEAD`] frames are ahead of a reader; of a reader that stands still, nothing runs.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::AbortOnDropHandle;
use transfer::blocking::joined;
use transfer::frame::Pool;
use transfer::{BlobError, BlobStream};

/// Most frames that are made or ready ahead of one reader.
///
/// Two are enough for files in the page cache; a disk of its own gains up to here.
pub(crate) const AHEAD: usize = 4;

/// Frames ahead of all readers of this process together, besides one for each: bounds memory however
/// many there are, and lets none wait for another.
const SPARE: usize = 16;

/// Buffers that are kept for the next frame: as many as two readers use.
const KEPT: usize = 2 * AHEAD;

static SPARE_FRAMES: Semaphore = Semaphore::const_new(SPARE);
static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(KEPT));

/// Plans a blob, frame by frame.
pub(crate) trait Plan: Send + 'static {
    /// One frame to be.
    type Job: Job;

    /// The next frame; `None` at the blob's end. Not called again after that, or after an error.
    fn next(&mut self) -> Result<Option<Self::Job>, BlobError>;
}

/// A planned frame, with everything that filling it needs.
pub(crate) trait Job: Send + 'static {
    /// Number of bytes that it will have.
    fn len(&self) -> usize;

    /// Writes the frame into a buffer of that many bytes. Returns how many there were.
    fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError>;
}

/// The frames of `plan`. Ends with the first error.
pub(crate) fn frames<P: Plan>(plan: P) -> BlobStream {
    let ahead =
        Ahead { planner: Planner::Resting(plan), jobs: VecDeque::new(), filling: VecDeque::new() };
    stream::try_unfold(ahead, async |mut ahead| Ok(ahead.next().await?.map(|frame| (frame, ahead))))
        .boxed()
}

struct Ahead<P: Plan> {
    planner: Planner<P>,
    /// Planned, and not begun.
    jobs: VecDeque<P::Job>,
    /// Begun, the next one first.
    filling: VecDeque<Filling>,
}

enum Planner<P: Plan> {
    Resting(P),
    Planning(AbortOnDropHandle<(P, Planned<P::Job>)>),
    /// Nothing follows but this.
    Ended(Result<(), BlobError>),
}

/// Jobs in order, and how it ends after them if it does.
struct Planned<J> {
    jobs: Vec<J>,
    end: Option<Result<(), BlobError>>,
}

struct Filling {
    frame: AbortOnDropHandle<Result<Bytes, BlobError>>,
    /// Absent for the frame that the reader waits for.
    _spare: Option<SemaphorePermit<'static>>,
}

impl<P: Plan> Ahead<P> {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            self.begin();
            if let Some(first) = self.filling.pop_front() {
                let frame = joined(first.frame).await?;
                // Before the reader is busy with this one.
                self.begin();
                return Ok(Some(frame));
            }
            match std::mem::replace(&mut self.planner, Planner::Ended(Ok(()))) {
                Planner::Planning(planning) => {
                    let (plan, planned) = joined(planning).await;
                    self.take(plan, planned);
                }
                Planner::Ended(end) => return end.map(|()| None),
                resting @ Planner::Resting(_) => self.planner = resting,
            }
        }
    }

    /// Begins all that may be under way now.
    fn begin(&mut self) {
        self.harvest();
        while self.filling.len() < AHEAD {
            let spare = match self.filling.is_empty() {
                true => None,
                false => match SPARE_FRAMES.try_acquire() {
                    Ok(spare) => Some(spare),
                    Err(_) => break,
                },
            };
            let Some(job) = self.jobs.pop_front() else { break };
            let fill = move || POOL.frame(job.len(), |buffer| job.fill(buffer));
            let frame = AbortOnDropHandle::new(tokio::task::spawn_blocking(fill));
            self.filling.push_back(Filling { frame, _spare: spare });
        }
        if self.jobs.is_empty() {
            self.plan();
        }
    }

    fn plan(&mut self) {
        self.planner = match std::mem::replace(&mut self.planner, Planner::Ended(Ok(()))) {
            Planner::Resting(mut plan) => {
                let work = move || {
                    let planned = some(&mut plan);
                    (plan, planned)
                };
                let planning = tokio::task::spawn_blocking(work);
                Planner::Planning(AbortOnDropHandle::new(planning))
            }
            planner => planner,
        };
    }

    /// Takes what was planned, if it was.
    fn harvest(&mut self) {
        let Planner::Planning(planning) = &mut self.planner else { return };
        if planning.is_finished()
            && let Some(Ok((plan, planned))) = planning.now_or_never()
        {
            self.take(plan, planned);
        }
    }

    fn take(&mut self, plan: P, planned: Planned<P::Job>) {
        self.jobs.extend(planned.jobs);
        self.planner = match planned.end {
            None => Planner::Resting(plan),
            Some(end) => Planner::Ended(end),
        };
    }
}

/// Jobs for all that may be under way at once.
fn some<P: Plan>(plan: &mut P) -> Planned<P::Job> {
    let mut jobs = Vec::with_capacity(AHEAD);
    while jobs.len() < AHEAD {
        match plan.next() {
            Ok(Some(job)) => jobs.push(job),
            Ok(None) => return Planned { jobs, end: Some(Ok(())) },
            Err(error) => return Planned { jobs, end: Some(Err(error)) },
        }
    }
    Planned { jobs, end: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::TryStreamExt as _;
    use transfer::Digest;

    use super::*;

    /// A blob of `frames` frames of one byte, its number; after them comes `end`.
    struct Count {
        at: usize,
        frames: usize,
        end: Option<BlobError>,
        filled: Arc<AtomicUsize>,
    }

    struct One {
        number: usize,
        filled: Arc<AtomicUsize>,
    }

    impl Plan for Count {
        type Job = One;

        fn next(&mut self) -> Result<Option<One>, BlobError> {
            if self.at == self.frames {
                return self.end.take().map_or(Ok(None), Err);
            }
            self.at += 1;
            Ok(Some(One { number: self.at - 1, filled: self.filled.clone() }))
        }
    }

    impl Job for One {
        fn len(&self) -> usize {
            1
        }

        fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError> {
            // Late ones overtake: every fourth frame is the slowest.
            std::thread::sleep(Duration::from_millis(4 - self.number as u64 % 4));
            self.filled.fetch_add(1, Ordering::Relaxed);
            buffer[0] = u8::try_from(self.number).unwrap();
            match self.number {
                99 => Err(broken()),
                _ => Ok(1),
            }
        }
    }

    fn broken() -> BlobError {
        BlobError::unavailable(Digest::of(b"counted"), "broken")
    }

    fn count(frames: usize, end: Option<BlobError>) -> (BlobStream, Arc<AtomicUsize>) {
        let filled = Arc::new(AtomicUsize::new(0));
        (super::frames(Count { at: 0, frames, end, filled: filled.clone() }), filled)
    }

    #[tokio::test]
    async fn frames_come_in_order_however_long_each_takes() {
        for frames in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 10 * AHEAD] {
            let read: Vec<Bytes> = count(frames, None).0.try_collect().await.unwrap();
            let read: Vec<usize> = read.iter().map(|frame| usize::from(frame[0])).collect();
            assert_eq!(read, (0..frames).collect::<Vec<_>>(), "{frames}");
        }
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_before_it_and_is_the_last() {
        // Of the plan, and of a frame.
        for (frames, end, good) in [(6, Some(broken()), 6), (120, None, 99)] {
            let (mut stream, _) = count(frames, end);
            for number in 0..good {
                let frame = stream.try_next().await.unwrap().unwrap();
                assert_eq!(usize::from(frame[0]), number);
            }
            let error = stream.try_next().await.unwrap_err();
            assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn nothing_runs_unasked_and_little_runs_ahead() {
        let (mut stream, filled) = count(90, None);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(filled.load(Ordering::Relaxed), 0);
        stream.try_next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(filled.load(Ordering::Relaxed) <= 1 + AHEAD, "{filled:?}");
    }

    #[tokio::test]
    async fn readers_that_stand_still_hold_nobody_back() {
        let mut still: Vec<_> = (0..SPARE).map(|_| count(50, None).0).collect();
        for stream in &mut still {
            stream.try_next().await.unwrap().unwrap();
        }
        let read: Vec<Bytes> = count(50, None).0.try_collect().await.unwrap();
        assert_eq!(read.len(), 50);
    }
}
