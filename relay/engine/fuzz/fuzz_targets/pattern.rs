//! Whatever match people write: no panic, and where it is taken, a table routes by it as if each of its conditions were asked
//! by itself, with or without the index over many routes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_engine::Table;
use relay_proto::Match;

#[path = "tables.rs"]
mod tables;

// Enough to make every part of the index worth while.
const OTHERS: usize = 14;

fuzz_target!(|texts: ([&str; 8], Vec<&[u8]>)| {
    let (texts, names) = texts;
    let whole = message(&texts);
    let Some(alone) = load(std::slice::from_ref(&whole)) else { return };
    // Fewer than make the index, and more.
    let parts = single(&whole);
    let mut all = vec![whole];
    all.extend(parts.iter().cloned());
    all.extend((0..OTHERS).map(other));
    let Some(indexed) = load(&all) else { panic!("the whole is valid, but not each condition") };
    let parts: Vec<Table> = parts.iter().map(table).collect();
    for name in names.into_iter().filter(|name| tables::is_plain(name)) {
        let found = tables::taken(&indexed, name);
        let naive: Vec<bool> = parts.iter().map(|part| tables::taken(part, name)[0]).collect();
        assert_eq!(&found[1..=naive.len()], &naive);
        let expected = !naive.contains(&false);
        assert_eq!(found[0], expected);
        assert_eq!(tables::taken(&alone, name)[0], expected);
    }
});

fn load(matches: &[Match]) -> Option<Table> {
    Table::load(&tables::snapshot(matches)).ok()
}

fn table(one: &Match) -> Table {
    load(std::slice::from_ref(one)).expect("each condition of a valid match is valid")
}

fn message(texts: &[&str; 8]) -> Match {
    let [prefix, not_prefix, contains, not_contains, suffix, regex, glob, rest] = texts.map(str::to_owned);
    let (not_regex, tag) = rest.split_once('\0').unwrap_or((&rest, ""));
    Match {
        prefix,
        not_prefix,
        contains,
        not_contains,
        suffix,
        regex,
        not_regex: not_regex.to_owned(),
        glob,
        tags: (!tag.is_empty()).then(|| tag.to_owned()).into_iter().collect(),
    }
}

// Each condition that is set, by itself.
fn single(all: &Match) -> Vec<Match> {
    let none = Match::default;
    let all = all.clone();
    let mut single = vec![
        Match { prefix: all.prefix, ..none() },
        Match { not_prefix: all.not_prefix, ..none() },
        Match { contains: all.contains, ..none() },
        Match { not_contains: all.not_contains, ..none() },
        Match { suffix: all.suffix, ..none() },
        Match { regex: all.regex, ..none() },
        Match { not_regex: all.not_regex, ..none() },
        Match { glob: all.glob, ..none() },
    ];
    single.extend(all.tags.into_iter().map(|tag| Match { tags: vec![tag], ..none() }));
    single.retain(|one| *one != none());
    single
}

// Half of them have a literal, half have none.
fn other(number: usize) -> Match {
    let (kind, length) = (number % 4, number / 4 + 1);
    let mut other = Match::default();
    match kind {
        0 => other.prefix = "ab".repeat(length),
        1 => other.contains = "bc".repeat(length),
        2 => other.regex = format!("^[a-z]{{{length}}}"),
        _ => other.regex = format!("[0-9]{{{length}}}$"),
    }
    other
}
