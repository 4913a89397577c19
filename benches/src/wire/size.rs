//! Parsing of sizes such as `64MiB` and `1GiB`.

use anyhow::{Context as _, bail};

/// Parses a whole number with the unit `KiB`, `MiB` or `GiB` into bytes.
///
/// # Errors
/// `text` has another form, is zero, or does not fit 64 bits.
pub fn parse_size(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => bail!("{text:?} has no valid unit: use KiB, MiB or GiB"),
    };
    let number: u64 =
        digits.parse().with_context(|| format!("{text:?} does not begin with a whole number"))?;
    match number.checked_mul(unit) {
        Some(size) if 0 < size => Ok(size),
        _ => bail!("size {text:?} is out of range: it must be above 0 and fit 64 bits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_binary_unit() {
        for (text, size) in [("64KiB", 64 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in ["", "1", "GiB", "1GB", "-1MiB", "0MiB", "1.5GiB", "1 GiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
    }
}
