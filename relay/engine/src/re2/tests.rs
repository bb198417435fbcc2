//! `tests/data/re2.jsonl` holds what Go 1.27.3's `regexp` does with some thousand patterns, a hand-made list of traps and
//! random ones: refused, or where the leftmost match and its groups are in some texts. A character there stands for the
//! byte of its number.

use serde::Deserialize;
use serde_json::Value;

use crate::expression::{Expression, Finder};

#[derive(Deserialize)]
struct Vector {
    pattern: String,
    #[serde(default)]
    refused: bool,
    /// A text, then the start and the end of the match and of each group, -1 where there is none; only the text if nothing
    /// matches.
    #[serde(default)]
    texts: Vec<Vec<Value>>,
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let mut wrong = Vec::new();
    let vectors = include_str!("../../tests/data/re2.jsonl");
    for line in vectors.lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let pattern = String::from_utf8(bytes(&vector.pattern)).unwrap();
        let finder = match Finder::new(&pattern) {
            Ok(finder) => finder,
            Err(_) if vector.refused => continue,
            Err(error) => {
                wrong.push(format!("refused: {error}"));
                continue;
            }
        };
        if vector.refused {
            wrong.push(format!("'{pattern}' should be refused"));
            continue;
        }
        let (expression, _) = Expression::anywhere(&pattern).unwrap();
        for text_and_spans in &vector.texts {
            let (text, expected) = text_and_spans.split_first().unwrap();
            let text = bytes(text.as_str().unwrap());
            let found = finder.find(&text);
            let numbers = |span: &Option<std::ops::Range<usize>>| match span {
                Some(span) => [span.start as i64, span.end as i64],
                None => [-1, -1],
            };
            let spans = found.iter().flat_map(|found| found.spans());
            let found: Vec<i64> = spans.flat_map(numbers).collect();
            let expected: Vec<i64> = expected.iter().filter_map(Value::as_i64).collect();
            let text = text.escape_ascii();
            if found != expected {
                wrong.push(format!(
                    "'{pattern}' in '{text}': {found:?}, not {expected:?}"
                ));
            }
        }
        for text_and_spans in &vector.texts {
            let text = bytes(text_and_spans[0].as_str().unwrap());
            if expression.is_match(&text) != (text_and_spans.len() > 1) {
                wrong.push(format!("'{pattern}' and '{}'", text.escape_ascii()));
            }
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u8).collect()
}

#[test]
fn what_is_refused_is_told_what_where_and_what_to_do() {
    for (pattern, message) in [
        (
            "ab(c",
            "unclosed group at character 3: add a ')', or write \\( for the byte itself",
        ),
        (
            "é)",
            "unopened group at character 2: remove it, or write \\) for the byte itself",
        ),
        (
            "a[b",
            "'[' is not closed at character 2: add a ']', or write \\[ for the byte itself",
        ),
        (
            "[xz-a]",
            "the range 'z-a' ends below its start at character 3: swap the two",
        ),
        (
            "[[:alpha:][:foo:]]",
            "'[:foo:]' is not known at character 11: use [:alpha:], [:digit:], [:alnum:] and so on",
        ),
        (
            "a{2,1}",
            "'{2,1}' ends below its start at character 2: swap the two",
        ),
        (
            "(a{20}){51}",
            "'{51}' repeats more than 1000 times, with those around it at character 8: use smaller repetitions",
        ),
        (
            "a**?",
            "'*?' repeats a repetition at character 3: put what is repeated in (?:…)",
        ),
        (
            "a|*",
            "'*' has nothing before it to repeat at character 3: write a backslash before it for the byte itself",
        ),
        (
            "a\\Cb",
            "'\\C' is not known at character 2: write \\\\ for a backslash; there are no back-references, \\C, \\Z",
        ),
        (
            "a\\",
            "it ends in a backslash at character 2: write \\\\ for the byte itself",
        ),
        (
            "\\p{Foo}",
            "'\\p{Foo}' is no set of Unicode at character 1: name a category or a script: \\pL, \\p{Greek}",
        ),
        (
            "(?x)a",
            "'(?x' is not known at character 1: write (?:…) or flags of imsU; there is no looking ahead or behind",
        ),
        (
            "(?<=a)b",
            "a group is named without a name of letters, digits and _ at character 1: write (?P<name>…); looking behind is not known",
        ),
    ] {
        let error = Expression::anywhere(pattern).err();
        let expected = format!("'{pattern}' is not a regular expression: {message}");
        assert_eq!(error, Some(expected));
    }
}

// RE2 takes up to 1000. What is deeper than this would need a deep stack to be compiled.
#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::anywhere(&nested(200)).is_ok_and(|(nested, _)| nested.is_match(b"a")));
    for pattern in [
        nested(300),
        nested(100_000),
        format!("a*{}", "(?i)*".repeat(300)),
    ] {
        let error = Expression::anywhere(&pattern).err().unwrap();
        assert!(error.contains("it is nested deeper than 250"), "{error}");
    }
}
