//! Errors in compose and environment files: location, fault and remedy.

use std::path::PathBuf;

use transfer::reference::InvalidReference;

use crate::location::{Location, Position};

/// A stack that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The caller gave no compose file.
    #[error("no compose file given: name at least one")]
    NoFiles,
    /// The operating system could not open or read a file.
    #[error("{} could not be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file's content is invalid or unsupported.
    #[error("{location}: {fault}")]
    Invalid {
        /// The location of the fault.
        location: Location,
        /// The fault, with its remedy.
        fault: Fault,
    },
}

/// A fault at one location of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file is too large.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// The file is not valid YAML.
    #[error("invalid YAML: {0}")]
    Syntax(String),
    /// Lists and mappings nest too deep.
    #[error("nesting exceeds {limit} levels")]
    TooDeep {
        /// The limit, in levels.
        limit: usize,
    },
    /// Too many entries, counted with all aliases expanded.
    #[error("more than {limit} entries with all aliases expanded")]
    TooMany {
        /// The limit, in entries.
        limit: usize,
    },
    /// An alias refers to a node that contains it.
    #[error("this alias refers to a node that contains it")]
    AliasLoop,
    /// A key is a list or a mapping.
    #[error("a key must be a plain word, not a list or a mapping")]
    KeyNotScalar,
    /// A mapping has one key twice.
    #[error("duplicate key {key:?}, already used on line {first}: remove one of the two")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of its first use.
        first: usize,
    },
    /// The file has only blanks and comments.
    #[error("the file is empty")]
    Empty,
    /// No file has a service.
    #[error("no services: list them under `services:`")]
    NoServices,
    /// A node must be a mapping.
    #[error("{what} must be a mapping")]
    NotMapping {
        /// The node, in words.
        what: String,
    },
    /// An image must be a string.
    #[error("the image of service {service:?} must be a string: put it in quotes")]
    ImageNotString {
        /// The service.
        service: String,
    },
    /// A key is not in the Compose Specification.
    #[error("unknown key {key:?} in {what}: correct it, or prefix it with `x-`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The mapping that has it, in words.
        what: &'static str,
    },
    /// A service's name has characters that are not allowed.
    #[error("invalid service name {name:?}: use only letters, digits, `.`, `_` and `-`")]
    ServiceName {
        /// The name.
        name: String,
    },
    /// A key or tag can select images and is not supported yet.
    #[error("`{key}` {scope} can select images and is not supported yet: {remedy}")]
    Unsupported {
        /// The key or tag.
        key: String,
        /// Its scope, in words: `in service "web"`.
        scope: String,
        /// The change to the file that avoids it.
        remedy: &'static str,
    },
    /// A service is built and its image has no name.
    #[error(
        "service {service:?} has `build` but no `image`: build it, and set the image's name with `image:`"
    )]
    BuildWithoutImage {
        /// The service.
        service: String,
    },
    /// A service has no image.
    #[error("service {service:?} has no image: set one with `image:`")]
    NoImage {
        /// The service.
        service: String,
    },
    /// An image's name is empty after substitution.
    #[error("the image of service {service:?} is empty{unset}")]
    EmptyImage {
        /// The service.
        service: String,
        /// Unset variables in the name.
        unset: Unset,
    },
    /// An image's name is invalid after substitution.
    #[error("service {service:?}: {invalid}{unset}")]
    NotReference {
        /// The service.
        service: String,
        /// The broken rule.
        invalid: InvalidReference,
        /// Unset variables in the name.
        unset: Unset,
    },
    /// A `${…}` has invalid syntax.
    #[error(
        "invalid variable {template:?}: write `${{NAME}}` or `${{NAME:-default}}`, and `$$` for a dollar sign"
    )]
    Template {
        /// The text from the dollar on, cut to a printable length.
        template: String,
    },
    /// A variable that the file requires is unset, or empty where it must not be.
    #[error("required variable {variable} has no value{}", suffix(reason))]
    Required {
        /// The variable.
        variable: String,
        /// The reason given in the file; may be empty.
        reason: String,
    },
    /// Defaults nest too deep, or a value grows too long.
    #[error("variables nest deeper than {depth} levels or expand to more than {size} bytes")]
    TemplateTooLarge {
        /// The limit, in levels.
        depth: usize,
        /// The limit, in bytes.
        size: usize,
    },
    /// A line of an environment file does not begin with a variable's name.
    #[error("invalid variable name {name:?}")]
    VariableName {
        /// The invalid name, cut to a printable length.
        name: String,
    },
    /// A quoted value in an environment file has no closing quote.
    #[error("the quoted value that begins here has no closing quote")]
    Unterminated,
}

/// Unset variables, displayed as the end of a sentence: ` (TAG is not set: …)`, or nothing when the
/// list is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unset(pub Vec<String>);

impl std::fmt::Display for Unset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " ({one} is not set: set it in the environment or in .env)"),
            several => {
                write!(
                    f,
                    " ({} are not set: set them in the environment or in .env)",
                    several.join(", ")
                )
            }
        }
    }
}

/// A fault with its position, before the file's name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FaultAt {
    pub(crate) position: Position,
    pub(crate) fault: Fault,
}

impl Fault {
    /// This fault at a position.
    pub(crate) fn at(self, position: Position) -> FaultAt {
        FaultAt { position, fault: self }
    }

    /// The error for this fault at a location.
    pub(crate) fn into_error(self, location: Location) -> StackError {
        StackError::Invalid { location, fault: self }
    }
}

/// The start of a text, short enough to print.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    text.chars().take(LONGEST).collect()
}

fn suffix(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
