use super::*;

fn expression(pattern: &str) -> Expression {
    Expression::anywhere(pattern).unwrap().0
}

#[test]
fn small_expressions_are_compiled_when_they_are_asked() {
    let expression = expression("^a.*b$");
    assert!(!expression.is_compiled());
    assert!(expression.is_match(b"axb"));
    assert!(expression.0.ascii.get().is_some() && expression.0.unicode.get().is_none());
    assert!(expression.is_match("aéb".as_bytes()));
    assert!(expression.0.unicode.get().is_some());
}

#[test]
fn large_expressions_are_compiled_or_refused_when_they_are_read() {
    let large = expression("^\\pL{20}$");
    assert!(large.0.ascii.get().is_some() && large.0.unicode.get().is_some());
    assert!(large.is_match(&[b'a'; 20]) && !large.is_match(&[b'a'; 19]));
    assert!(large.is_match("é".repeat(20).as_bytes()));
    assert_eq!(
        Expression::anywhere("\\pL{999}").err().unwrap(),
        "'\\pL{999}' takes more than 1048576 bytes compiled: use smaller repetitions"
    );
}

// What makes compiling late safe.
#[test]
fn no_expression_has_more_states_than_is_reckoned() {
    for pattern in [
        "",
        "a",
        "abc",
        "^$",
        "\\b",
        ".",
        "(?s).",
        "[^a]",
        "[a-z]{3,7}",
        "(a|b|)*",
        "(a|b)+?c?",
        "a{0}",
        "a{1000}",
        "(a{30}){30}",
        "(a{3,}){2,}",
        "é",
        "[é-日]",
        "\\pL",
        "\\PL",
        "\\p{Greek}{5}",
        "(?i)straße",
        "(((a)))",
        "(|||)",
        "(?:a?){20}a{20}",
        "(?m)^(a|$)*$",
        "(\\w+)\\.(\\w+)",
        "^team17\\..*\\.(cpu|mem|disk)\\.[a-z]+$",
    ] {
        for alphabet in [Alphabet::Ascii, Alphabet::Unicode] {
            let hir = re2::parse(pattern, alphabet).unwrap().hir;
            for (is_reverse, captures) in [(false, WhichCaptures::All), (true, WhichCaptures::None)]
            {
                let config = thompson::Config::new()
                    .reverse(is_reverse)
                    .which_captures(captures);
                let nfa = thompson::Compiler::new()
                    .configure(config)
                    .build_from_hir(&hir);
                let (count, bound) = (nfa.unwrap().states().len(), states(&hir));
                // The start, the end, and the way to the start from any place.
                assert!(
                    count <= bound + 8,
                    "{pattern}: {count} states, {bound} reckoned"
                );
            }
        }
    }
}

// Determinizing this one takes 2^20 states.
#[test]
fn an_expression_without_a_small_dfa_is_answered_too() {
    let expression = expression("a[ab]{20}c");
    assert!(expression.is_match(b"xxababababababababababac"));
    assert!(!expression.is_match(b"xxabababababababababac"));
}

#[test]
fn matches_are_found_one_after_the_other_with_their_groups() {
    let finder = Finder::new("(?P<first>a)(x)?|(?<other>é)").unwrap();
    let names: Vec<_> = finder.names().iter().map(Option::as_deref).collect();
    assert_eq!(names, [Some("first"), None, Some("other")]);
    // Bytes that are not UTF-8 are counted as they are.
    let text = b"ax\xFF\xC3\xA9\xFFa";
    let found = finder.find_all(text).map(|found| {
        let groups = [1, 2, 3, 4].map(|group| found.group(group));
        (found.range(), groups)
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            (0..2, [Some(&b"a"[..]), Some(b"x"), None, None]),
            (3..5, [None, None, Some("é".as_bytes()), None]),
            (6..7, [Some(b"a"), None, None, None]),
        ]
    );
    assert!(finder.find(b"b").is_none());
}

#[test]
fn an_empty_match_is_found_between_characters_and_not_right_after_another() {
    for (pattern, text, expected) in [
        ("a*", &b"baac"[..], "0..0 1..3 4..4"),
        ("", "é\u{1F600}".as_bytes(), "0..0 2..2 6..6"),
        ("", b"\xC3\xFF", "0..0 1..1 2..2"),
        ("", b"", "0..0"),
        ("$", b"ab", "2..2"),
    ] {
        let finder = Finder::new(pattern).unwrap();
        let ranges = finder
            .find_all(text)
            .map(|found| format!("{:?}", found.range()));
        assert_eq!(ranges.collect::<Vec<_>>().join(" "), expected, "{pattern}");
    }
}

#[test]
fn an_anchored_expression_is_anchored_as_a_whole() {
    let expression = Expression::at_start("a|b").unwrap();
    assert!(expression.is_match(b"bx") && !expression.is_match(b"xb"));
    assert!(Expression::at_start("a)|(b").is_err());
}
