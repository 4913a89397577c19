//! Reading a blob back: a little ahead of its reader, and hashed only where that was not done yet.
//!
//! ```text
//!   file ─► blocking job: pread into a pooled buffer ─► channel ─► reader
//!            ▲ ends when the channel is full               │        the last frame waits until the
//!            └──────── begins again when there is room ◄───┘        file is known to be right (trust)
//! ```
//! One job reads on as long as its reader keeps up, so a frame costs no hop between threads; a
//! reader that is slow holds no thread, only [`AHEAD`] frames.
//!
//! Where as many streams are read as there are cores, nobody is idle who could read ahead. What
//! another has just read, or the page cache has, is taken in the reader's own turn then
//! ([`Reader::cached`]); what would wait for the disk is left to the job.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZero;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::folder::{Inner, open_file, storage};
use super::recent::Version;
use super::trust::Hashing;
use crate::blob::{BlobError, BlobStream};
use crate::blocking::{blocking, joined};
use crate::digest::Digest;
use crate::file::{fill_at, frame_len};

/// Frames that are read before they are asked for: one that waits, and one being read. Each is
/// memory of every stream; more gained nothing in benches/wire.
const AHEAD: usize = 2;

/// From so many streams on, each reads in its own turn what it need not wait for: one a core, and
/// always two.
static MANY: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get).max(2));

pub(super) async fn open(
    inner: Arc<Inner>,
    digest: Digest,
    offset: u64,
) -> Result<BlobStream, BlobError> {
    let opening = inner.clone();
    let (reader, good) = blocking(move || Reader::open(opening, digest, offset)).await?;
    let (file, size) = (reader.file.clone(), reader.size);
    // Only a whole blob can be verified.
    let unhashed = (offset == 0 && !good).then_some(file);
    let (left, frames) = (size - offset, Ahead::of(reader));
    let reading = Reading { inner, digest, left, unhashed, hashing: None, frames };
    let frames = stream::try_unfold(reading, async |mut reading| {
        Ok(reading.next().await?.map(|frame| (frame, reading)))
    });
    Ok(frames.boxed())
}

/// A stream under way.
struct Reading {
    inner: Arc<Inner>,
    digest: Digest,
    /// Bytes that are still to be handed over.
    left: u64,
    /// The file, if it is still to be hashed; until the first poll, so that who does not read does
    /// not hash.
    unhashed: Option<Arc<File>>,
    /// The job that hashes it.
    hashing: Option<Arc<Hashing>>,
    frames: Ahead,
}

impl Reading {
    /// The next frame; the last one only if the whole blob is right.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if let Some(file) = self.unhashed.take() {
            let path = self.inner.blob(&self.digest);
            let begun = Hashing::of(&self.inner, self.digest, &file);
            self.hashing = Some(begun.map_err(storage(self.digest, &path))?);
        }
        let frame = self.frames.next().await.transpose()?;
        self.left -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
        if frame.is_none() && self.left != 0 {
            let lost = "whoever read its file stopped before the end";
            return Err(BlobError::unavailable(self.digest, lost));
        }
        if self.left == 0
            && let Some(hashing) = self.hashing.take()
        {
            hashing.verdict(&self.inner, self.digest).await?;
        }
        Ok(frame)
    }
}

/// Frames that come a little before they are asked for, from the first poll on.
struct Ahead {
    frames: mpsc::Receiver<Result<Bytes, BlobError>>,
    idle: Option<Job>,
    running: Option<JoinHandle<Option<Job>>>,
}

/// A reader, and the channel for its frames.
struct Job {
    reader: Reader,
    frames: mpsc::Sender<Result<Bytes, BlobError>>,
}

impl Job {
    /// Reads until there is no room for more, or nobody wants any; gives itself back unless it came
    /// to the end.
    fn run(mut self) -> Option<Self> {
        while let Ok(room) = self.frames.try_reserve() {
            let frame = self.reader.next().transpose()?;
            let failed = frame.is_err();
            room.send(frame);
            if failed {
                return None;
            }
        }
        Some(self)
    }
}

impl Ahead {
    fn of(reader: Reader) -> Self {
        let (sender, frames) = mpsc::channel(AHEAD);
        Self { frames, idle: Some(Job { reader, frames: sender }), running: None }
    }

    async fn next(&mut self) -> Option<Result<Bytes, BlobError>> {
        loop {
            if let Some(job) = self.idle.take() {
                match self.at_once(job) {
                    Ok(frame) => return Some(frame),
                    Err(job) => {
                        self.running = Some(tokio::task::spawn_blocking(move || job.run()));
                    }
                }
            }
            let Some(running) = &mut self.running else {
                // Frames read before the end.
                return self.frames.recv().await;
            };
            let paused = match running.is_finished() {
                // There is room again since, or the frame taken next makes it.
                true => joined(running).await,
                false => tokio::select! {
                    biased;
                    frame = self.frames.recv() => return frame,
                    paused = joined(running) => paused,
                },
            };
            (self.running, self.idle) = (None, paused);
        }
    }

    /// The next frame where it need not be waited for and reading ahead is no gain; else gives back
    /// the job, which is to go on.
    fn at_once(&mut self, mut job: Job) -> Result<Result<Bytes, BlobError>, Job> {
        if !job.reader.is_one_of_many() {
            return Err(job);
        }
        let frame = match self.frames.try_recv() {
            Ok(read_before) => Some(read_before),
            Err(_) => job.reader.cached().map(Ok),
        };
        match frame {
            Some(frame) => {
                self.idle = Some(job);
                Ok(frame)
            }
            None => Err(job),
        }
    }
}

/// A blob's file, read from front to back.
struct Reader {
    inner: Arc<Inner>,
    file: Arc<File>,
    version: Version,
    size: u64,
    offset: u64,
}

impl Reader {
    /// Opens a blob, notes that it is read now, and says whether its file is known to be right.
    fn open(inner: Arc<Inner>, digest: Digest, offset: u64) -> Result<(Self, bool), BlobError> {
        let path = inner.blob(&digest);
        let (file, size) = match open_file(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound { digest });
            }
            Err(error) => return Err(storage(digest, &path)(error)),
        };
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        let touched = inner.trust.touch(&digest, &file);
        let (good, round) = touched.map_err(storage(digest, &path))?;
        // Twice the read-ahead; a file system that knows no advice reads all the same.
        let _advised = fadvise(&file, 0, None, Advice::Sequential);
        let version = Version { digest, round };
        inner.recent.begin(version);
        Ok((Self { inner, file: Arc::new(file), version, size, offset }, good))
    }

    /// Length of the next frame; 0 at the end.
    fn next_len(&self) -> usize {
        frame_len(self.size - self.offset)
    }

    /// Whether there are at least as many readers as cores.
    fn is_one_of_many(&self) -> bool {
        *MANY <= self.inner.recent.readers()
    }

    /// The next frame, where it is in memory already; `None` where it is not, or not whole: a short
    /// one would hold a whole buffer. [`next`](Self::next) says why.
    fn cached(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.shared() {
            return Some(frame);
        }
        let len = self.next_len();
        let read = |room: &mut [u8]| -> Result<usize, Errno> {
            let mut room = [IoSliceMut::new(room)];
            preadv2(&self.file, &mut room, self.offset, ReadWriteFlags::NOWAIT)
        };
        let frame = self.inner.pool.frame(len, read).ok();
        let frame = frame.filter(|frame| 0 < len && frame.len() == len)?;
        Some(self.passed(frame))
    }

    /// The next frame, as another has read it.
    fn shared(&mut self) -> Option<Bytes> {
        let frame = self.inner.recent.get(self.version, self.offset);
        let frame = frame.filter(|frame| frame.len() == self.next_len())?;
        self.offset += frame.len() as u64;
        Some(frame)
    }

    /// A frame that was read here, for others too; the next one comes behind it.
    fn passed(&mut self, frame: Bytes) -> Bytes {
        self.inner.recent.put(self.version, self.offset, &frame);
        self.offset += frame.len() as u64;
        frame
    }

    /// The next frame, until all were read.
    fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        let Self { version: Version { digest, .. }, size, offset, .. } = *self;
        let len = self.next_len();
        if len == 0 {
            return Ok(None);
        }
        if let Some(frame) = self.shared() {
            return Ok(Some(frame));
        }
        let frame = self.inner.pool.frame(len, |room| fill_at(&self.file, offset, room));
        let frame = frame.map_err(|e| storage(digest, &self.inner.blob(&digest))(e))?;
        if frame.is_empty() {
            // The file was cut while we read it.
            self.inner.quarantine_if_same(&digest, &self.file);
            return Err(BlobError::SizeMismatch { digest, expected: size, actual: offset });
        }
        Ok(Some(self.passed(frame)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inner.recent.end(self.version);
    }
}
