//! Headers that we write ourselves, so that no two readers read them differently.

use bytes::Bytes;

use super::BLOCK;

/// Sizes from here on do not fit into the eleven octal digits of a header.
const OCTAL_LIMIT: u64 = 1 << 33;

/// The end marker of an archive.
pub const END: &[u8] = &[0; 2 * BLOCK];

/// The zeros after an entry's content; `None` where it ends on a block.
#[must_use]
pub fn padding(size: u64) -> Option<Bytes> {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (over != 0).then(|| Bytes::from_static(&ZEROS).slice(over..))
}

/// The header of a regular file: mode 0644, owner 0:0, time 0.
///
/// The format is ustar. From 8 GiB on it is GNU's, the only one with sizes in base 256.
///
/// # Panics
/// When `path` has more than a hundred bytes.
#[must_use]
pub fn header(path: &str, size: u64) -> [u8; BLOCK] {
    assert!(path.len() <= 100, "invariant: our paths fit into the name field");
    let mut header = [0; BLOCK];
    header[..path.len()].copy_from_slice(path.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    if size < OCTAL_LIMIT {
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
        header[257..265].copy_from_slice(b"ustar  \0");
    }
    // The sum counts its own field as spaces.
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_on_both_sides_of_the_octal_limit() {
        for size in [0, 1, 511, 512, OCTAL_LIMIT - 1, OCTAL_LIMIT, 1 << 40] {
            let bytes = header("blobs/sha256/x", size);
            let parsed = tar::Header::from_byte_slice(&bytes);
            assert_eq!(parsed.size().unwrap(), size);
            assert_eq!(parsed.path().unwrap().to_str(), Some("blobs/sha256/x"));
            assert_eq!(parsed.mode().unwrap(), 0o644);
            let mut sum = tar::Header::from_byte_slice(&bytes).clone();
            sum.set_cksum();
            assert_eq!(parsed.cksum().unwrap(), sum.cksum().unwrap(), "size {size}");
            assert_eq!(parsed.as_ustar().is_some(), size < OCTAL_LIMIT, "size {size}");
        }
    }
}
