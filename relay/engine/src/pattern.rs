//! `match`: conditions on a series name, compiled once.

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};
use relay_proto::Match;

use crate::gate::Gate;
use crate::glob;
use crate::tags::TagCondition;

/// The memory that one compiled regular expression may take, in bytes; a snapshot cannot make a relay run out of memory.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Conditions on a series name; all that are set must hold.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    prefix: Option<Box<[u8]>>,
    not_prefix: Option<Box<[u8]>>,
    contains: Option<memmem::Finder<'static>>,
    not_contains: Option<memmem::Finder<'static>>,
    regex: Option<Regex>,
    not_regex: Option<Regex>,
    suffix: Option<Box<[u8]>>,
    glob: Option<Regex>,
    tags: Box<[TagCondition]>,
    gate: Gate,
}

/// Why a pattern does not compile.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidPattern {
    /// The condition: "regex" or "tags[1]".
    pub(crate) field: String,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
}

impl Pattern {
    /// Compiles `conditions`; an empty text is a condition that is not set.
    pub(crate) fn compile(conditions: &Match) -> Result<Self, InvalidPattern> {
        let bytes = |text: &str| (!text.is_empty()).then(|| text.as_bytes().into());
        let finder =
            |text: &str| (!text.is_empty()).then(|| memmem::Finder::new(text).into_owned());
        let glob = match conditions.glob.as_str() {
            "" => String::new(),
            glob => glob::to_regex(glob).map_err(|message| {
                let message = format!("'{glob}' is not a glob: {message}");
                InvalidPattern {
                    field: "glob".to_owned(),
                    message,
                }
            })?,
        };
        Ok(Self {
            prefix: bytes(&conditions.prefix),
            not_prefix: bytes(&conditions.not_prefix),
            contains: finder(&conditions.contains),
            not_contains: finder(&conditions.not_contains),
            regex: optional_regex("regex", &conditions.regex)?,
            not_regex: optional_regex("notRegex", &conditions.not_regex)?,
            suffix: bytes(&conditions.suffix),
            glob: optional_regex("glob", &glob)?,
            tags: tags(&conditions.tags)?,
            gate: Gate::of(conditions, &glob),
        })
    }

    /// What a name must have for the pattern to match.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// A regular expression that must match.
    pub(crate) fn regex(&self) -> Option<&str> {
        self.regex
            .as_ref()
            .or(self.glob.as_ref())
            .map(Regex::as_str)
    }

    /// Whether all conditions hold, cheap ones first.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.prefix
            .as_ref()
            .is_none_or(|prefix| name.starts_with(prefix))
            && self
                .not_prefix
                .as_ref()
                .is_none_or(|prefix| !name.starts_with(prefix))
            && self
                .contains
                .as_ref()
                .is_none_or(|text| text.find(name).is_some())
            && self
                .not_contains
                .as_ref()
                .is_none_or(|text| text.find(name).is_none())
            && self
                .suffix
                .as_ref()
                .is_none_or(|suffix| name.ends_with(suffix))
            && self.tags.iter().all(|condition| condition.matches(name))
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(name))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(name))
            && self
                .not_regex
                .as_ref()
                .is_none_or(|regex| !regex.is_match(name))
    }
}

impl Pattern {
    /// The first condition that does not hold: "regex" or "tags[1]".
    pub(crate) fn failing(&self, name: &[u8]) -> Option<String> {
        let fails = |holds: Option<bool>| holds == Some(false);
        let prefix = |prefix: &[u8]| name.starts_with(prefix);
        let contains = |text: &memmem::Finder<'static>| text.find(name).is_some();
        let matches = |regex: &Regex| regex.is_match(name);
        let checks = [
            ("prefix", self.prefix.as_deref().map(prefix)),
            (
                "notPrefix",
                self.not_prefix.as_deref().map(|text| !prefix(text)),
            ),
            ("contains", self.contains.as_ref().map(contains)),
            (
                "notContains",
                self.not_contains.as_ref().map(|text| !contains(text)),
            ),
            (
                "suffix",
                self.suffix.as_ref().map(|text| name.ends_with(text)),
            ),
            ("glob", self.glob.as_ref().map(matches)),
            ("regex", self.regex.as_ref().map(matches)),
            (
                "notRegex",
                self.not_regex.as_ref().map(|regex| !matches(regex)),
            ),
        ];
        let condition = checks.into_iter().find(|(_, holds)| fails(*holds));
        let tag = || {
            self.tags
                .iter()
                .position(|condition| !condition.matches(name))
        };
        match condition {
            Some((field, _)) => Some(field.to_owned()),
            None => tag().map(|index| format!("tags[{index}]")),
        }
    }
}

fn optional_regex(field: &str, pattern: &str) -> Result<Option<Regex>, InvalidPattern> {
    if pattern.is_empty() {
        return Ok(None);
    }
    let invalid = |message| InvalidPattern {
        field: field.to_owned(),
        message,
    };
    regex(pattern).map(Some).map_err(invalid)
}

fn tags(conditions: &[String]) -> Result<Box<[TagCondition]>, InvalidPattern> {
    let parse = |(index, text): (usize, &String)| {
        TagCondition::parse(text, regex).map_err(|message| InvalidPattern {
            field: format!("tags[{index}]"),
            message,
        })
    };
    conditions.iter().enumerate().map(parse).collect()
}

// Names are ASCII, and RE2's classes are too: without Unicode, `\d`, `\w` and `\b` mean what RE2 means by them.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| explain(pattern, &error))
}

fn explain(pattern: &str, error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!(
            "'{pattern}' takes more than {limit} bytes compiled: use smaller repetitions"
        );
    }
    // The library draws a picture over several lines; its last line says what is wrong.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    let wrong = last.strip_prefix("error: ").unwrap_or(last);
    format!("'{pattern}' is not a regular expression: {wrong}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(set: impl FnOnce(&mut Match)) -> Pattern {
        let mut conditions = Match::default();
        set(&mut conditions);
        Pattern::compile(&conditions).unwrap()
    }

    fn assert_matches(pattern: &Pattern, yes: &[&str], no: &[&str]) {
        for name in yes {
            assert!(
                pattern.matches(name.as_bytes()),
                "{name} should match {pattern:?}"
            );
        }
        for name in no {
            assert!(
                !pattern.matches(name.as_bytes()),
                "{name} should not match {pattern:?}"
            );
        }
    }

    // carbon-relay-ng's own vectors.
    #[test]
    fn single_conditions() {
        let (starting, others) = (["aaaaa"], ["abc", "baab", "a"]);
        assert_matches(&compiled(|m| m.prefix = "aaa".into()), &starting, &others);
        assert_matches(
            &compiled(|m| m.not_prefix = "aaa".into()),
            &others,
            &starting,
        );
        let (having, others) = (["aaaaa", "baaa", "aaab", "bbbaaabbb"], ["abc", "aa"]);
        assert_matches(&compiled(|m| m.contains = "aaa".into()), &having, &others);
        assert_matches(
            &compiled(|m| m.not_contains = "aaa".into()),
            &others,
            &having,
        );
        for (regex, yes, no) in [
            ("^[a-c]{3}", &["abcdef"][..], &["aad", "daaab"][..]),
            ("^abc.+", &["abcdef"], &["daaab", "abc"]),
            ("[a-c]{3}", &["abcdef", "aadbbb", "daaab"], &["dadada"]),
            ("^a|b", &["bx", "a", "xb"], &["xyz"]),
            ("^foo?bar", &["fobar", "foobar"], &["fbar"]),
        ] {
            assert_matches(&compiled(|m| m.regex = regex.into()), yes, no);
            assert_matches(&compiled(|m| m.not_regex = regex.into()), no, yes);
        }
    }

    #[test]
    fn conditions_are_anded() {
        let mut conditions = Match {
            regex: "[a-c]{3}".into(),
            prefix: "f".into(),
            ..Match::default()
        };
        let pattern = Pattern::compile(&conditions).unwrap();
        assert_matches(&pattern, &["fabc", "fffabc"], &["abcf", "fffab", "abcffff"]);
        conditions.not_prefix = "fa".into();
        let pattern = Pattern::compile(&conditions).unwrap();
        assert_matches(&pattern, &["fbca", "fcba"], &["fabc", "fcb", "cbaf"]);
        conditions.not_contains = "bca".into();
        let pattern = Pattern::compile(&conditions).unwrap();
        assert_matches(&pattern, &["fcba"], &["fabc", "fbca", "fcb", "cbaf"]);
        let pattern = compiled(|m| {
            m.contains = "a".into();
            m.not_contains = "aa".into();
            m.not_regex = "ab".into();
        });
        assert_matches(
            &pattern,
            &["aca", "cba"],
            &["aaa", "aba", "aab", "bab", "bbb"],
        );
    }

    #[test]
    fn nothing_set_matches_everything() {
        let pattern = Pattern::default();
        assert_matches(&pattern, &["", "a"], &[]);
    }

    #[test]
    fn bad_patterns_say_which_and_why() {
        let bad = |conditions| Pattern::compile(&conditions).unwrap_err();
        let error = bad(Match {
            regex: "(abc".into(),
            ..Match::default()
        });
        assert_eq!(error.field, "regex");
        assert_eq!(
            error.message,
            "'(abc' is not a regular expression: unclosed group"
        );
        let error = bad(Match {
            not_regex: "aaa)".into(),
            ..Match::default()
        });
        assert_eq!(error.field, "notRegex");
        assert_eq!(
            error.message,
            "'aaa)' is not a regular expression: unopened group"
        );
        let error = bad(Match {
            glob: "a[".into(),
            ..Match::default()
        });
        assert_eq!(error.field, "glob");
        assert_eq!(
            error.message,
            "'a[' is not a glob: a '[' is not closed: add a ']'"
        );
        let error = bad(Match {
            tags: vec!["a=b".into(), "a=~(".into()],
            ..Match::default()
        });
        assert_eq!(error.field, "tags[1]");
        let error = bad(Match {
            regex: "(a{1000}){1000}".into(),
            ..Match::default()
        });
        assert!(
            error.message.ends_with("use smaller repetitions"),
            "{}",
            error.message
        );
    }
}
