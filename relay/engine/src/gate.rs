//! What a name must have in it for a pattern to match at all, read from the pattern's conditions and from the syntax of its
//! regular expression. It is found in one look at the name for all patterns together; only patterns whose gate is open are
//! then asked.

use regex_syntax::hir::literal::{ExtractKind, Extractor, Literal};
use regex_syntax::hir::{Hir, Look};
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
    /// The best gate of `conditions`, whose regular expression and glob are `regex` and `glob`.
    pub(crate) fn of(conditions: &Match, regex: Option<&Hir>, glob: Option<&Hir>) -> Self {
        let text = |text: &str| vec![text.as_bytes().into()];
        if !conditions.prefix.is_empty() {
            return Self::Prefix(text(&conditions.prefix));
        }
        let of_regex = |hir: Option<&Hir>| hir.map_or(Self::Open, Self::of_regex);
        let (regex, glob) = (of_regex(regex), of_regex(glob));
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

    /// The gate of a regular expression.
    pub(crate) fn of_regex(hir: &Hir) -> Self {
        let literals = |kind: ExtractKind, bytes_min: usize| -> Option<Vec<Box<[u8]>>> {
            let sequence = Extractor::new()
                .kind(kind)
                .limit_total(LITERALS_MAX)
                .extract(hir);
            let literals = sequence.literals()?;
            let useful = |literal: &Literal| literal.len() >= bytes_min && is_found(literal);
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

/// Whether names have a literal of a regular expression as it stands: U+FFFD means any byte that is not UTF-8, and a literal that was cut may have a part of it.
pub(crate) fn is_found(literal: &Literal) -> bool {
    let text = std::str::from_utf8(literal.as_bytes());
    text.is_ok_and(|text| !text.contains(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::re2::{self, Alphabet};

    fn hir(pattern: &str) -> Hir {
        re2::parse(pattern, Alphabet::Unicode).unwrap().hir
    }

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
            ("^é\\.x", Gate::Prefix(boxed(&["é.x"]))),
            ("a\u{FFFD}", Gate::Open),
            (
                "(?i)^as",
                Gate::Prefix(boxed(&["AS", "As", "Aſ", "aS", "as", "aſ"])),
            ),
        ] {
            assert_eq!(Gate::of_regex(&hir(pattern)), gate, "{pattern}");
        }
    }

    #[test]
    fn the_best_of_several_conditions_is_the_gate() {
        let gate = |prefix: &str, contains: &str, regex: &str| {
            let conditions = Match {
                prefix: prefix.into(),
                contains: contains.into(),
                ..Match::default()
            };
            Gate::of(&conditions, Some(&hir(regex)), None)
        };
        assert_eq!(gate("p", "cc", "^a"), Gate::Prefix(boxed(&["p"])));
        assert_eq!(gate("", "cc", "^a"), Gate::Prefix(boxed(&["a"])));
        assert_eq!(gate("", "cc", "ab"), Gate::Inner(boxed(&["cc"])));
        assert_eq!(gate("", "", "ab"), Gate::Inner(boxed(&["ab"])));
        let not_prefix = Match {
            not_prefix: "x".into(),
            ..Match::default()
        };
        assert_eq!(Gate::of(&not_prefix, None, None), Gate::Open);
    }
}
