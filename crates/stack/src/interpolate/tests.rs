//! Every form of a variable, the limits, and termination on hostile text.

use proptest::prelude::*;

use super::*;

/// A lookup in which `SET` has a value, `EMPTY` an empty one, and `UNSET` none.
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

/// Templates and their results in compose 2, one pair per line. An ignored test compares them with
/// the real tool.
const FORMS: &str = include_str!("../../tests/forms.tsv");

#[test]
fn every_form_gives_what_compose_gives() {
    for line in FORMS.lines() {
        let (template, expected) = line.split_once('\t').unwrap();
        assert_eq!(outcome(template), Ok(expected.to_owned()), "{template}");
    }
}

#[test]
fn a_required_variable_without_a_value_is_an_error_with_its_reason() {
    let check = |template: &str, expected: &str| {
        assert_eq!(outcome(template).unwrap_err().to_string(), expected, "{template}");
    };
    check("${UNSET:?set it}", "required variable UNSET has no value: set it");
    check("${EMPTY:?set it}", "required variable EMPTY has no value: set it");
    check("${UNSET?}", "required variable UNSET has no value");
    check("${UNSET:?see ${SET}}", "required variable UNSET has no value: see value");
    check("${UNSET:-${UNSET:?in}}", "required variable UNSET has no value: in");
}

#[test]
fn invalid_syntax_is_an_error_that_quotes_it() {
    for template in
        ["${", "${}", "${ }", "${1}", "${SET", "${SET:}", "${SET:x}", "${SET!}", "a${-b}"]
    {
        assert!(matches!(outcome(template), Err(Fault::Template { .. })), "{template}");
    }
    assert!(outcome("a${-b}").unwrap_err().to_string().starts_with("invalid variable \"${-b}\""));
}

#[test]
fn unset_variables_are_listed_once_each() {
    let unset = |template: &str| interpolate(template, &lookup).unwrap().unset;
    assert_eq!(unset("$A${B}$A${C:-}${SET:-$D}${E+x}"), ["A", "B"]);
    assert_eq!(unset("${A:-$B}"), ["B"]);
}

#[test]
fn depth_and_size_are_limited() {
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
    fn no_text_makes_interpolation_panic(template in "[$${}:?+a-c_ä-]{0,60}|.{0,60}") {
        drop(outcome(&template));
    }

    #[test]
    fn a_text_without_dollar_signs_is_unchanged(template in "[^$]{0,60}") {
        prop_assert_eq!(outcome(&template), Ok(template));
    }

    #[test]
    fn doubled_dollar_signs_escape_any_text(text in ".{0,60}") {
        prop_assert_eq!(outcome(&text.replace('$', "$$")), Ok(text));
    }
}
