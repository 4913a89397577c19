//! YAML as a tree with positions and limits: a hostile file fails quickly.
//!
//! One arena has the nodes of all documents of a file. An alias is the index of its target, not a
//! copy, so a file of nested aliases takes no more memory than its text. The expanded size is counted
//! all the same, and limited.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::error::{Fault, FaultAt};
use crate::location::Position;

/// Deepest nesting of lists and mappings. Real compose files have about ten levels.
const MAX_DEPTH: usize = 64;

/// Most nodes in a file, with all aliases expanded. A service has about fifty. `docker compose` stops
/// after 100,000 visits of nodes.
const MAX_NODES: usize = 50_000;

/// A node's index in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// The documents of a file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// The root of each document that has content, in order.
    pub(crate) documents: Vec<NodeId>,
}

/// A scalar, a list or a mapping.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    /// A tag other than YAML's own: `!reset`.
    pub(crate) tag: Option<String>,
    pub(crate) value: Value,
    /// Number of nodes in this one with all aliases expanded.
    size: usize,
}

#[derive(Debug)]
pub(crate) enum Value {
    /// A string; or, with `is_string` false, a plain scalar that YAML reads as null, number, boolean
    /// or date.
    Scalar {
        text: String,
        is_string: bool,
    },
    Sequence(Vec<NodeId>),
    Mapping(Vec<Pair>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// The position of the key.
    pub(crate) position: Position,
    pub(crate) value: NodeId,
}

impl Tree {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The value of `key` in a mapping; `None` also if `id` is not a mapping.
    pub(crate) fn get(&self, id: NodeId, key: &str) -> Option<&Node> {
        let Value::Mapping(pairs) = &self.node(id).value else { return None };
        pairs.iter().find(|pair| pair.key == key).map(|pair| self.node(pair.value))
    }
}

impl Node {
    /// The text of a scalar of any type.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Parses a file's text.
///
/// # Errors
/// Invalid YAML, a duplicate key, an alias inside its own anchor, or an exceeded limit.
pub(crate) fn parse(text: &str) -> Result<Tree, FaultAt> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        // An error about a tag must point to the tag, not to the node after it.
        let start = span.tag_span().map_or(span.start, |tag| tag.start);
        builder.take(event, position(&start))?;
    }
    Ok(builder.tree)
}

fn syntax(error: &ScanError) -> FaultAt {
    Fault::Syntax(error.info()).at(position(error.marker()))
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or mapping whose end is still to come.
#[derive(Debug)]
struct Open {
    position: Position,
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
        /// The line of each key.
        keys: HashMap<String, usize>,
        /// The key whose value comes next.
        key: Option<(String, Position)>,
    },
}

#[derive(Debug, Default)]
struct Builder {
    tree: Tree,
    open: Vec<Open>,
    /// The node of each anchor; `None` while that node is open.
    anchors: HashMap<usize, Option<NodeId>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, position: Position) -> Result<(), FaultAt> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_string = match tag.as_deref().and_then(Tag::core_suffix) {
                    Some(kind) => kind == "str",
                    None => style != ScalarStyle::Plain || !is_resolved(&text),
                };
                let value = Value::Scalar { text: text.into_owned(), is_string };
                self.close(position, foreign(tag.as_deref()), anchor, value, 1)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(Some(id)) => self.attach(*id, position),
                _ => Err(Fault::AliasLoop.at(position)),
            },
            Event::SequenceStart(_, anchor, tag) => {
                let content = Content::Sequence(Vec::new());
                self.begin(position, foreign(tag.as_deref()), anchor, content)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content =
                    Content::Mapping { pairs: Vec::new(), keys: HashMap::new(), key: None };
                self.begin(position, foreign(tag.as_deref()), anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::Sequence(entries) => Value::Sequence(entries),
                    Content::Mapping { pairs, .. } => Value::Mapping(pairs),
                };
                self.close(open.position, open.tag, open.anchor, value, open.size)
            }
            // The starts and ends of documents show in `open`; the remaining events have no content.
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        position: Position,
        tag: Option<String>,
        anchor: usize,
        content: Content,
    ) -> Result<(), FaultAt> {
        if self.open.len() == MAX_DEPTH {
            return Err(Fault::TooDeep { limit: MAX_DEPTH }.at(position));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.open.push(Open { position, tag, anchor, content, size: 1 });
        Ok(())
    }

    /// Adds a complete node to the arena, to its anchor, and to its parent.
    fn close(
        &mut self,
        position: Position,
        tag: Option<String>,
        anchor: usize,
        value: Value,
        size: usize,
    ) -> Result<(), FaultAt> {
        if self.tree.nodes.len() == MAX_NODES {
            return Err(Fault::TooMany { limit: MAX_NODES }.at(position));
        }
        let id = NodeId(self.tree.nodes.len());
        self.tree.nodes.push(Node { position, tag, value, size });
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id, position)
    }

    /// Adds a node, or the target of an alias at `position`, to its parent.
    fn attach(&mut self, id: NodeId, position: Position) -> Result<(), FaultAt> {
        let node = self.tree.node(id);
        let Some(open) = self.open.last_mut() else {
            // A document without content does not count, such as after `---` at the end of a file.
            if !matches!(&node.value, Value::Scalar { text, is_string: false } if is_null(text)) {
                self.tree.documents.push(id);
            }
            return Ok(());
        };
        open.size += node.size;
        if MAX_NODES < open.size {
            return Err(Fault::TooMany { limit: MAX_NODES }.at(position));
        }
        match &mut open.content {
            Content::Sequence(entries) => entries.push(id),
            Content::Mapping { pairs, keys, key } => match key.take() {
                Some((key, position)) => pairs.push(Pair { key, position, value: id }),
                None => {
                    let word =
                        node.scalar().ok_or_else(|| Fault::KeyNotScalar.at(position))?.to_owned();
                    match keys.entry(word.clone()) {
                        Entry::Vacant(vacant) => vacant.insert(position.line),
                        Entry::Occupied(first) => {
                            let first = *first.get();
                            return Err(Fault::DuplicateKey { key: word, first }.at(position));
                        }
                    };
                    *key = Some((word, position));
                }
            },
        }
        Ok(())
    }
}

/// A tag outside YAML's core schema, as written.
fn foreign(tag: Option<&Tag>) -> Option<String> {
    let tag = tag.filter(|tag| !tag.is_yaml_core_schema() && !tag.suffix().is_empty())?;
    Some(format!("{}{}", tag.handle(), tag.suffix()))
}

/// Reports whether Go's YAML library would read a plain scalar as something other than a string.
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
    // Rust parses `inf` and `nan` as numbers, YAML does not.
    let decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.parse::<f64>().is_ok();
    decimal || based("0x", 16) || based("0o", 8) || based("0b", 2)
}

/// Reports whether a scalar is a year, a month and a day, with or without a time.
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
