//! Sizes as people write them: `64MiB`, `1GiB`.

use anyhow::{Context as _, bail};

/// Bytes from a whole number with an exact unit, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// That `text` is something else, zero, or past 64 bits.
pub fn parse_size(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => bail!("{text:?} needs a unit: KiB, MiB or GiB"),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} has no whole number"))?;
    match number.checked_mul(unit) {
        Some(size) if 0 < size => Ok(size),
        _ => bail!("{text:?} is not a size to measure with"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_exact_units() {
        for (text, size) in [("64KiB", 64 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in ["", "1", "GiB", "1GB", "-1MiB", "0MiB", "1.5GiB", "1 GiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text:?} was taken");
        }
    }
}
