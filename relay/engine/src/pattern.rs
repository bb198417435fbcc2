//! `match`: conditions on a series name, compiled once.

use memchr::memmem;
use regex_syntax::hir::Hir;
use relay_proto::Match;

use crate::expression::Expression;
use crate::gate::Gate;
use crate::glob;
use crate::tags::TagCondition;

/// Conditions on a series name; all must hold.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    // Cheap ones first.
    conditions: Box<[Condition]>,
    gate: Gate,
}

#[derive(Debug)]
enum Condition {
    Prefix(Box<[u8]>),
    NotPrefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    // A finder is large.
    Contains(Box<memmem::Finder<'static>>),
    NotContains(Box<memmem::Finder<'static>>),
    Tag(TagCondition),
    Glob(Expression),
    Regex(Expression),
    NotRegex(Expression),
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
        let (regex, regex_syntax) = optional_regex("regex", &conditions.regex)?;
        let (glob, glob_syntax) = optional_regex("glob", &glob(&conditions.glob)?)?;
        let (not_regex, _) = optional_regex("notRegex", &conditions.not_regex)?;
        let gate = Gate::of(conditions, regex_syntax.as_ref(), glob_syntax.as_ref());
        let set = |text: &String| (!text.is_empty()).then(|| text.clone());
        let bytes = |text| set(text).map(|text| text.into_bytes().into());
        let finder = |text| set(text).map(|text| memmem::Finder::new(&text).into_owned().into());
        let tags = tags(&conditions.tags)?;
        let all = [
            bytes(&conditions.prefix).map(Condition::Prefix),
            bytes(&conditions.not_prefix).map(Condition::NotPrefix),
            bytes(&conditions.suffix).map(Condition::Suffix),
            finder(&conditions.contains).map(Condition::Contains),
            finder(&conditions.not_contains).map(Condition::NotContains),
        ]
        .into_iter()
        .flatten()
        .chain(tags.into_iter().map(Condition::Tag))
        .chain(glob.map(Condition::Glob))
        .chain(regex.map(Condition::Regex))
        .chain(not_regex.map(Condition::NotRegex));
        Ok(Self {
            conditions: all.collect(),
            gate,
        })
    }

    /// Takes out what a name must have for the pattern to match.
    pub(crate) fn take_gate(&mut self) -> Gate {
        std::mem::take(&mut self.gate)
    }

    /// A regular expression that must match.
    pub(crate) fn regex(&self) -> Option<&Expression> {
        // The last one that is set, the regex before the glob.
        self.conditions.iter().rev().find_map(Condition::regex)
    }

    /// Whether all conditions hold.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(name))
    }

    /// The first condition that does not hold: "regex" or "tags[1]".
    pub(crate) fn failing(&self, name: &[u8]) -> Option<String> {
        let fails = |condition: &Condition| !condition.holds(name);
        let place = self.conditions.iter().position(fails)?;
        let field = match &self.conditions[place] {
            Condition::Prefix(_) => "prefix",
            Condition::NotPrefix(_) => "notPrefix",
            Condition::Suffix(_) => "suffix",
            Condition::Contains(_) => "contains",
            Condition::NotContains(_) => "notContains",
            Condition::Tag(_) => {
                let is_tag = |condition: &&Condition| matches!(condition, Condition::Tag(_));
                let index = self.conditions[..place].iter().filter(is_tag).count();
                return Some(format!("tags[{index}]"));
            }
            Condition::Glob(_) => "glob",
            Condition::Regex(_) => "regex",
            Condition::NotRegex(_) => "notRegex",
        };
        Some(field.to_owned())
    }
}

impl Condition {
    fn regex(&self) -> Option<&Expression> {
        match self {
            Self::Glob(regex) | Self::Regex(regex) => Some(regex),
            Self::Prefix(_)
            | Self::NotPrefix(_)
            | Self::Suffix(_)
            | Self::Contains(_)
            | Self::NotContains(_)
            | Self::Tag(_)
            | Self::NotRegex(_) => None,
        }
    }

    fn holds(&self, name: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::NotPrefix(prefix) => !name.starts_with(prefix),
            Self::Suffix(suffix) => name.ends_with(suffix),
            Self::Contains(text) => text.find(name).is_some(),
            Self::NotContains(text) => text.find(name).is_none(),
            Self::Tag(condition) => condition.matches(name),
            Self::Glob(regex) | Self::Regex(regex) => regex.is_match(name),
            Self::NotRegex(regex) => !regex.is_match(name),
        }
    }
}

fn optional_regex(
    field: &str,
    pattern: &str,
) -> Result<(Option<Expression>, Option<Hir>), InvalidPattern> {
    if pattern.is_empty() {
        return Ok((None, None));
    }
    match Expression::anywhere(pattern) {
        Ok((expression, hir)) => Ok((Some(expression), Some(hir))),
        Err(message) => Err(InvalidPattern {
            field: field.to_owned(),
            message,
        }),
    }
}

// As a regular expression; empty if `glob` is.
fn glob(glob: &str) -> Result<String, InvalidPattern> {
    if glob.is_empty() {
        return Ok(String::new());
    }
    glob::to_regex(glob).map_err(|message| InvalidPattern {
        field: "glob".to_owned(),
        message: format!("'{glob}' is not a glob: {message}"),
    })
}

fn tags(conditions: &[String]) -> Result<Vec<TagCondition>, InvalidPattern> {
    let parse = |(index, text): (usize, &String)| {
        TagCondition::parse(text).map_err(|message| InvalidPattern {
            field: format!("tags[{index}]"),
            message,
        })
    };
    conditions.iter().enumerate().map(parse).collect()
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
            "'(abc' is not a regular expression: unclosed group at character 1: add a ')', or write \\( for the byte itself"
        );
        let error = bad(Match {
            not_regex: "aaa)".into(),
            ..Match::default()
        });
        assert_eq!(error.field, "notRegex");
        assert_eq!(
            error.message,
            "'aaa)' is not a regular expression: unopened group at character 4: remove it, or write \\) for the byte itself"
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
            regex: "\\pL{1000}".into(),
            ..Match::default()
        });
        assert!(
            error.message.ends_with("use smaller repetitions"),
            "{}",
            error.message
        );
    }
}
