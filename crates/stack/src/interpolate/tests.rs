//! Every form, and that hostile texts end.

use proptest::prelude::*;

use super::*;

/// `SET` has a value, `EMPTY` has an empty one, `UNSET` has none.
fn lookup(name: &str) -> Option<String> {
    match name {
        "SET" => Some("value".to_owned()),
        "EMPTY" => Some(String::new()),
        "DOLLAR" => Some("$SET".to_owned()),
        "_x1" => Some("underscore".to_owned()),
        _ => None,
    }
}

fn outcome(template: &str) -> Result<String, Fault> {
    interpolate(template, &lookup).map(|interpolated| interpolated.text)
}

/// Templates, and what compose 2 makes of them, one pair a line; an ignored test asks the real one.
const FORMS: &str = include_str!("../../tests/forms.tsv");

#[test]
fn every_form_gives_what_compose_gives() {
    for line in FORMS.lines() {
        let (template, expected) = line.split_once('\t').unwrap();
        assert_eq!(outcome(template), Ok(expected.to_owned()), "{template}");
    }
}

#[test]
fn what_is_required_and_missing_is_an_error_with_its_reason() {
    let check = |template: &str, expected: &str| {
        assert_eq!(outcome(template).unwrap_err().to_string(), expected, "{template}");
    };
    check("${UNSET:?set it}", "the variable UNSET is required: set it");
    check("${EMPTY:?set it}", "the variable EMPTY is required: set it");
    check("${UNSET?}", "the variable UNSET is required");
    check("${UNSET:?see ${SET}}", "the variable UNSET is required: see value");
    check("${UNSET:-${UNSET:?in}}", "the variable UNSET is required: in");
}

#[test]
fn what_is_no_variable_is_an_error_that_shows_it() {
    for template in
        ["${", "${}", "${ }", "${1}", "${SET", "${SET:}", "${SET:x}", "${SET!}", "a${-b}"]
    {
        assert!(matches!(outcome(template), Err(Fault::Template { .. })), "{template}");
    }
    assert!(outcome("a${-b}").unwrap_err().to_string().starts_with("\"${-b}\" is no variable"));
}

#[test]
fn variables_that_are_not_set_are_told_once_each() {
    let unset = |template: &str| interpolate(template, &lookup).unwrap().unset;
    assert_eq!(unset("$A${B}$A${C:-}${SET:-$D}${E+x}"), ["A", "B"]);
    assert_eq!(unset("${A:-$B}"), ["B"]);
}

#[test]
fn depth_and_size_end_in_an_error() {
    let deep = |levels: usize| format!("{}x{}", "${U:-".repeat(levels), "}".repeat(levels));
    assert_eq!(outcome(&deep(MAX_DEPTH - 1)), Ok("x".to_owned()));
    assert!(matches!(outcome(&deep(MAX_DEPTH)), Err(Fault::TemplateTooLarge { .. })));
    let large = |_: &str| Some("x".repeat(MAX_SIZE / 2));
    assert!(interpolate("$A$A", &large).is_ok());
    assert!(matches!(interpolate("$A$A$A", &large), Err(Fault::TemplateTooLarge { .. })));
    assert!(matches!(interpolate("$A${A}x", &large), Err(Fault::TemplateTooLarge { .. })));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(template in "[$${}:?+a-c_ä-]{0,60}|.{0,60}") {
        drop(outcome(&template));
    }

    #[test]
    fn a_text_without_dollars_stays_as_it_is(template in "[^$]{0,60}") {
        prop_assert_eq!(outcome(&template), Ok(template));
    }

    #[test]
    fn doubled_dollars_bring_any_text_through(text in ".{0,60}") {
        prop_assert_eq!(outcome(&text.replace('$', "$$")), Ok(text));
    }
}
