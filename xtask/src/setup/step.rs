//! Steps: one line each on stderr, and the little that several of them share.

use std::io::{IsTerminal as _, Write as _};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Runs `work` and says on stderr how long it took and what came of it.
///
/// `work` answers its value and the words for the line; while it runs a terminal shows `what`.
///
/// # Errors
/// Those of `work`, with `what` as context.
pub(super) fn step<T>(what: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    if std::io::stderr().is_terminal() {
        say(&format!("    …    {what}"));
    }
    let started = Instant::now();
    let (value, outcome) = work().with_context(|| what.to_owned())?;
    say(&format!("{:6.1} s  {what}: {outcome}", started.elapsed().as_secs_f64()));
    Ok(value)
}

/// Says one line to the person at the terminal.
///
/// A reader that has gone away is no reason to stop half way.
pub(super) fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// The value of a thread, with its panic passed on.
///
/// # Errors
/// Those of the thread's own work.
pub(super) fn join<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match handle.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A name for what something is made from: it changes when any of `parts` does.
///
/// FNV-1a, since it must be the same for every compiler and guards against nobody.
pub(super) fn fingerprint(parts: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // A byte that no text holds ends each part, so that moving a boundary changes the name.
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
