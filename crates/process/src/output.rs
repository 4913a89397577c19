//! Results on stdout, for people and for programs: one unit system and one form of table.
//!
//! Sizes use powers of 1024, as the flags do ([`crate::units`]); times have at most two units. A
//! result for programs is one JSON object a line.

mod printable;
mod table;

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

pub use printable::printable;
pub use table::Table;

/// Form of the results on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
}

/// A size with the unit that leaves one to four digits before the point: `1.5 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut scale, mut unit) = (1024_u64, 0);
    while unit + 1 < UNITS.len() && 1024 <= bytes / scale {
        scale *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A time, to a tenth of a second below a minute and in two units above: `3.2 s`, `4 min 5 s`,
/// `2 d 3 h`.
#[must_use]
pub fn time(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let seconds = tenths / 10;
    match seconds {
        0..60 => format!("{seconds}.{} s", tenths % 10),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// [`time`] of a number of seconds. Negative numbers, and those too large for a time, read as zero.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    time(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// A number and its noun: `1 image`, `2 images`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `yes` or `no`.
#[must_use]
pub fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// The beginning of a digest, long enough to tell digests apart: `sha256:` and 12 digits.
#[must_use]
pub fn short_digest(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

/// Prints `text` on stdout. A reader that goes away early, as `head` does, is no failure.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    written(std::io::stdout().lock().write_all(text.as_bytes()))
}

/// Prints each of `lines` as a JSON object on a line of its own; readers may go away as in [`print()`].
///
/// # Errors
/// When stdout cannot be written.
pub fn print_json_lines<T: Serialize>(lines: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    print(&json_lines(lines)?)
}

/// Each of `lines` as a JSON object on a line of its own.
///
/// # Errors
/// When a value has no form in JSON.
pub fn json_lines<T: Serialize>(lines: impl IntoIterator<Item = T>) -> anyhow::Result<String> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(&line).context("writing a result as JSON")?;
        text.push('\n');
    }
    Ok(text)
}

fn written(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("writing results to stdout")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_one_digit_behind_the_point() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            ((1 << 30) + (1 << 29), "1.5 GiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16383.9 PiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_time_has_two_units_at_most() {
        let cases = [
            (0, "0.0 s"),
            (49, "0.0 s"),
            (50, "0.1 s"),
            (1250, "1.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 0 s"),
            (245_000, "4 min 5 s"),
            (3_600_000, "1 h 0 min"),
            (183_600_000, "2 d 3 h"),
        ];
        for (millis, text) in cases {
            assert_eq!(time(Duration::from_millis(millis)), text, "{millis} ms");
        }
        assert_eq!(seconds(1.25), "1.3 s");
        assert_eq!(seconds(-1.0), "0.0 s");
    }

    #[test]
    fn a_noun_is_counted() {
        assert_eq!((count(1, "image"), count(0, "image")), ("1 image".into(), "0 images".into()));
    }

    #[test]
    fn programs_read_an_object_a_line() {
        let lines = json_lines([serde_json::json!({"a": 1}), serde_json::json!({"a": 2})]);
        assert_eq!(lines.unwrap(), "{\"a\":1}\n{\"a\":2}\n");
    }
}
