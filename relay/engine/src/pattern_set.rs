//! Many patterns, asked at once: the cost of a name does not grow with the patterns that do not match it.
//!
//! Each pattern has a [`Gate`]. Prefixes are found by one binary search, inner literals by one pass of an automaton, and
//! regular expressions without any literal by one pass of another. What is found, and the patterns that have nothing to be
//! found by, are candidates; only they are asked in full.

use std::collections::BTreeMap;

use aho_corasick::AhoCorasick;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::{Input, MatchKind, PatternSet as Found, meta};
use regex_syntax::hir::Hir;

use crate::expression::Expression;
use crate::gate::Gate;
use crate::pattern::Pattern;

/// With fewer patterns than this, asking them one by one is faster than finding out whom to ask.
const INDEXED_MIN: usize = 6;

/// The memory that the automaton of all regular expressions without a literal may take, in bytes.
const REGEX_SET_BYTES_MAX: usize = 32 << 20;

/// Patterns by number, and what finds them.
#[derive(Debug, Default)]
pub(crate) struct PatternSet {
    patterns: Vec<Pattern>,
    /// Those that are always asked.
    always: Vec<u32>,
    /// Sorted by their bytes.
    prefixes: Vec<Prefix>,
    inner: Option<Inner>,
    regexes: Option<Regexes>,
}

#[derive(Debug)]
struct Prefix {
    bytes: Box<[u8]>,
    // The longest other prefix that this one begins with.
    parent: Option<u32>,
    patterns: Vec<u32>,
}

#[derive(Debug)]
struct Inner {
    automaton: AhoCorasick,
    // By literal.
    patterns: Vec<Vec<u32>>,
}

// For names of ASCII; others are asked all of `patterns`.
#[derive(Debug)]
struct Regexes {
    set: meta::Regex,
    // By number in the set.
    patterns: Vec<u32>,
}

impl PatternSet {
    /// Makes a set of patterns; their numbers are their places.
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        let mut set = Self {
            patterns,
            ..Self::default()
        };
        if set.patterns.len() < INDEXED_MIN {
            set.always = (0..set.patterns.len() as u32).collect();
            return set;
        }
        let (mut prefixes, mut inner) = (BTreeMap::new(), BTreeMap::new());
        let mut open = Vec::new();
        for (number, pattern) in (0_u32..).zip(&mut set.patterns) {
            let (found_by, literals) = match pattern.take_gate() {
                Gate::Prefix(literals) => (&mut prefixes, literals),
                Gate::Inner(literals) => (&mut inner, literals),
                Gate::Open => {
                    open.push((number, pattern.regex()));
                    continue;
                }
            };
            for literal in literals {
                let patterns: &mut Vec<u32> = found_by.entry(literal).or_default();
                patterns.push(number);
            }
        }
        set.regexes = Regexes::new(&open, &mut set.always);
        set.prefixes = with_parents(prefixes);
        set.inner = Inner::new(inner, &mut set.always);
        set
    }

    /// The patterns, by number.
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The numbers of the patterns that match, in ascending order. `scratch` is memory to be reused.
    pub(crate) fn matching<'a>(
        &'a self,
        name: &'a [u8],
        scratch: &'a mut Vec<u32>,
    ) -> impl Iterator<Item = usize> + 'a {
        scratch.clear();
        scratch.extend_from_slice(&self.always);
        self.find_prefixes(name, scratch);
        if let Some(Inner {
            automaton,
            patterns,
        }) = &self.inner
        {
            for found in automaton.find_overlapping_iter(name) {
                scratch.extend_from_slice(&patterns[found.pattern().as_usize()]);
            }
        }
        if let Some(Regexes { set, patterns }) = &self.regexes {
            if name.is_ascii() {
                let mut found = Found::new(patterns.len());
                set.which_overlapping_matches(&Input::new(name), &mut found);
                scratch.extend(found.iter().map(|number| patterns[number.as_usize()]));
            } else {
                scratch.extend_from_slice(patterns);
            }
        }
        if scratch.len() > self.always.len() {
            scratch.sort_unstable();
            scratch.dedup();
        }
        let numbers = scratch.iter().map(|number| *number as usize);
        numbers.filter(|number| self.patterns[*number].matches(name))
    }

    // Every prefix of a name is the last one that sorts before it, or one that that one begins with.
    fn find_prefixes(&self, name: &[u8], found: &mut Vec<u32>) {
        let after = self
            .prefixes
            .partition_point(|prefix| *prefix.bytes <= *name);
        let mut next = after.checked_sub(1).map(|last| last as u32);
        while let Some(index) = next {
            let prefix = &self.prefixes[index as usize];
            if name.starts_with(&prefix.bytes) {
                found.extend_from_slice(&prefix.patterns);
            }
            next = prefix.parent;
        }
    }
}

fn with_parents(prefixes: BTreeMap<Box<[u8]>, Vec<u32>>) -> Vec<Prefix> {
    let mut sorted: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    // The prefixes that the one before begins with, and itself, longest last.
    let mut open: Vec<u32> = Vec::new();
    for (bytes, patterns) in prefixes {
        while open
            .last()
            .is_some_and(|last| !bytes.starts_with(&sorted[*last as usize].bytes))
        {
            open.pop();
        }
        let parent = open.last().copied();
        open.push(sorted.len() as u32);
        sorted.push(Prefix {
            bytes,
            parent,
            patterns,
        });
    }
    sorted
}

impl Inner {
    // Patterns whose literals make no automaton go to `always`.
    fn new(found_by: BTreeMap<Box<[u8]>, Vec<u32>>, always: &mut Vec<u32>) -> Option<Self> {
        if found_by.is_empty() {
            return None;
        }
        let (literals, patterns): (Vec<_>, Vec<_>) = found_by.into_iter().unzip();
        match AhoCorasick::new(literals) {
            Ok(automaton) => Some(Self {
                automaton,
                patterns,
            }),
            Err(_) => {
                add_sorted(always, patterns.into_iter().flatten());
                None
            }
        }
    }
}

impl Regexes {
    // Patterns that have no regular expression, or whose expressions are too large together, go to `always`.
    fn new(open: &[(u32, Option<&Expression>)], always: &mut Vec<u32>) -> Option<Self> {
        let with = || {
            open.iter()
                .filter_map(|(number, regex)| Some((*number, (*regex)?)))
        };
        add_sorted(
            always,
            open.iter()
                .filter(|(_, regex)| regex.is_none())
                .map(|(number, _)| *number),
        );
        let patterns: Vec<u32> = with().map(|(number, _)| number).collect();
        if patterns.len() >= INDEXED_MIN
            && let Some(set) = regex_set(with().map(|(_, regex)| regex))
        {
            return Some(Self { set, patterns });
        }
        add_sorted(always, patterns);
        None
    }
}

fn regex_set<'e>(expressions: impl Iterator<Item = &'e Expression>) -> Option<meta::Regex> {
    let syntax: Vec<Hir> = expressions.map(Expression::ascii_syntax).collect();
    let config = meta::Config::new()
        .match_kind(MatchKind::All)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(REGEX_SET_BYTES_MAX))
        .hybrid_cache_capacity(REGEX_SET_BYTES_MAX);
    let mut builder = meta::Builder::new();
    builder.configure(config).build_many_from_hir(&syntax).ok()
}

fn add_sorted(always: &mut Vec<u32>, numbers: impl IntoIterator<Item = u32>) {
    always.extend(numbers);
    always.sort_unstable();
    always.dedup();
}

#[cfg(test)]
mod tests {
    use relay_proto::Match;

    use super::*;

    #[test]
    fn the_set_finds_what_asking_each_pattern_finds() {
        let of = |prefix: &str, contains: &str, regex: &str, not_regex: &str| Match {
            prefix: prefix.into(),
            contains: contains.into(),
            regex: regex.into(),
            not_regex: not_regex.into(),
            ..Match::default()
        };
        let conditions = [
            of("a", "", "", ""),
            of("ab", "", "", ""),
            of("abc", "", "c$", ""),
            of("b", "", "", "x"),
            of("", "bc", "", ""),
            of("", "", "^(ab|b)c", ""),
            of("", "", "bc|cb", ""),
            of("", "", "", "a"),
            of("", "", "", ""),
            of("", "", "a$", ""),
            of("", "", "^[ab]+$", ""),
            of("", "", "[bc]$", ""),
            of("", "", "^.b", ""),
            of("", "", "a.?c", ""),
            of("", "", "c", ""),
            of("", "", "b", "c"),
            Match {
                suffix: "bc".into(),
                ..Match::default()
            },
            Match {
                glob: "a?*c".into(),
                ..Match::default()
            },
            Match {
                glob: "*b".into(),
                regex: "a".into(),
                ..Match::default()
            },
        ];
        let compile = || {
            conditions
                .iter()
                .map(|conditions| Pattern::compile(conditions).unwrap())
        };
        let set = PatternSet::new(compile().collect());
        assert!(set.inner.is_some() && set.regexes.is_some() && set.prefixes.len() > 3);
        let patterns: Vec<_> = compile().collect();
        let mut scratch = Vec::new();
        let mut names = vec![Vec::new()];
        for length in 0..6 {
            let longest: Vec<_> = names
                .iter()
                .filter(|name| name.len() == length)
                .cloned()
                .collect();
            for name in longest {
                names.extend(b"abcx".map(|byte| [&name[..], &[byte]].concat()));
            }
        }
        for name in names {
            let found: Vec<usize> = set.matching(&name, &mut scratch).collect();
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|number| patterns[*number].matches(&name))
                .collect();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(&name));
        }
    }

    // What bounds the cost of a large table: few of its expressions are ever compiled.
    #[test]
    fn patterns_whose_gate_stays_closed_are_not_compiled() {
        let pattern = |team: usize| {
            let regex = format!(r"^team{team}\..*\.(cpu|mem|disk)\.[a-z]+$");
            Pattern::compile(&Match {
                regex,
                ..Match::default()
            })
        };
        let set = PatternSet::new((0..1000).map(|team| pattern(team).unwrap()).collect());
        let mut scratch = Vec::new();
        for name in [
            "team17.a.cpu.user",
            "team.cpu",
            "x.team18.a.cpu.user",
            "team19",
        ] {
            set.matching(name.as_bytes(), &mut scratch).for_each(drop);
        }
        let is_compiled = |pattern: &Pattern| pattern.regex().is_some_and(Expression::is_compiled);
        let compiled: Vec<usize> = (0..1000)
            .filter(|number| is_compiled(&set.patterns[*number]))
            .collect();
        assert_eq!(compiled, [17]);
    }

    #[test]
    fn names_that_are_not_ascii_find_what_asking_each_pattern_finds() {
        let regexes = [
            "^.b",
            "^é",
            "é.b",
            "[^a]$",
            "\\x{FFFD}",
            "a\\x{FFFD}",
            "(?i)k",
            "(?i)^ſ",
            "\\PL$",
            "^[[:^ascii:]]",
            "^...$",
        ];
        let compile = || {
            regexes.iter().map(|regex| {
                let regex = (*regex).to_owned();
                let conditions = Match {
                    regex,
                    ..Match::default()
                };
                Pattern::compile(&conditions).unwrap()
            })
        };
        let (set, patterns) = (
            PatternSet::new(compile().collect()),
            Vec::from_iter(compile()),
        );
        assert!(set.regexes.is_some() && set.inner.is_some());
        let mut scratch = Vec::new();
        let mut found_any = vec![false; regexes.len()];
        for name in [
            &b"\xC3\xA9b"[..],
            b"\xC3\xA9xb",
            b"\xFFb",
            b"a\xFF",
            b"a\xEF\xBF\xBD",
            b"\xE2\x84\xAA",
            b"S",
            b"\xC5\xBF",
            b"a\xC3",
        ] {
            let found: Vec<usize> = set.matching(name, &mut scratch).collect();
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|number| patterns[*number].matches(name))
                .collect();
            assert_eq!(found, expected, "{}", name.escape_ascii());
            found
                .into_iter()
                .for_each(|number| found_any[number] = true);
        }
        assert_eq!(found_any, vec![true; regexes.len()]);
    }
}
