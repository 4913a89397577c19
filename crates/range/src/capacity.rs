//! The capacity of this machine: whether ranges fit, before any is made, and how many start at once.

use std::path::{Path, PathBuf};

use crate::error::RangeError;

/// Memory that is set aside for each range, in bytes. At rest an engine holds about 39 MiB that are its
/// own, and the files of its programs once for all ranges; the rest is for its agent and for a sync.
/// A higher value refuses ranges that would have run: see [`Machine::check_memory`].
pub(crate) const ENGINE_MEMORY: u64 = 96 << 20;

/// Engines that start at once for each core: a start waits about as long as it works.
const STARTS_A_CORE: usize = 2;

/// Most engines that start at once: beyond, the engine around them is what they wait for.
const MAX_STARTS: usize = 16;

/// File systems whose files can share bytes, by the magic numbers of `statfs(2)`: btrfs, XFS, bcachefs.
const SHARING: [u64; 3] = [0x9123_683e, 0x5846_5342, 0xca45_1a4e];

/// The limits of this machine; `None` if they cannot be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// Bytes that are free without swapping.
    pub(crate) memory: Option<u64>,
    pub(crate) disk: Option<Disk>,
}

/// Data folder of the engine that runs the ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    /// Bytes that are free there.
    pub(crate) free: u64,
    /// True if a copy of a seed takes no room.
    pub(crate) shares: bool,
}

impl Machine {
    /// Looks at this machine, and at the disk of `data_root` if that is a folder here.
    pub(crate) fn look(data_root: Option<&Path>) -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory.and_then(|text| available(&text)),
            disk: data_root.and_then(disk),
        }
    }

    /// Number of engines that should start at once.
    pub(crate) fn starts(&self) -> usize {
        let by_memory = self.memory.map_or(usize::MAX, |bytes| {
            // Half of it: what runs already needs its own.
            usize::try_from(bytes / 2 / ENGINE_MEMORY).unwrap_or(usize::MAX)
        });
        (self.cores * STARTS_A_CORE).min(by_memory).clamp(1, MAX_STARTS)
    }

    /// An error when `ranges` more engines do not fit into memory.
    pub(crate) fn check_memory(&self, ranges: usize) -> Result<(), RangeError> {
        let Some(free) = self.memory else { return Ok(()) };
        let need = (ranges as u64).saturating_mul(ENGINE_MEMORY);
        if need <= free {
            return Ok(());
        }
        Err(RangeError::NoMemory { ranges, need, free })
    }

    /// An error when `copies` times `each` bytes do not fit on the disk.
    pub(crate) fn check_disk(
        &self,
        ranges: usize,
        copies: usize,
        each: u64,
    ) -> Result<(), RangeError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let need = (copies as u64).saturating_mul(each);
        if need <= disk.free {
            return Ok(());
        }
        Err(RangeError::NoDisk {
            ranges,
            copies,
            each,
            need,
            free: disk.free,
            path: disk.path.clone(),
        })
    }

    /// True if copies of a seed take no room.
    pub(crate) fn shares(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.shares)
    }
}

fn disk(path: &Path) -> Option<Disk> {
    let space = rustix::fs::statvfs(path).ok()?;
    let kind = rustix::fs::statfs(path).ok()?.f_type;
    Some(Disk {
        path: path.to_owned(),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        shares: u64::try_from(kind).is_ok_and(|kind| SHARING.contains(&kind)),
    })
}

/// Available bytes, from the text of `/proc/meminfo`.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: usize, memory: Option<u64>) -> Machine {
        Machine { cores, memory, disk: None }
    }

    #[test]
    fn engines_start_as_cores_and_memory_allow() {
        let check = |cores: usize, memory: Option<u64>, expected: usize| {
            assert_eq!(machine(cores, memory).starts(), expected, "{cores} {memory:?}");
        };
        check(2, Some(16 << 30), 4);
        check(64, Some(256 << 30), MAX_STARTS);
        check(8, Some(3 * 2 * ENGINE_MEMORY), 3);
        check(8, Some(0), 1);
        check(1, None, 2);
    }

    #[test]
    fn an_error_about_room_has_its_numbers() {
        let mut machine = machine(2, Some(ENGINE_MEMORY * 10));
        machine.check_memory(10).unwrap();
        let error = machine.check_memory(11).unwrap_err().to_string();
        assert!(error.contains("11 ranges") && error.contains("960 MiB"), "{error}");
        // An unknown disk is no reason to refuse.
        machine.check_disk(50, 50, u64::MAX).unwrap();
        machine.disk = Some(Disk { path: "/data".into(), free: 10 << 30, shares: false });
        machine.check_disk(5, 5, 2 << 30).unwrap();
        let error = machine.check_disk(50, 51, 2 << 30).unwrap_err().explain();
        for part in ["50 ranges", "102.0 GiB", "10.0 GiB", "/data", "2.0 GiB"] {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }

    #[test]
    fn available_memory_is_read_from_meminfo() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert!(Machine::look(Some(Path::new("/"))).disk.is_some());
        assert!(Machine::look(Some(Path::new("/nowhere"))).disk.is_none());
    }
}
