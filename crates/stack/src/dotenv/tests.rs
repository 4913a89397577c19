//! Every form of a variable, the errors, and termination on hostile text.

use proptest::prelude::*;

use super::*;

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("SHELL".to_owned(), "zsh".to_owned())])
}

fn read(text: &str) -> Result<BTreeMap<String, String>, FaultAt> {
    let mut variables = BTreeMap::new();
    parse(text, &environment(), &mut variables).map(|()| variables)
}

#[test]
fn every_form_of_a_variable_is_read() {
    let check = |text: &str, expected: &[(&str, &str)]| {
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(read(text), Ok(expected), "{text}");
    };
    check("", &[]);
    check("\u{feff}A=1", &[("A", "1")]);
    check("A=1\nB=2\n", &[("A", "1"), ("B", "2")]);
    check("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]);
    check("  A = 1  \n", &[("A", "1")]);
    check("A: 1\n", &[("A", "1")]);
    check("A=\nB=2", &[("A", ""), ("B", "2")]);
    check("A=1\nA=2", &[("A", "2")]);
    check("# c\n\n  # d\nA=1 # e\nB=2#f\n", &[("A", "1"), ("B", "2#f")]);
    check("export A=1\nexport\tB=2\nexported=3", &[("A", "1"), ("B", "2"), ("exported", "3")]);
    check("A\nB=1\nexport C\n", &[("B", "1")]);
    check("A.b-c[0]=1", &[("A.b-c[0]", "1")]);
    check("A='x $B # y' # z\nB=1", &[("A", "x $B # y"), ("B", "1")]);
    check("A='it\\'s'", &[("A", "it's")]);
    check("A='a\\nb'", &[("A", "a\\nb")]);
    check("A=\"a\\nb\\t\\\"c\\\" \\\\d \\q\"", &[("A", "a\nb\t\"c\" \\d \\q")]);
    check("A=\"\\0101\\08\"", &[("A", "A\\8")]);
    check("A=\"one\ntwo\"\nB=2", &[("A", "one\ntwo"), ("B", "2")]);
    check("A='one\ntwo'", &[("A", "one\ntwo")]);
    check("A=1\nB=$A-${A}-${C:-3}", &[("A", "1"), ("B", "1-1-3")]);
    check("A=\"$SHELL\"\nB=\\$SHELL", &[("A", "zsh"), ("B", "\\zsh")]);
    check("A=\"\\$SHELL\"\nB=$$SHELL", &[("A", "$SHELL"), ("B", "$SHELL")]);
    check("SHELL=x\nA=$SHELL", &[("SHELL", "x"), ("A", "zsh")]);
    check("A=$NONE.", &[("A", ".")]);
}

#[test]
fn an_error_has_the_line_of_its_fault() {
    let check = |text: &str, line: usize, expected: &str| {
        let found = read(text).unwrap_err();
        assert_eq!(
            (found.position.line, found.fault.to_string().as_str()),
            (line, expected),
            "{text}"
        );
    };
    check("A=1\nB C=2", 2, "invalid variable name \"B C\"");
    check("\n\nA!", 3, "invalid variable name \"A!\"");
    check("A=1\n  B='x\n", 2, "the quoted value that begins here has no closing quote");
    check("A=\"x\\\"", 1, "the quoted value that begins here has no closing quote");
    check("A=1\nB=${C:?say it}", 2, "required variable C has no value: say it");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[A-C=:#'\"\\\\$x0-9 \n-]{0,80}|.{0,80}") {
        drop(read(&text));
    }
}
