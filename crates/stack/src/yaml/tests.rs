//! Positions, types of scalars, and the limits.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn fault(text: &str) -> (Position, Fault) {
    let found = parse(text).unwrap_err();
    (found.position, found.fault)
}

fn at(line: usize, column: usize) -> Position {
    Position { line, column }
}

#[test]
fn every_node_has_its_line_and_column() {
    let tree = parse("a: 1\nb:\n  - x\n  - {c: ä, d: y}\n").unwrap();
    let Value::Mapping(pairs) = &tree.node(tree.documents[0]).value else { panic!() };
    assert_eq!((pairs[1].position, pairs[1].key.as_str()), (at(2, 1), "b"));
    let Value::Sequence(entries) = &tree.node(pairs[1].value).value else { panic!() };
    assert_eq!(tree.node(entries[0]).position, at(3, 5));
    assert_eq!(tree.get(entries[1], "d").unwrap().position, at(4, 15));
}

#[test]
fn plain_scalars_of_other_types_are_not_strings() {
    let is_string = |text: &str| {
        let tree = parse(&format!("[{text}]")).unwrap();
        let Value::Sequence(entries) = &tree.node(tree.documents[0]).value else { panic!() };
        matches!(tree.node(entries[0]).value, Value::Scalar { is_string: true, .. })
    };
    for text in [
        "x",
        "'1'",
        "\"null\"",
        "!!str 1",
        "yes",
        "1.2.3",
        "nan",
        "inf",
        "1-2-3",
        "16-alpine",
        "a:1",
    ] {
        assert!(is_string(text), "{text}");
    }
    for text in [
        "1",
        "-1.5",
        "1e3",
        "0x1f",
        "0o7",
        "1_000",
        "null",
        "~",
        "true",
        ".inf",
        "2024-01-02",
        "!!int 1",
    ] {
        assert!(!is_string(text), "{text}");
    }
}

#[test]
fn an_alias_is_its_anchor() {
    let tree = parse("a: &x {k: v}\nb: *x\n").unwrap();
    let root = tree.documents[0];
    let b = tree.get(root, "b").unwrap();
    assert!(std::ptr::eq(b, tree.get(root, "a").unwrap()));
    assert_eq!(b.position.line, 1);
}

#[test]
fn documents_without_content_are_none() {
    let count = |text: &str| parse(text).unwrap().documents.len();
    for (text, expected) in [
        ("", 0),
        ("# x\n", 0),
        ("---\n", 0),
        ("null", 0),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\n---\n", 1),
    ] {
        assert_eq!(count(text), expected, "{text:?}");
    }
}

#[test]
fn a_duplicate_key_is_an_error() {
    let duplicate = |first| Fault::DuplicateKey { key: "a".to_owned(), first };
    assert_eq!(fault("a: 1\nb: 2\na: 3\n"), (at(3, 1), duplicate(1)));
    assert_eq!(fault("x:\n  {a: 1, \"a\": 2}\n"), (at(2, 10), duplicate(2)));
    assert_eq!(fault("? [x]\n: 1\n").1, Fault::KeyNotScalar);
}

#[test]
fn a_syntax_error_has_its_position() {
    for (text, line) in
        [("a: 1\n b: 2\n", 2), ("a: [1\nb: 2\n", 2), ("a: *none\n", 1), ("a: 'x\n", 2)]
    {
        let (position, fault) = fault(text);
        assert!(matches!(fault, Fault::Syntax(_)), "{text:?}: {fault}");
        assert_eq!(position.line, line, "{text:?}: {fault}");
    }
}

#[test]
fn an_alias_bomb_is_refused_at_the_line_that_exceeds_the_limit() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let (position, fault) = fault(&text);
    assert_eq!((position.line, fault), (5, Fault::TooMany { limit: MAX_NODES }));
    assert_eq!(self::fault("a: &a [x, *a]\n"), (at(1, 11), Fault::AliasLoop));
}

#[test]
fn depth_is_limited() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(fault(&nested(MAX_DEPTH + 1)).1, Fault::TooDeep { limit: MAX_DEPTH });
    let indented: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(fault(&indented).1, Fault::TooDeep { limit: MAX_DEPTH });
}

#[test]
fn hostile_files_are_parsed_quickly() {
    const SIZE: usize = 1 << 20;
    let large = |unit: &str| unit.repeat(SIZE / unit.len());
    let keys: String = (0..60_000).map(|number| format!("k{number}: 1\n")).collect();
    let anchors: String = (0..40_000).map(|number| format!("- &k{number} 1\n")).collect();
    let texts = [
        ("brackets", large("[")),
        ("braces", large("{")),
        ("dashes", large("- ")),
        ("questions", large("? ")),
        ("colons", large(": ")),
        ("quotes", large("'")),
        ("open quote", format!("\"{}", large("x"))),
        ("commas", format!("[{}", large("x,"))),
        ("flow keys", format!("{{{}", large("x: y,"))),
        ("entries", large("- x\n")),
        ("a word", large("x")),
        ("lines of a word", large("x\n")),
        ("comments", large("#\n")),
        ("blanks", large(" ")),
        ("tabs", large("\t")),
        ("newlines", large("\n")),
        ("tags", large("!a ")),
        ("documents", large("---\n")),
        ("documents with content", large("--- a\n")),
        ("directives", large("%A\n")),
        ("a block", format!("a: |\n{}", large(" x\n"))),
        ("a folded block", format!("a: >\n{}", large(" x\n\n"))),
        ("keys", keys),
        ("anchors", anchors),
    ];
    for (name, text) in texts {
        let started = Instant::now();
        let outcome = parse(&text).map(|tree| tree.nodes.len());
        // An optimised build takes a tenth of a second each. Tests are unoptimised and run in parallel.
        let limit = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
        let taken = started.elapsed();
        assert!(taken < limit, "{name} took {taken:?}: {outcome:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c:{}\\[\\],&*!|>'\"#%?\n -]{0,120}|.{0,80}") {
        drop(parse(&text));
    }
}
