//! Errors on one line: what was attempted, and why it failed.

use std::error::Error;

/// The message of `error` and of what caused it, joined by colons, nothing said twice.
#[must_use]
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobError;
    use crate::sink::LoadError;

    #[test]
    fn causes_follow_and_nothing_is_said_twice() {
        let digest = crate::fixture::unknown();
        let blob = BlobError::unavailable(digest, std::io::Error::other("gone"));
        let load = LoadError::from(blob);
        let expected = format!(
            "a layer could not be read from the host: blob {digest} could not be read: gone"
        );
        assert_eq!(explain(&load), expected);
        // Wrapped once more by an error that only repeats it.
        assert_eq!(explain(&crate::pull::PullError::from(load)), expected);
    }
}
