//! Substitution of variables in a text, by the rules of compose.
//!
//! | form | variable set | set and empty | not set |
//! |---|---|---|---|
//! | `$NAME`, `${NAME}` | its value | nothing | nothing |
//! | `${NAME:-other}` | its value | `other` | `other` |
//! | `${NAME-other}` | its value | nothing | `other` |
//! | `${NAME:?reason}` | its value | an error | an error |
//! | `${NAME?reason}` | its value | nothing | an error |
//! | `${NAME:+other}` | `other` | nothing | nothing |
//! | `${NAME+other}` | `other` | `other` | nothing |
//! | `$$` | `$` | `$` | `$` |
//!
//! `other` and `reason` may contain variables. A dollar sign before anything else is literal.
//! <https://github.com/compose-spec/compose-go/blob/v2.0.2/template/template.go>

use crate::error::{Fault, excerpt};

/// Deepest nesting of variables in defaults of variables.
const MAX_DEPTH: usize = 32;

/// Longest result, in bytes. An image's name has at most about 500, but values in environment files
/// may be certificates.
const MAX_SIZE: usize = 1 << 18;

/// A text after substitution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interpolated {
    pub(crate) text: String,
    /// Unset variables without a default, each once.
    pub(crate) unset: Vec<String>,
}

/// Replaces variables with the values that `lookup` returns.
///
/// # Errors
/// Invalid syntax after `${`, a required variable without a value, or an exceeded limit.
pub(crate) fn interpolate(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Interpolated, Fault> {
    let mut interpolated = Interpolated::default();
    interpolated.text = substitute(template, lookup, &mut interpolated.unset, 0)?;
    Ok(interpolated)
}

fn substitute(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, Fault> {
    const TOO_LARGE: Fault = Fault::TemplateTooLarge { depth: MAX_DEPTH, size: MAX_SIZE };
    if depth == MAX_DEPTH {
        return Err(TOO_LARGE);
    }
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, from_dollar)) = split_at_dollar(rest) {
        text.push_str(before);
        let after = &from_dollar[1..];
        let name = name_of(after);
        rest = if let Some(rest) = after.strip_prefix('$') {
            text.push('$');
            rest
        } else if let Some(braced) = after.strip_prefix('{') {
            let invalid = || Fault::Template { template: excerpt(from_dollar) };
            let end = closing_brace(braced).ok_or_else(invalid)?;
            let variable = Variable::parse(&braced[..end]).ok_or_else(invalid)?;
            text.push_str(&variable.value(lookup, unset, depth)?);
            &braced[end + 1..]
        } else if name.is_empty() {
            text.push('$');
            after
        } else {
            text.push_str(&plain(name, lookup(name), unset));
            &after[name.len()..]
        };
        if MAX_SIZE < text.len() {
            return Err(TOO_LARGE);
        }
    }
    text.push_str(rest);
    if MAX_SIZE < text.len() { Err(TOO_LARGE) } else { Ok(text) }
}

fn split_at_dollar(text: &str) -> Option<(&str, &str)> {
    text.find('$').map(|position| text.split_at(position))
}

/// The variable name at the start of a text; empty if there is none.
fn name_of(text: &str) -> &str {
    let is_part = |(position, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (position > 0 && c.is_ascii_digit())
    };
    let end = text.char_indices().find(|part| !is_part(*part)).map(|(position, _)| position);
    &text[..end.unwrap_or(text.len())]
}

/// The offset of the brace that closes the one just before `text`.
///
/// Follows compose: every opening brace must be closed, with or without a dollar sign, and the
/// character after an opening brace is skipped.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 1_usize;
    // The character after the first brace is skipped too: `${}` is invalid in any case.
    let mut position = 1;
    while let Some(byte) = bytes.get(position) {
        match byte {
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(position);
                }
            }
            b'{' => {
                open += 1;
                position += 1;
            }
            _ => {}
        }
        position += 1;
    }
    None
}

/// The content of `${…}`.
struct Variable<'a> {
    name: &'a str,
    form: Form<'a>,
}

enum Form<'a> {
    Plain,
    /// `-`, or `:-` if an empty value counts as unset.
    Default {
        or_empty: bool,
        other: &'a str,
    },
    /// `?` or `:?`.
    Required {
        or_empty: bool,
        reason: &'a str,
    },
    /// `+` or `:+`.
    Replace {
        or_empty: bool,
        other: &'a str,
    },
}

impl<'a> Variable<'a> {
    fn parse(body: &'a str) -> Option<Self> {
        let name = name_of(body);
        let rest = &body[name.len()..];
        if name.is_empty() {
            return None;
        }
        if rest.is_empty() {
            return Some(Self { name, form: Form::Plain });
        }
        let (or_empty, rest) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let form = match rest.split_at_checked(1)? {
            ("-", other) => Form::Default { or_empty, other },
            ("?", reason) => Form::Required { or_empty, reason },
            ("+", other) => Form::Replace { or_empty, other },
            _ => return None,
        };
        Some(Self { name, form })
    }

    fn value(
        &self,
        lookup: &dyn Fn(&str) -> Option<String>,
        unset: &mut Vec<String>,
        depth: usize,
    ) -> Result<String, Fault> {
        let value = lookup(self.name);
        let is_there =
            |or_empty: bool| value.as_ref().is_some_and(|it| !(or_empty && it.is_empty()));
        match self.form {
            Form::Plain => Ok(plain(self.name, value, unset)),
            Form::Default { or_empty, .. } | Form::Required { or_empty, .. }
                if is_there(or_empty) =>
            {
                Ok(value.unwrap_or_default())
            }
            Form::Replace { or_empty, .. } if !is_there(or_empty) => Ok(value.unwrap_or_default()),
            Form::Default { other, .. } | Form::Replace { other, .. } => {
                substitute(other, lookup, unset, depth + 1)
            }
            Form::Required { reason, .. } => {
                let reason = substitute(reason, lookup, unset, depth + 1)?;
                Err(Fault::Required { variable: self.name.to_owned(), reason: excerpt(&reason) })
            }
        }
    }
}

fn plain(name: &str, value: Option<String>, unset: &mut Vec<String>) -> String {
    if value.is_none() && !unset.iter().any(|known| known == name) {
        unset.push(name.to_owned());
    }
    value.unwrap_or_default()
}

#[cfg(test)]
#[path = "interpolate/tests.rs"]
mod tests;
