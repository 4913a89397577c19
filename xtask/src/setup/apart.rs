//! Volumes of ranges that come and go, kept apart on ext4.
//!
//! ext4 gives an inode that was just deleted to nobody for some minutes, and looks at every one of
//! them for each file that is made near by. A range has tens of thousands of files: made where one
//! was removed a minute ago, it takes many times as long. ext4 places what lies in a *top* folder
//! all over the disk, by a hash of its name, and so each volume far from the last.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Makes the folder `volumes` a top folder, where the file system knows such: elsewhere nothing is
/// gained by it, and nothing done.
///
/// # Errors
/// When the folder cannot be made.
pub(super) fn keep(volumes: &Path) -> Result<()> {
    fs::create_dir_all(volumes).with_context(|| format!("creating {}", volumes.display()))?;
    let folder = File::open(volumes).with_context(|| format!("opening {}", volumes.display()))?;
    if let Ok(flags) = ioctl_getflags(&folder) {
        // A file system that has flags, and not this one, says so here.
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
    Ok(())
}
