//! Taking a blob in: hash on the caller's task, write behind it, commit or leave nothing.
//!
//! ```text
//!   write(frame) ─► hash ─► tail: frames not yet in the file ─► (1 MiB gathered) ─► blocking write
//!                              ▲                                                        │
//!              read_at ────────┴──────────── file: everything before the tail ◄─────────┘
//! ```
//! At most one write is under way while the next piece gathers, so an ingest holds about two
//! pieces in memory, and a slow disk holds its writer back.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempPath;
use tokio::task::JoinHandle;

use super::arrivals::{Ticket, admit};
use super::{Inner, blocking, join, read, storage, sync_folder};
use crate::blob::{BlobError, Ingest, MAX_FRAME, Written};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::store::check_expected;

/// Frames are gathered to pieces of this size before they are written: one hop to a blocking thread
/// for each, so smaller ones cost throughput and larger ones memory.
const PIECE: usize = MAX_FRAME;

struct FsIngest {
    inner: Arc<Inner>,
    hasher: Hasher,
    size: u64,
    file: Arc<PartFile>,
    /// Frames of the tail that are not being written yet, and their bytes together.
    gathered: (Vec<Bytes>, usize),
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Removes the file unless it was committed.
    temporary: TempPath,
    ticket: Ticket,
}

/// The file of an ingest, and what is not in it yet.
struct PartFile {
    file: File,
    tail: Mutex<Tail>,
}

#[derive(Default)]
struct Tail {
    /// How many bytes the file has; the frames follow them.
    in_file: u64,
    frames: VecDeque<Bytes>,
}

pub(super) async fn begin(
    inner: Arc<Inner>,
    expected: Option<(Digest, u64)>,
) -> Result<Box<dyn Ingest>, BlobError> {
    let ticket = admit(inner.clone(), expected).await?;
    let folder = inner.ingest();
    let make = move || {
        let file = tempfile::Builder::new().prefix("").rand_bytes(16).tempfile_in(&folder);
        file.map_err(storage(Digest::of(b""), &folder))
    };
    let (file, temporary) = blocking(make).await?.into_parts();
    Ok(Box::new(FsIngest {
        inner,
        hasher: Hasher::default(),
        size: 0,
        file: Arc::new(PartFile { file, tail: Mutex::default() }),
        gathered: (Vec::new(), 0),
        writing: None,
        temporary,
        ticket,
    }))
}

impl FsIngest {
    /// Waits for the piece that is being written, and starts on the next one.
    async fn write_behind(&mut self) -> Result<(), BlobError> {
        self.written_behind().await?;
        let (frames, _) = std::mem::take(&mut self.gathered);
        let (file, inner) = (self.file.clone(), self.inner.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || match file.append(&frames) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && room_made(&inner) => {
                file.append(&frames)
            }
            result => result,
        }));
        Ok(())
    }

    async fn written_behind(&mut self) -> Result<(), BlobError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let result = join(writing).await;
        self.writing = None;
        result.map_err(storage(self.digest(), &self.temporary))
    }
}

#[async_trait]
impl Ingest for FsIngest {
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        if PIECE <= self.gathered.1 {
            self.write_behind().await?;
        }
        self.ticket.admit(&self.inner, frame.len(), || self.hasher.digest()).await?;
        self.hasher.update(&frame);
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
        self.hasher.digest()
    }

    fn written(&self) -> Arc<dyn Written> {
        self.file.clone()
    }

    async fn commit(mut self: Box<Self>, expected: &Descriptor) -> Result<(), BlobError> {
        check_expected(expected, self.size, || self.digest())?;
        self.write_behind().await?;
        self.written_behind().await?;
        let Self { inner, file, temporary, ticket, .. } = *self;
        let digest = expected.digest;
        blocking(move || {
            let _until_it_is_there = ticket;
            let path = inner.blob(&digest);
            file.file.sync_all().map_err(storage(digest, &temporary))?;
            temporary.persist(&path).map_err(|e| storage(digest, &path)(e.error))?;
            inner.committed.notify_one();
            sync_folder(&inner.blobs()).map_err(|error| sync_failed(digest, error))
        })
        .await
    }
}

/// Room that is made when others filled the disk in the midst of an ingest: so much that not every
/// piece asks for more.
const ROOM: u64 = 64 * PIECE as u64;

/// Whether blobs that nobody counts on made room.
fn room_made(inner: &Inner) -> bool {
    inner.make_room(ROOM).is_ok_and(|made| made.blobs != 0)
}

fn sync_failed(digest: Digest, error: super::StoreError) -> BlobError {
    match error {
        super::StoreError::Io { path, source, .. } => storage(digest, &path)(source),
        other => BlobError::unavailable(digest, other),
    }
}

impl PartFile {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no holder of this lock panics")
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

    /// Where the bytes at `offset` are to be found now.
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
                let file = self.file.try_clone()?;
                blocking(move || read::read_at(&file, offset, len)).await
            }
        }
    }
}
