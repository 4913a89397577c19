//! Taking a blob in: written and hashed behind its caller, handed to those who follow as soon as it
//! is verified, and kept once it is on the disk.
//!
//! ```text
//!   write(frame) ─► tail: frames not yet in the file ─► (1 MiB gathered) ─┬► blocking write
//!                      ▲                                                  └► blocking hash
//!   read_at ───────────┴── file: everything before the tail ◄── written      verify ◄─┘
//!                                                        └─► flushed from time to time ─► commit
//! ```
//! At most one piece is written and hashed, at the same time, while the next one gathers: so an
//! ingest holds about two pieces in memory, goes as fast as the slower of hash and disk, and a slow
//! disk holds its writer back. What a stream verified on its way here is not hashed again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::TempPath;
use tokio::task::JoinHandle;

use super::admission::admit;
use super::arrivals::Ticket;
use super::folder::{Inner, StoreError, storage, sync_folder};
use super::trust::stamp;
use crate::blob::{BlobError, Ingest, MAX_FRAME, Written};
use crate::blocking::{blocking, joined};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::file::{FileState, fill_at};
use crate::frame::Pool;
use crate::store::check_expected;

/// Frames are gathered to pieces of this size before they are written: one hop to a blocking thread
/// for each, so smaller ones cost throughput and larger ones memory.
const PIECE: usize = MAX_FRAME;

/// Bytes of disk that are asked for at once: the file system then looks for room once, and not for
/// each page. Never more than was let in.
const ALLOCATED: u64 = 256 << 20;

/// Bytes after which a flush begins: so the commit has no more than a few times this to flush.
const FLUSHED: u64 = 64 << 20;

/// The party that hashes the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hashed {
    /// The stream that it comes from.
    Before,
    /// The ingest.
    Here,
}

struct FsIngest {
    inner: Arc<Inner>,
    /// Absent where the stream verified itself.
    hash: Option<Arc<Mutex<Hash>>>,
    size: u64,
    file: Arc<PartFile>,
    /// Frames of the tail that are not being written yet, and their bytes together.
    gathered: (Vec<Bytes>, usize),
    writing: Option<JoinHandle<io::Result<()>>>,
    hashing: Option<JoinHandle<()>>,
    flushing: Option<JoinHandle<()>>,
    /// Removes the file unless it was committed.
    temporary: TempPath,
    ticket: Ticket,
}

/// The hash of an ingest's pieces.
#[derive(Default)]
struct Hash {
    hasher: Hasher,
    /// Pieces that are still to be hashed.
    behind: Vec<Bytes>,
}

impl Hash {
    fn catch_up(&mut self) -> &Hasher {
        for frame in self.behind.drain(..) {
            self.hasher.update(&frame);
        }
        &self.hasher
    }
}

fn lock(hash: &Mutex<Hash>) -> MutexGuard<'_, Hash> {
    hash.lock().expect("no holder of this lock panics")
}

/// The file of an ingest, and what is not in it yet.
struct PartFile {
    file: Arc<File>,
    /// Buffers for followers.
    pool: Pool,
    tail: Mutex<Tail>,
    /// Bytes of disk that the file has already, whatever was written.
    allocated: AtomicU64,
    /// Bytes that were written when it was last flushed.
    flushed: AtomicU64,
}

#[derive(Default)]
struct Tail {
    /// Bytes in the file. The frames follow them.
    in_file: u64,
    frames: VecDeque<Bytes>,
}

pub(super) async fn begin(
    inner: Arc<Inner>,
    expected: Option<(Digest, u64)>,
    hashed: Hashed,
) -> Result<Box<dyn Ingest>, BlobError> {
    let ticket = admit(inner.clone(), expected).await?;
    let making = inner.clone();
    let make = move || making.temporary().map_err(storage(Digest::of(b""), &making.ingest()));
    let (file, temporary) = blocking(make).await?.into_parts();
    let (tail, allocated, flushed) = Default::default();
    let (file, pool) = (Arc::new(file), inner.pool.clone());
    Ok(Box::new(FsIngest {
        inner,
        hash: (hashed == Hashed::Here).then(Arc::default),
        size: 0,
        file: Arc::new(PartFile { file, pool, tail, allocated, flushed }),
        gathered: (Vec::new(), 0),
        writing: None,
        hashing: None,
        flushing: None,
        temporary,
        ticket,
    }))
}

impl FsIngest {
    /// Waits for the piece that is under way, and starts on the next one.
    async fn write_behind(&mut self) -> Result<(), BlobError> {
        self.hashed_behind().await;
        self.written_behind().await?;
        self.flush_behind();
        let (frames, _) = std::mem::take(&mut self.gathered);
        if let Some(hash) = &self.hash {
            lock(hash).behind.clone_from(&frames);
            let hash = hash.clone();
            let catch_up = move || _ = lock(&hash).catch_up();
            self.hashing = Some(tokio::task::spawn_blocking(catch_up));
        }
        let (file, inner) = (self.file.clone(), self.inner.clone());
        let room = self.ticket.admitted();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            file.allocate(room);
            match file.append(&frames) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && room_made(&inner) => {
                    file.append(&frames)
                }
                result => result,
            }
        }));
        Ok(())
    }

    async fn written_behind(&mut self) -> Result<(), BlobError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let result = joined(writing).await;
        self.writing = None;
        self.ticket.allocated(self.file.allocated.load(Ordering::Relaxed));
        result.map_err(|error| storage(self.digest(), &self.temporary)(error))
    }

    async fn hashed_behind(&mut self) {
        if let Some(hashing) = &mut self.hashing {
            joined(hashing).await;
            self.hashing = None;
        }
    }

    /// Has the disk begin with what was written so far, unless it is still at it.
    fn flush_behind(&mut self) {
        if self.flushing.as_ref().is_some_and(|flushing| !flushing.is_finished()) {
            return;
        }
        let written = self.file.tail().in_file;
        if FLUSHED <= written - self.file.flushed.load(Ordering::Relaxed) {
            self.file.flushed.store(written, Ordering::Relaxed);
            let file = self.file.clone();
            self.flushing = Some(tokio::task::spawn_blocking(move || {
                // The flush of the commit reports the error again.
                let _told_later = file.file.sync_data();
            }));
        }
    }
}

#[async_trait]
impl Ingest for FsIngest {
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        if PIECE <= self.gathered.1 {
            self.write_behind().await?;
        }
        self.ticket.admit(&self.inner, frame.len(), || self.digest()).await?;
        self.ticket.took(frame.len());
        self.size += frame.len() as u64;
        self.gathered.1 += frame.len();
        self.gathered.0.push(frame.clone());
        self.file.tail().frames.push_back(frame);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        let Some(hash) = &self.hash else {
            // Not hashed here: only an error asks, and names what was to come.
            return self.ticket.expected();
        };
        let mut hasher = lock(hash).catch_up().clone();
        self.gathered.0.iter().for_each(|frame| hasher.update(frame));
        hasher.digest()
    }

    fn written(&self) -> Arc<dyn Written> {
        self.file.clone()
    }

    async fn verify(&mut self, expected: &Descriptor) -> Result<(), BlobError> {
        if !self.gathered.0.is_empty() {
            self.write_behind().await?;
        }
        self.hashed_behind().await;
        check_expected(expected, self.size, || self.digest())
    }

    async fn commit(mut self: Box<Self>, expected: &Descriptor) -> Result<(), BlobError> {
        self.verify(expected).await?;
        self.written_behind().await?;
        let Self { inner, file, temporary, ticket, .. } = *self;
        let (digest, size) = (expected.digest, expected.size);
        blocking(move || {
            let _until_it_is_there = ticket;
            let path = inner.blob(&digest);
            let stamp = file.finish(size).map_err(storage(digest, &temporary))?;
            temporary.persist(&path).map_err(|e| storage(digest, &path)(e.error))?;
            if !inner.is_shared() {
                inner.trust.good(digest, stamp);
            }
            inner.committed.notify_one();
            sync_folder(&inner.blobs()).map_err(|error| sync_failed(digest, error))
        })
        .await
    }
}

/// Room that is made when others filled the disk in the midst of an ingest: so much that not every
/// piece asks for more.
const ROOM: u64 = 64 * PIECE as u64;

/// Collects unneeded blobs for more room. Returns whether there were any.
fn room_made(inner: &Inner) -> bool {
    inner.make_room(ROOM).is_ok_and(|made| made.blobs != 0)
}

fn sync_failed(digest: Digest, error: StoreError) -> BlobError {
    match error {
        StoreError::Io { path, source, .. } => storage(digest, &path)(source),
        other @ StoreError::InUse { .. } => BlobError::unavailable(digest, other),
    }
}

impl PartFile {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no holder of this lock panics")
    }

    /// Asks for disk ahead of what is written, up to `room` bytes in all.
    fn allocate(&self, room: u64) {
        let (written, allocated) = (self.tail().in_file, self.allocated.load(Ordering::Relaxed));
        let more = room.saturating_sub(allocated).min(ALLOCATED);
        if more < PIECE as u64 || written + (PIECE as u64) < allocated {
            return;
        }
        // Without support or room for it, the write itself reports an error.
        if fallocate(&self.file, FallocateFlags::empty(), allocated, more).is_ok() {
            self.allocated.store(allocated + more, Ordering::Relaxed);
        }
    }

    /// Writes the first frames of the tail to the file, and drops them from the tail. After an error
    /// they are all still there, and can be written again.
    fn append(&self, frames: &[Bytes]) -> io::Result<()> {
        let mut offset = self.tail().in_file;
        for frame in frames {
            self.file.write_all_at(frame, offset)?;
            offset += frame.len() as u64;
        }
        let mut tail = self.tail();
        tail.in_file = offset;
        tail.frames.drain(..frames.len());
        Ok(())
    }

    /// Puts the file on the disk as it is to be found again.
    fn finish(&self, size: u64) -> io::Result<FileState> {
        // Allocated room that was not needed.
        self.file.set_len(size)?;
        // Ours to the nanosecond, so that whoever writes later shows (`trust`).
        self.file.set_modified(SystemTime::now())?;
        self.file.sync_all()?;
        Ok(stamp(&self.file.metadata()?))
    }

    /// The present place of the bytes at `offset`.
    fn find(&self, offset: u64) -> Place {
        let tail = self.tail();
        let Some(mut skip) = offset.checked_sub(tail.in_file) else {
            return Place::File { until: tail.in_file };
        };
        for frame in &tail.frames {
            match usize::try_from(skip) {
                Ok(start) if start < frame.len() => return Place::Tail(frame.slice(start..)),
                _ => skip -= frame.len() as u64,
            }
        }
        Place::Tail(Bytes::new())
    }
}

enum Place {
    /// In the file, which has the bytes before `until`.
    File { until: u64 },
    /// In the tail: this frame from the offset on, empty when nothing was written there yet.
    Tail(Bytes),
}

#[async_trait]
impl Written for PartFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let len = len.min(MAX_FRAME);
        match self.find(offset) {
            Place::Tail(frame) => Ok(frame.slice(..frame.len().min(len))),
            Place::File { until } => {
                let len = usize::try_from(until - offset).map_or(len, |most| len.min(most));
                let (file, pool) = (self.file.clone(), self.pool.clone());
                blocking(move || pool.frame(len, |room| fill_at(&file, offset, room))).await
            }
        }
    }
}
