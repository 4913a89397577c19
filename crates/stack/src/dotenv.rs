//! Environment files (`.env` and `--env-file`), parsed as compose parses them.
//!
//! ```text
//!   # a comment                        NAME=value # a comment
//!   export NAME=value                  NAME: value
//!   NAME='literal, $NOT_EXPANDED'      NAME="with $OTHER, \n and \"quotes\", over
//!   NAME                                several lines"
//! ```
//! A variable in a value is looked up in the environment first, then among the variables above it. A
//! name without a value defers to the environment and adds nothing.
//! <https://github.com/compose-spec/compose-go/blob/v2.0.2/dotenv/parser.go>

use std::collections::BTreeMap;

use crate::error::{Fault, FaultAt, excerpt};
use crate::interpolate::interpolate;
use crate::location::Position;

/// Parses an environment file into `variables`, overriding existing entries. Values may refer to
/// variables of `environment`.
///
/// # Errors
/// An invalid name, a quoted value without a closing quote, or a variable that cannot be expanded.
pub(crate) fn parse(
    text: &str,
    environment: &BTreeMap<String, String>,
    variables: &mut BTreeMap<String, String>,
) -> Result<(), FaultAt> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = statement(text);
    while !rest.is_empty() {
        let here = position(text, rest);
        let (name, after) = name(rest).map_err(|fault| fault.at(here))?;
        let Some(after) = after else {
            rest = statement(rest.split_once('\n').map_or("", |(_, rest)| rest));
            continue;
        };
        let lookup = |name: &str| environment.get(name).or_else(|| variables.get(name)).cloned();
        let (value, after) = value(after, &lookup).map_err(|fault| fault.at(here))?;
        variables.insert(name.to_owned(), value);
        rest = statement(after);
    }
    Ok(())
}

/// The text from its first statement on, without leading blanks and comments.
fn statement(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    rest
}

/// Splits a statement into its name and the text after `=` or `:`; `None` for a name without a
/// value.
fn name(statement: &str) -> Result<(&str, Option<&str>), Fault> {
    let exported = statement.strip_prefix("export");
    let exported = exported.filter(|rest| rest.starts_with(char::is_whitespace));
    let text = exported.map_or(statement, |rest| rest.trim_start_matches(is_blank));
    let line = text.split('\n').next().unwrap_or_default();
    let end = line.find(['=', ':']);
    let name = line[..end.unwrap_or(line.len())].trim_end();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    if name.chars().all(is_part) {
        let after = end.map(|end| text[end + 1..].trim_start_matches(is_blank));
        Ok((name, after))
    } else {
        Err(Fault::VariableName { name: excerpt(name) })
    }
}

/// White space other than a line feed.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// Splits `text` into its leading value and the rest.
fn value<'a>(
    text: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'a str), Fault> {
    let quote = match text.as_bytes().first() {
        Some(b'"') => '"',
        Some(b'\'') => '\'',
        _ => {
            let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
            let line = line.split_once(" #").map_or(line, |(line, _)| line).trim_end();
            return Ok((interpolate(line, lookup)?.text, rest));
        }
    };
    let (inside, rest) = quoted(&text[1..], quote).ok_or(Fault::Unterminated)?;
    let value = match quote {
        '"' => interpolate(&unescape(&inside), lookup)?.text,
        _ => inside,
    };
    Ok((value, rest))
}

/// Splits `text` at the closing `quote`. Escaped quotes are unescaped, other escapes are kept.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut is_escaped = false;
    for (position, c) in text.char_indices() {
        match c {
            c if c == quote && !is_escaped => return Some((inside, &text[position + 1..])),
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            c if is_escaped && c != quote => inside.push('\\'),
            _ => {}
        }
        is_escaped = false;
        inside.push(c);
    }
    None
}

/// Resolves the escapes of a double-quoted value: `\n` and similar, `\0` with three octal digits.
/// `\$` becomes `$$`, which interpolation turns into a dollar sign. Other escapes are kept.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        let simple = match characters.next() {
            Some('a') => "\u{7}",
            Some('b') => "\u{8}",
            Some('f') => "\u{c}",
            Some('n') => "\n",
            Some('r') => "\r",
            Some('t') => "\t",
            Some('v') => "\u{b}",
            Some('"') => "\"",
            Some('\\') => "\\",
            Some('$') => "$$",
            Some('0') => {
                rest = characters.as_str();
                octal(&mut rest, &mut plain);
                continue;
            }
            _ => {
                plain.push('\\');
                rest = after;
                continue;
            }
        };
        plain.push_str(simple);
        rest = characters.as_str();
    }
    plain.push_str(rest);
    plain
}

/// Reads up to three digits after `\0`. Three octal digits that fit a byte give a character; as in
/// compose, anything else gives a backslash and the digits.
fn octal(rest: &mut &str, plain: &mut String) {
    let count = rest.bytes().take(3).take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(count);
    *rest = after;
    match u8::from_str_radix(digits, 8) {
        Ok(byte) if digits.len() == 3 => plain.push(char::from(byte)),
        _ => {
            plain.push('\\');
            plain.push_str(digits);
        }
    }
}

/// The position in `text` at which its suffix `rest` begins.
fn position(text: &str, rest: &str) -> Position {
    let before = &text[..text.len() - rest.len()];
    let line = before.rsplit('\n').next().unwrap_or_default();
    Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

#[cfg(test)]
#[path = "dotenv/tests.rs"]
mod tests;
