//! What a name must have in it for a pattern to match at all, read from the pattern's conditions and from the syntax of its
//! regular expression. It is found in one look at the name for all patterns together; only patterns whose gate is open are
//! then asked.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::Look;
use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal};
use relay_proto::Match;

/// Literals of one regular expression; with more it has no gate.
const LITERALS_MAX: usize = 64;

/// The shortest literal that is worth searching a name for, in bytes.
const INNER_BYTES_MIN: usize = 2;

/// A condition that holds whenever a pattern matches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The name begins with one of these.
    Prefix(Vec<Box<[u8]>>),
    /// The name has one of these in it.
    Inner(Vec<Box<[u8]>>),
    /// There is none.
    #[default]
    Open,
}

impl Gate {
    /// The best gate of `conditions`, whose glob is the regular expression `glob`.
    pub(crate) fn of(conditions: &Match, glob: &str) -> Self {
        let text = |text: &str| vec![text.as_bytes().into()];
        if !conditions.prefix.is_empty() {
            return Self::Prefix(text(&conditions.prefix));
        }
        let (regex, glob) = (Self::of_regex(&conditions.regex), Self::of_regex(glob));
        let inner = [&conditions.contains, &conditions.suffix];
        let longest = inner.into_iter().max_by_key(|text| text.len());
        match (regex, glob) {
            (Self::Prefix(literals), _) | (_, Self::Prefix(literals)) => Self::Prefix(literals),
            _ if let Some(longest) = longest
                && longest.len() >= INNER_BYTES_MIN =>
            {
                Self::Inner(text(longest))
            }
            (Self::Inner(literals), _) | (_, Self::Inner(literals)) => Self::Inner(literals),
            (Self::Open, Self::Open) => Self::Open,
        }
    }

    fn of_regex(pattern: &str) -> Self {
        let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
        let Ok(hir) = parser.parse(pattern) else {
            return Self::Open;
        };
        let literals = |kind: ExtractKind, bytes_min: usize| -> Option<Vec<Box<[u8]>>> {
            let sequence = Extractor::new()
                .kind(kind)
                .limit_total(LITERALS_MAX)
                .extract(&hir);
            let literals = sequence.literals()?;
            let useful = |literal: &Literal| literal.len() >= bytes_min;
            let all_useful = !literals.is_empty() && literals.iter().all(useful);
            all_useful.then(|| {
                literals
                    .iter()
                    .map(|literal| literal.as_bytes().into())
                    .collect()
            })
        };
        let begins = hir.properties().look_set_prefix().contains(Look::Start);
        if begins && let Some(prefixes) = literals(ExtractKind::Prefix, 1) {
            return Self::Prefix(prefixes);
        }
        let inner = literals(ExtractKind::Prefix, INNER_BYTES_MIN)
            .or_else(|| literals(ExtractKind::Suffix, INNER_BYTES_MIN));
        inner.map_or(Self::Open, Self::Inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(literals: &[&str]) -> Vec<Box<[u8]>> {
        literals
            .iter()
            .map(|literal| literal.as_bytes().into())
            .collect()
    }

    #[test]
    fn gates_of_regular_expressions() {
        for (pattern, gate) in [
            ("^team1\\..*\\.cpu$", Gate::Prefix(boxed(&["team1."]))),
            ("^(web|db)\\.", Gate::Prefix(boxed(&["web.", "db."]))),
            ("^a|b", Gate::Open),
            ("^foo?bar", Gate::Prefix(boxed(&["foobar", "fobar"]))),
            ("^a{0,1}b", Gate::Prefix(boxed(&["ab", "b"]))),
            ("dc[01]\\.web", Gate::Inner(boxed(&["dc0.web", "dc1.web"]))),
            ("[a-z]+\\.cpu$", Gate::Inner(boxed(&[".cpu"]))),
            ("^[a-z]+$", Gate::Open),
            ("(?m)^ab", Gate::Inner(boxed(&["ab"]))),
            ("", Gate::Open),
            ("(", Gate::Open),
        ] {
            assert_eq!(Gate::of_regex(pattern), gate, "{pattern}");
        }
    }

    #[test]
    fn the_best_of_several_conditions_is_the_gate() {
        let conditions = |prefix: &str, contains: &str, regex: &str| Match {
            prefix: prefix.into(),
            contains: contains.into(),
            regex: regex.into(),
            ..Match::default()
        };
        assert_eq!(
            Gate::of(&conditions("p", "cc", "^a"), ""),
            Gate::Prefix(boxed(&["p"]))
        );
        assert_eq!(
            Gate::of(&conditions("", "cc", "^a"), ""),
            Gate::Prefix(boxed(&["a"]))
        );
        assert_eq!(
            Gate::of(&conditions("", "cc", "ab"), ""),
            Gate::Inner(boxed(&["cc"]))
        );
        assert_eq!(
            Gate::of(&conditions("", "", "ab"), ""),
            Gate::Inner(boxed(&["ab"]))
        );
        assert_eq!(
            Gate::of(
                &Match {
                    not_prefix: "x".into(),
                    ..Match::default()
                },
                ""
            ),
            Gate::Open
        );
    }
}
