//! A whole tree copied: folders first, then all else on several threads, then the folders' times.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::fs::FileType;

use super::copy::{self, Copied, Reflinks};
use super::error::SeedError;
use super::seal::Sealed;
use super::tree::{self, Entry};

/// Most threads that copy: a disk gains nothing from more.
const MAX_THREADS: usize = 8;

/// Least threads that copy: one waits for the disk while the other works.
const MIN_THREADS: usize = 2;

/// Number of entries that a thread takes at once: most are small.
const BATCH: usize = 32;

/// Copies the tree below `from`, which matches `sealed`, into the empty folders below `to`.
///
/// Answers how many files share their bytes with the seed since.
pub(super) fn copy_tree(from: &Path, to: &Path, sealed: &Sealed) -> Result<u64, SeedError> {
    let is_folder = |entry: &&Entry| entry.kind() == FileType::Directory;
    for folder in sealed.entries.iter().filter(is_folder) {
        make_folder(to, folder)?;
    }
    let Names { first, others } = names(sealed);
    let job = Job {
        from,
        to,
        entries: &first,
        next: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
        reflinks: Reflinks::default(),
        reflinked: AtomicU64::new(0),
    };
    job.run()?;
    for (first, entry) in others {
        let path = to.join(&entry.path);
        std::fs::hard_link(to.join(&first.path), &path).map_err(SeedError::at(&path))?;
    }
    // The deepest first: new entries in a folder change its time.
    for folder in sealed.entries.iter().rev().filter(is_folder) {
        let path = to.join(&folder.path);
        copy::attributes(&from.join(&folder.path), &path, folder).map_err(SeedError::at(&path))?;
    }
    // The caller takes the sign away that it is half made: from then on a crash must not undo it.
    tree::flush(to).map_err(SeedError::at(to))?;
    Ok(job.reflinked.into_inner())
}

/// Names of entries that are not folders.
struct Names<'a> {
    /// Everything once, with its checksum.
    first: Vec<(&'a Entry, u32)>,
    /// Further names of a file, beside its first.
    others: Vec<(&'a Entry, &'a Entry)>,
}

fn names(sealed: &Sealed) -> Names<'_> {
    let mut by_inode = HashMap::new();
    let mut names = Names { first: Vec::new(), others: Vec::new() };
    for (entry, checksum) in sealed.entries.iter().zip(&sealed.checksums) {
        if entry.kind() == FileType::Directory {
            continue;
        }
        // Two volumes may be two file systems, which number their files alike.
        let volume = entry.path.iter().next();
        match by_inode.get(&(volume, entry.inode)) {
            Some(&first) if entry.inode != 0 => names.others.push((first, entry)),
            _ => {
                by_inode.insert((volume, entry.inode), entry);
                names.first.push((entry, *checksum));
            }
        }
    }
    names
}

/// The roots are there, and empty; all else is made.
fn make_folder(to: &Path, folder: &Entry) -> Result<(), SeedError> {
    let path = to.join(&folder.path);
    if folder.path.iter().count() == 1 {
        let mut inside = std::fs::read_dir(&path).map_err(SeedError::at(&path))?;
        return match inside.next() {
            None => Ok(()),
            Some(_) => Err(SeedError::at(&path)(std::io::ErrorKind::DirectoryNotEmpty.into())),
        };
    }
    std::fs::create_dir(&path).map_err(SeedError::at(&path))
}

/// Entries to be copied, and the threads that take them.
struct Job<'a> {
    from: &'a Path,
    to: &'a Path,
    entries: &'a [(&'a Entry, u32)],
    /// The first that nobody has taken yet.
    next: AtomicUsize,
    /// True once one failed: the others need not go on.
    ended: AtomicBool,
    reflinks: Reflinks,
    reflinked: AtomicU64,
}

impl Job<'_> {
    fn run(&self) -> Result<(), SeedError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores.clamp(MIN_THREADS, MAX_THREADS))
                .map(|_| scope.spawn(|| self.work()))
                .collect();
            let done = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            done.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn work(&self) -> Result<(), SeedError> {
        let mut piece = Vec::new();
        while !self.ended.load(Ordering::Relaxed) {
            let begin = self.next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(rest) = self.entries.get(begin..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            for (entry, checksum) in &rest[..BATCH.min(rest.len())] {
                if let Err(error) = self.copy(entry, *checksum, &mut piece) {
                    self.ended.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn copy(&self, entry: &Entry, checksum: u32, piece: &mut Vec<u8>) -> Result<(), SeedError> {
        let (from, to) = (self.from.join(&entry.path), self.to.join(&entry.path));
        if entry.kind() == FileType::RegularFile {
            let copied = copy::file(&from, &to, &self.reflinks, piece);
            match copied.map_err(SeedError::at(&from))? {
                Copied::Reflinked => drop(self.reflinked.fetch_add(1, Ordering::Relaxed)),
                Copied::Bytes(found) if found == checksum => {}
                Copied::Bytes(_) => {
                    let path = entry.path.display();
                    return Err(SeedError::unusable(format!(
                        "the bytes of {path} are not those that were sealed"
                    )));
                }
            }
        } else {
            copy::special(&from, &to, entry).map_err(SeedError::at(&to))?;
        }
        copy::attributes(&from, &to, entry).map_err(SeedError::at(&to))
    }
}
