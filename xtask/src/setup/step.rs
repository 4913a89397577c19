//! Steps of set-up, each with a line on stderr, and their shared helpers.

use std::io::{IsTerminal as _, Write as _};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Runs `work`, and prints its time and outcome to stderr.
///
/// `work` returns its value and its outcome in words. A terminal shows `what` while it runs.
///
/// # Errors
/// `work` fails; the error has `what` as context.
pub(super) fn step<T>(what: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    if std::io::stderr().is_terminal() {
        say(&format!("    …    {what}"));
    }
    let started = Instant::now();
    let (value, outcome) = work().with_context(|| what.to_owned())?;
    say(&format!("{:6.1} s  {what}: {outcome}", started.elapsed().as_secs_f64()));
    Ok(value)
}

/// Prints a line to stderr; a closed stderr is ignored.
pub(super) fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Joins a thread, passing its panic on.
///
/// # Errors
/// The thread's work fails.
pub(super) fn join<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match handle.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A fingerprint of a recipe, which changes with any of `parts`.
///
/// It uses FNV-1a, because it must not depend on the compiler and needs no protection from attacks.
pub(super) fn fingerprint(parts: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // 0xff occurs in no text, so it separates the parts.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_changes_with_every_part_and_its_boundaries() {
        let all = [
            fingerprint(&[]),
            fingerprint(&[""]),
            fingerprint(&["ab"]),
            fingerprint(&["a", "b"]),
            fingerprint(&["b", "a"]),
        ];
        for (i, left) in all.iter().enumerate() {
            for right in &all[i + 1..] {
                assert_ne!(left, right);
            }
        }
    }

    #[test]
    fn a_fingerprint_is_the_same_for_every_build() {
        assert_eq!(fingerprint(&["longshore"]), fingerprint(&["longshore"]));
        assert_eq!(fingerprint(&[]), "cbf29ce484222325");
    }
}
