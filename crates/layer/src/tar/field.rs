//! The fields of a header: texts, numbers and the checksum.

use super::BLOCK;

/// A field up to its NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Checks the sum over a header, which counts its own field as spaces.
pub(super) fn check_sum(header: &[u8; BLOCK]) -> Result<(), String> {
    let field = |(at, byte): (usize, &u8)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    };
    let sum: u64 = header.iter().enumerate().map(field).sum();
    if octal(&header[148..156])? == sum {
        Ok(())
    } else {
        Err("its header's checksum is wrong: this is no tar file, or a damaged one".into())
    }
}

/// A number in octal digits, with spaces before it and NULs or spaces behind.
pub(super) fn octal(field: &[u8]) -> Result<u64, String> {
    if field.first().is_some_and(|byte| *byte & 0x80 != 0) {
        return Err("a number is in base 256; write the file with tar --format=posix".into());
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let is_octal = digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    if digits.is_empty() || !is_octal || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(format!("{:?} is no octal number", shown(field)));
    }
    // Twelve digits at most: 36 bits.
    Ok(digits.iter().fold(0, |number, digit| number << 3 | u64::from(digit - b'0')))
}

/// A number in octal digits, in base 256, or absent, which means 0.
pub(super) fn number(field: &[u8]) -> Result<u64, String> {
    if field.first().is_none_or(|byte| *byte & 0x80 == 0) {
        let digits = text(field).trim_ascii();
        return if digits.is_empty() { Ok(0) } else { octal(digits) };
    }
    let bytes = std::iter::once(field[0] & 0x7f).chain(field[1..].iter().copied());
    let number = bytes
        .into_iter()
        .try_fold(0_u64, |number, byte| Some(number.checked_mul(256)? + u64::from(byte)));
    bounded(number).ok_or_else(|| "a number overflows".into())
}

/// A number of PAX, in decimal digits.
pub(super) fn decimal(digits: &[u8]) -> Result<u64, String> {
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = is_decimal.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten();
    bounded(number).ok_or_else(|| format!("{:?} is no number that PAX allows", shown(digits)))
}

/// Readers count in signed numbers.
fn bounded(number: Option<u64>) -> Option<u64> {
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// A text for an error, short enough to print.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_and_nothing_else() {
        assert_eq!(octal(b"00000000017\0"), Ok(15));
        assert_eq!(octal(b"     17     "), Ok(15));
        assert_eq!(octal(b"777777777777"), Ok((1 << 36) - 1));
        let base_256: &[u8] = b"\x80\0\0\0\0\0\0\0\0\0\0\x10";
        for field in [
            b"-0000000017\0".as_slice(),
            b"            ",
            b"",
            b"18\0\0",
            b"1\x000001\0",
            b"0x10\0",
            base_256,
        ] {
            assert!(octal(field).is_err(), "{field:?}");
        }
        assert_eq!(number(base_256), Ok(16));
    }

    #[test]
    fn lenient_numbers_may_be_large_or_absent_and_do_not_overflow() {
        for (field, expected) in [
            (&b"\0\0\0\0\0\0\0\0"[..], Some(0)),
            (b"        ", Some(0)),
            (b"0000017\0", Some(15)),
            (b"\x80\0\0\0\x77\x35\x94\0", Some(2_000_000_000)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX as u64)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (&[0xff; 12], None),
            (b"-000001\0", None),
            (b"9\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field).ok(), expected, "{field:?}");
        }
    }

    #[test]
    fn decimal_numbers_are_digits_that_a_signed_number_holds() {
        for (digits, expected) in [
            ("0", Some(0)),
            ("9223372036854775807", Some(i64::MAX as u64)),
            ("9223372036854775808", None),
            ("+5", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(decimal(digits.as_bytes()).ok(), expected, "{digits:?}");
        }
    }
}
