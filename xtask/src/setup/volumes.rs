//! Spreads the volumes of ranges over an ext4 file system.
//!
//! ext4 does not reuse a deleted inode for some minutes, and skips all such inodes whenever it creates
//! a file near them. A range has tens of thousands of files, so creating one where another was just
//! removed takes many times as long. ext4 spreads the entries of a *top* folder over the disk, by a
//! hash of their names. This puts each volume far from the last one.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Creates the folder `volumes`, and marks it as a top folder if the file system supports that.
///
/// # Errors
/// The folder cannot be created.
pub(super) fn spread(volumes: &Path) -> Result<()> {
    fs::create_dir_all(volumes).with_context(|| format!("creating {}", volumes.display()))?;
    let folder = File::open(volumes).with_context(|| format!("opening {}", volumes.display()))?;
    if let Ok(flags) = ioctl_getflags(&folder) {
        // Fails on a file system without this flag, where it would not help anyway.
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
    Ok(())
}
