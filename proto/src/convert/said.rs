//! Texts of a range, made fit for a host: bounded, and without control characters.
//!
//! A range is not trusted. Its texts end up in logs, tables and terminals, so they are cut and
//! escaped where they enter.

use std::fmt::Write as _;

/// Longest text of a range in characters, before escaping.
pub(crate) const MAX_TEXT: usize = 1024;

/// The text in one line, cut to [`MAX_TEXT`] characters, with control characters and those that
/// change the direction of writing escaped.
pub(crate) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(MAX_TEXT));
    for character in text.chars().take(MAX_TEXT) {
        match character {
            // Output of engines and programs has line breaks; they must not look like lines of
            // ours.
            '\n' | '\t' => safe.push(' '),
            harmless if is_harmless(harmless) => safe.push(harmless),
            // Writing to a string does not fail.
            _ => drop(write!(safe, "{}", character.escape_default())),
        }
    }
    safe
}

/// The same; absent for an empty text.
pub(crate) fn some_text(said: &str) -> Option<String> {
    (!said.is_empty()).then(|| text(said))
}

fn is_harmless(character: char) -> bool {
    let turns = matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !turns && !character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reaches_no_terminal_as_a_command() {
        assert_eq!(text("a\u{1b}[2Jb\r\u{7}\u{9b}"), r"a\u{1b}[2Jb\r\u{7}\u{9b}");
        assert_eq!(text("evil\u{202e}txt"), r"evil\u{202e}txt");
        assert_eq!(text("grüße,\n\t世界"), "grüße,  世界");
        assert_eq!(text(&"ä".repeat(2000)), "ä".repeat(MAX_TEXT));
        assert_eq!(some_text(""), None);
    }
}
