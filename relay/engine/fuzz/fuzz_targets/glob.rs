//! Whatever glob people write: no panic, and where it is taken, a table routes by it as a naive matcher does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_engine::Table;
use relay_proto::Match;

#[path = "tables.rs"]
mod tables;

fuzz_target!(|texts: (&str, &str)| {
    let (glob, name) = texts;
    if glob.is_empty() || !tables::is_plain(name.as_bytes()) {
        return;
    }
    let conditions = Match { glob: glob.to_owned(), ..Match::default() };
    let characters: Vec<char> = glob.chars().collect();
    let parsed = parse(&characters);
    let Ok(table) = Table::load(&tables::snapshot(&[conditions])) else {
        // Large or deep ones are refused though they are globs.
        assert!(parsed.is_none() || glob.len() > 200, "{glob} was refused");
        return;
    };
    let Some(parts) = parsed else { panic!("{glob} was taken") };
    let text: Vec<char> = name.chars().collect();
    let mut fuel = 1_000_000;
    if let Some(expected) = matches(&parts, &text, &mut fuel) {
        assert_eq!(tables::taken(&table, name.as_bytes()), vec![expected], "{glob} and {name}");
    }
});

#[derive(Debug)]
enum Part {
    One(char),
    Any,
    Star,
    StarStar,
    Class { is_negated: bool, ranges: Vec<(char, char)> },
    Choice(Vec<Vec<Part>>),
}

fn parse(glob: &[char]) -> Option<Vec<Part>> {
    let mut at = 0;
    let mut choices = sequence(glob, &mut at, 0)?;
    (at == glob.len()).then(|| choices.remove(0))
}

// The choices of one level, up to its end.
fn sequence(glob: &[char], at: &mut usize, depth: usize) -> Option<Vec<Vec<Part>>> {
    let mut choices = vec![Vec::new()];
    loop {
        let next = glob.get(*at).copied();
        *at += 1;
        let part = match next {
            None => {
                *at -= 1;
                return (depth == 0).then_some(choices);
            }
            Some('}') => return (depth > 0).then_some(choices),
            Some(',') if depth > 0 => {
                choices.push(Vec::new());
                continue;
            }
            Some('{') => Part::Choice(sequence(glob, at, depth + 1)?),
            Some('*') if glob.get(*at) == Some(&'*') => {
                *at += 1;
                Part::StarStar
            }
            Some('*') => Part::Star,
            Some('?') => Part::Any,
            Some('\\') => {
                *at += 1;
                Part::One(*glob.get(*at - 1)?)
            }
            Some('[') => class(glob, at)?,
            Some(other) => Part::One(other),
        };
        choices.last_mut()?.push(part);
    }
}

fn class(glob: &[char], at: &mut usize) -> Option<Part> {
    let is_negated = matches!(glob.get(*at), Some('!' | '^'));
    *at += usize::from(is_negated);
    let end = *at + 1 + glob.get(*at + 1..)?.iter().position(|c| *c == ']')?;
    let members = &glob[*at..end];
    *at = end + 1;
    let mut ranges = Vec::new();
    let mut rest = members;
    while let Some((first, after)) = rest.split_first() {
        match after {
            ['-', last, after @ ..] => {
                if last < first {
                    return None;
                }
                ranges.push((*first, *last));
                rest = after;
            }
            _ => {
                ranges.push((*first, *first));
                rest = after;
            }
        }
    }
    Some(Part::Class { is_negated, ranges })
}

// `None` when it takes too long.
fn matches(parts: &[Part], text: &[char], fuel: &mut u32) -> Option<bool> {
    ends(parts, text, 0, fuel).map(|ends| ends.contains(&text.len()))
}

// Where `parts` can end when they begin at `from`.
fn ends(parts: &[Part], text: &[char], from: usize, fuel: &mut u32) -> Option<Vec<usize>> {
    *fuel = fuel.checked_sub(1)?;
    let Some((part, rest)) = parts.split_first() else { return Some(vec![from]) };
    let one = |takes: bool| if takes { vec![from + 1] } else { Vec::new() };
    let next = text.get(from).copied();
    let not_dot = next.is_some_and(|c| c != '.');
    let after: Vec<usize> = match part {
        Part::One(c) => one(next == Some(*c)),
        Part::Any => one(not_dot),
        Part::Star => {
            let run = text[from..].iter().take_while(|c| **c != '.').count();
            (from..=from + run).collect()
        }
        Part::StarStar => (from..=text.len()).collect(),
        Part::Class { is_negated, ranges } => {
            let is_in = |c: char| ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
            one(not_dot && next.is_some_and(|c| is_in(c) != *is_negated))
        }
        Part::Choice(choices) => {
            let mut all = Vec::new();
            for choice in choices {
                all.extend(ends(choice, text, from, fuel)?);
            }
            all
        }
    };
    let mut found = Vec::new();
    for from in after {
        found.extend(ends(rest, text, from, fuel)?);
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}
