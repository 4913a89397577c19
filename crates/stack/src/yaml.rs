//! YAML as a tree with positions, within limits: hostile files end in an error, soon.
//!
//! The nodes of all documents of a file lie in one arena. An alias is the target's index and not a
//! copy, so that a file which repeats itself a billion times takes no more memory than its text; what
//! it would be written out is counted all the same, and bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::error::{Fault, Found};
use crate::place::Spot;

/// Lists and mappings inside each other, at most. People's files have about ten; what is deeper is
/// no compose file.
const MAX_DEPTH: usize = 64;

/// Nodes of one file at most, what aliases stand for counted each time. A service has some fifty;
/// `docker compose` refuses past 100,000 visits of nodes.
const MAX_NODES: usize = 50_000;

/// A node's index in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// The documents of a file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// The root of each document, in order; those without content are left out.
    pub(crate) documents: Vec<NodeId>,
}

/// A scalar, a list or a mapping.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    /// A tag other than YAML's own: `!reset`.
    pub(crate) tag: Option<String>,
    pub(crate) value: Value,
    /// Nodes that this one would be, written out.
    size: usize,
}

#[derive(Debug)]
pub(crate) enum Value {
    /// A text, or a null, number or truth value where a plain scalar reads as one.
    Scalar {
        text: String,
        is_text: bool,
    },
    Sequence(Vec<NodeId>),
    Mapping(Vec<Pair>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) spot: Spot,
    pub(crate) value: NodeId,
}

impl Tree {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The value of `key` in a mapping; `None` too where `id` is no mapping.
    pub(crate) fn get(&self, id: NodeId, key: &str) -> Option<&Node> {
        let Value::Mapping(pairs) = &self.node(id).value else { return None };
        pairs.iter().find(|pair| pair.key == key).map(|pair| self.node(pair.value))
    }
}

impl Node {
    /// The text of a scalar, whatever it reads as.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Reads a file's text.
///
/// # Errors
/// What is not YAML, one key twice in a mapping, an alias inside its own anchor, and what is past a
/// limit.
pub(crate) fn parse(text: &str) -> Result<Tree, Found> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        // Where a tag is wrong, it is the tag that one looks for.
        let start = span.tag_span().map_or(span.start, |tag| tag.start);
        builder.take(event, spot(&start))?;
    }
    Ok(builder.tree)
}

fn syntax(error: &ScanError) -> Found {
    Fault::Syntax(error.info()).at(spot(error.marker()))
}

fn spot(marker: &Marker) -> Spot {
    Spot { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or mapping whose end was not seen yet.
#[derive(Debug)]
struct Open {
    spot: Spot,
    tag: Option<String>,
    anchor: usize,
    content: Content,
    size: usize,
}

#[derive(Debug)]
enum Content {
    Sequence(Vec<NodeId>),
    Mapping {
        pairs: Vec<Pair>,
        /// The line on which each key stands.
        keys: HashMap<String, usize>,
        /// The key whose value comes next.
        key: Option<(String, Spot)>,
    },
}

#[derive(Debug, Default)]
struct Builder {
    tree: Tree,
    open: Vec<Open>,
    /// What an anchor stands for; `None` while that is still open.
    anchors: HashMap<usize, Option<NodeId>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, spot: Spot) -> Result<(), Found> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = match tag.as_deref().and_then(Tag::core_suffix) {
                    Some(kind) => kind == "str",
                    None => style != ScalarStyle::Plain || !is_resolved(&text),
                };
                let value = Value::Scalar { text: text.into_owned(), is_text };
                self.close(spot, foreign(tag.as_deref()), anchor, value, 1)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(Some(id)) => self.attach(*id, spot),
                _ => Err(Fault::AliasLoop.at(spot)),
            },
            Event::SequenceStart(_, anchor, tag) => {
                let content = Content::Sequence(Vec::new());
                self.begin(spot, foreign(tag.as_deref()), anchor, content)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content =
                    Content::Mapping { pairs: Vec::new(), keys: HashMap::new(), key: None };
                self.begin(spot, foreign(tag.as_deref()), anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::Sequence(entries) => Value::Sequence(entries),
                    Content::Mapping { pairs, .. } => Value::Mapping(pairs),
                };
                self.close(open.spot, open.tag, open.anchor, value, open.size)
            }
            // Where documents begin and end shows in what is open; the others have no content.
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        spot: Spot,
        tag: Option<String>,
        anchor: usize,
        content: Content,
    ) -> Result<(), Found> {
        if self.open.len() == MAX_DEPTH {
            return Err(Fault::TooDeep { most: MAX_DEPTH }.at(spot));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.open.push(Open { spot, tag, anchor, content, size: 1 });
        Ok(())
    }

    /// A node is whole: it goes into the arena, under its anchor, and into what is open.
    fn close(
        &mut self,
        spot: Spot,
        tag: Option<String>,
        anchor: usize,
        value: Value,
        size: usize,
    ) -> Result<(), Found> {
        if self.tree.nodes.len() == MAX_NODES {
            return Err(Fault::TooMany { most: MAX_NODES }.at(spot));
        }
        let id = NodeId(self.tree.nodes.len());
        self.tree.nodes.push(Node { spot, tag, value, size });
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id, spot)
    }

    /// A node, or what an alias at `spot` stands for, goes into what is open.
    fn attach(&mut self, id: NodeId, spot: Spot) -> Result<(), Found> {
        let node = self.tree.node(id);
        let Some(open) = self.open.last_mut() else {
            // A document of nothing is none: `---` at the end of a file.
            if !matches!(&node.value, Value::Scalar { text, is_text: false } if is_null(text)) {
                self.tree.documents.push(id);
            }
            return Ok(());
        };
        open.size += node.size;
        if MAX_NODES < open.size {
            return Err(Fault::TooMany { most: MAX_NODES }.at(spot));
        }
        match &mut open.content {
            Content::Sequence(entries) => entries.push(id),
            Content::Mapping { pairs, keys, key } => match key.take() {
                Some((key, spot)) => pairs.push(Pair { key, spot, value: id }),
                None => {
                    let word = node.scalar().ok_or_else(|| Fault::KeyNotWord.at(spot))?.to_owned();
                    match keys.entry(word.clone()) {
                        Entry::Vacant(vacant) => vacant.insert(spot.line),
                        Entry::Occupied(first) => {
                            let first = *first.get();
                            return Err(Fault::DuplicateKey { key: word, first }.at(spot));
                        }
                    };
                    *key = Some((word, spot));
                }
            },
        }
        Ok(())
    }
}

/// A tag that is not YAML's own, as it is written.
fn foreign(tag: Option<&Tag>) -> Option<String> {
    let tag = tag.filter(|tag| !tag.is_yaml_core_schema() && !tag.suffix().is_empty())?;
    Some(format!("{}{}", tag.handle(), tag.suffix()))
}

/// Whether a plain scalar reads as something else than a text, as Go's YAML library has it.
fn is_resolved(text: &str) -> bool {
    is_null(text)
        || matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
        || is_number(text)
        || is_date(text)
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn is_number(text: &str) -> bool {
    let bare = text.trim_start_matches(['+', '-']);
    if matches!(bare, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let digits = bare.replace('_', "");
    let based = |prefix: &str, radix: u32| {
        let rest = digits.strip_prefix(prefix);
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    // Rust reads `inf` and `nan` as numbers, YAML does not.
    let decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.parse::<f64>().is_ok();
    decimal || based("0x", 16) || based("0o", 8) || based("0b", 2)
}

/// A year, a month and a day; a time may follow.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, lengths: &[usize]| {
        part.is_some_and(|part| {
            lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), &[4])
        && digits(parts.next(), &[1, 2])
        && parts.next().is_some_and(|day| {
            let day = day.split(['T', 't', ' ']).next();
            digits(day, &[1, 2])
        })
}

#[cfg(test)]
#[path = "yaml/tests.rs"]
mod tests;
