//! Environment files: `.env` and those of `--env-file`, by the rules of compose.
//!
//! ```text
//!   # a comment                        NAME=value # a comment
//!   export NAME=value                  NAME: value
//!   NAME='as it stands, $NOT_READ'     NAME="with $OTHER, \n and \"quotes\", over
//!   NAME                                several lines"
//! ```
//! A variable in a value is looked up in the environment first and then in what was read so far. A
//! name alone says that the environment has it, and adds nothing.
//! <https://github.com/compose-spec/compose-go/blob/v2.0.2/dotenv/parser.go>

use std::collections::BTreeMap;

use crate::error::{Fault, Found, excerpt};
use crate::interpolate::interpolate;
use crate::place::Spot;

/// Reads an environment file's text into `variables`, over what is there; what `environment` has is
/// used in values and never changed.
///
/// # Errors
/// A line without a name, a quoted value that does not end, a variable that cannot be put in.
pub(crate) fn parse(
    text: &str,
    environment: &BTreeMap<String, String>,
    variables: &mut BTreeMap<String, String>,
) -> Result<(), Found> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = statement(text);
    while !rest.is_empty() {
        let here = spot(text, rest);
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

/// The text from its first statement on: blanks and comments are left out.
fn statement(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    rest
}

/// The name that a statement begins with, and what follows its `=` or `:`; no value where the line
/// is a name alone.
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

/// White space within a line.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// The value that `text` begins with, and what follows it.
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

/// What stands until `quote`, with escaped quotes made quotes and all else as it is.
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

/// The escapes of a double-quoted value: `\n` and its like, `\0` and three octal digits. `\$` becomes
/// `$$`, which is a dollar once variables were put in; others stay as they are.
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

/// Up to three digits after `\0`: a character when they are three octal ones within a byte, and else
/// what compose makes of them, a backslash and the digits.
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

/// Where `rest`, an end of `text`, begins.
fn spot(text: &str, rest: &str) -> Spot {
    let before = &text[..text.len() - rest.len()];
    let line = before.rsplit('\n').next().unwrap_or_default();
    Spot { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

#[cfg(test)]
#[path = "dotenv/tests.rs"]
mod tests;
