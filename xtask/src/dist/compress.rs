//! Compression of everything that is packed.

use anyhow::{Context as _, Result};

/// Compression level of zstd. Higher levels take minutes and gain little on programs.
const LEVEL: i32 = 17;

/// Compresses `bytes` as one zstd frame.
///
/// # Errors
/// The library fails.
pub(super) fn zstd(bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::encode_all(bytes, LEVEL).context("compressing")
}
