//! Why a stack could not be read: where it is written, what is wrong, and what to do.

use std::path::PathBuf;

use transfer::reference::InvalidReference;

use crate::place::{Place, Spot};

/// A stack that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// No compose file was named.
    #[error("no compose file was named")]
    NoFiles,
    /// A file that could not be read at all.
    #[error("{} could not be read", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something in a file that makes no sense or is not understood.
    #[error("{place}: {fault}")]
    Refused {
        /// Where.
        place: Place,
        /// What, and what to do.
        fault: Fault,
    },
}

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file is larger than anything that a person writes.
    #[error("the file is larger than {most} bytes")]
    TooLarge {
        /// The limit, in bytes.
        most: u64,
    },
    /// Bytes that are no text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// The file breaks the rules of YAML.
    #[error("this is not YAML: {0}")]
    Syntax(String),
    /// Lists and mappings inside each other, too many of them.
    #[error("nested deeper than {most} levels")]
    TooDeep {
        /// The limit, in levels.
        most: usize,
    },
    /// Too many entries, those that aliases repeat counted each time.
    #[error("more than {most} entries, with what aliases repeat")]
    TooMany {
        /// The limit, in entries.
        most: usize,
    },
    /// An alias inside the thing that it stands for.
    #[error("this alias stands for something that it is a part of")]
    AliasLoop,
    /// A key that is no word.
    #[error("a key must be a plain word, not a list or a mapping")]
    KeyNotWord,
    /// One key twice in one mapping.
    #[error("the key {key:?} is already on line {first}: remove one of the two")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line on which it stands first.
        first: usize,
    },
    /// The file holds nothing but blanks and comments.
    #[error("the file is empty")]
    Empty,
    /// No file names a service.
    #[error("no services: a stack lists them under `services:`")]
    NoServices,
    /// A mapping was needed.
    #[error("{what} must be a mapping")]
    NotMapping {
        /// Of what.
        what: String,
    },
    /// A text was needed.
    #[error("the image of {service:?} must be a text: put it in quotes")]
    ImageNotText {
        /// Of which service.
        service: String,
    },
    /// A key that the Compose Specification does not have.
    #[error("{key:?} is no key of {what}: correct it, or let it begin with `x-`")]
    UnknownKey {
        /// The key.
        key: String,
        /// Of what.
        what: &'static str,
    },
    /// A name that no service can have.
    #[error("{name:?} is no name of a service: letters, digits, `.`, `_` and `-` only")]
    ServiceName {
        /// The name.
        name: String,
    },
    /// A key or tag that chooses images and is not understood yet.
    #[error("`{key}` {of} can choose images and is not understood yet: {remedy}")]
    NotUnderstood {
        /// The key or tag.
        key: String,
        /// Where it stands: `in service "web"`.
        of: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A service whose image is built and has no name to find it by.
    #[error(
        "service {service:?} is built and names no image: build it, and say with `image:` what it is called"
    )]
    BuildWithoutImage {
        /// Which service.
        service: String,
    },
    /// A service without an image.
    #[error("service {service:?} has no image: say one with `image:`")]
    NoImage {
        /// Which service.
        service: String,
    },
    /// An image that is empty once its variables were put in.
    #[error("the image of {service:?} is empty{unset}")]
    EmptyImage {
        /// Which service.
        service: String,
        /// Which variables are not set, as the end of a sentence.
        unset: Unset,
    },
    /// An image that is no image's name once its variables were put in.
    #[error("service {service:?}: {invalid}{unset}")]
    NotReference {
        /// Which service.
        service: String,
        /// Which rule it breaks.
        invalid: InvalidReference,
        /// Which variables are not set, as the end of a sentence.
        unset: Unset,
    },
    /// A `${…}` that cannot be read.
    #[error(
        "{template:?} is no variable that can be read: `${{NAME}}`, `${{NAME:-default}}`; a dollar itself is `$$`"
    )]
    Template {
        /// From its dollar on, cut to a length that is safe to print.
        template: String,
    },
    /// A variable that the file requires.
    #[error("the variable {variable} is required{}", reason_of(reason))]
    Required {
        /// Which variable.
        variable: String,
        /// What the file says about it; may be empty.
        reason: String,
    },
    /// Variables with defaults inside each other, or values that grow past all measure.
    #[error(
        "variables are nested deeper than {depth} levels or make a text of more than {size} bytes"
    )]
    TemplateTooLarge {
        /// The limit, in levels.
        depth: usize,
        /// The limit, in bytes.
        size: usize,
    },
    /// A line of an environment file without a variable's name.
    #[error("{name:?} is no variable's name")]
    VariableName {
        /// What stands there, cut to a length that is safe to print.
        name: String,
    },
    /// A quoted value in an environment file that does not end.
    #[error("the quoted value that begins here does not end")]
    Unterminated,
}

/// Variables that were not set, told at the end of a sentence: ` (TAG is not set)`; nothing when
/// there are none.
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

/// A fault with the spot where it is, before the file's name is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) spot: Spot,
    pub(crate) fault: Fault,
}

impl Fault {
    /// This fault at a spot.
    pub(crate) fn at(self, spot: Spot) -> Found {
        Found { spot, fault: self }
    }

    /// This fault at a place.
    pub(crate) fn refused(self, place: Place) -> StackError {
        StackError::Refused { place, fault: self }
    }
}

/// The start of a text that may be long or hostile.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    text.chars().take(LONGEST).collect()
}

fn reason_of(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
