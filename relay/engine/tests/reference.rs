//! The engine against a naive reference, written straight from the semantics: whatever the table, the names, the order of
//! blocks and the swaps of tables between them, the engine's memory of names and its short cuts never change what comes out.

use proptest::prelude::*;
use regex::Regex;
use relay_engine::{Engine, Moment, Outbox, Table, UnixSeconds};
use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

const DESTINATIONS: [&str; 3] = ["a", "b", "c"];
const NOW: u64 = 1_700_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_engine_does_what_the_reference_does(
        tables in prop::collection::vec(snapshot(), 1..4),
        blocks in prop::collection::vec((0_usize..4, prop::collection::vec(line(), 0..80)), 1..12),
    ) {
        let loaded: Vec<_> = tables.iter().map(|snapshot| Table::load(snapshot).expect("it is valid")).collect();
        let mut engine = Engine::new(0);
        let mut out = Outbox::default();
        for (table, lines) in &blocks {
            let table = table % tables.len();
            let moment = Moment { now: UnixSeconds(NOW), stamp: 0, is_live: &|_| true };
            let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
            engine.process(&loaded[table], block.as_bytes(), 64, moment, &mut out);
            let mut came_out = vec![String::new(); DESTINATIONS.len()];
            out.drain(|destination, bytes, _| {
                came_out[destination.get()] = String::from_utf8(bytes.clone()).expect("it is text");
            });
            let mut expected = vec![String::new(); DESTINATIONS.len()];
            for line in lines {
                if let Some((text, destinations)) = reference(&tables[table], line) {
                    destinations.iter().for_each(|index| expected[*index] += &text);
                }
            }
            prop_assert_eq!(came_out, expected);
        }
    }
}

// What comes out of a line, and for whom; `None` if it is dropped.
fn reference(snapshot: &Snapshot, line: &str) -> Option<(String, Vec<usize>)> {
    if line.len() > 64 {
        return None;
    }
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [name, value, timestamp] = fields[..] else {
        return None;
    };
    let name = name.strip_prefix('.').unwrap_or(name);
    let first_node = name.split(['.', ';']).next().unwrap_or_default();
    let is_metrics20 = first_node.contains('=') || first_node.contains("_is_");
    if name.is_empty() || name.starts_with(';') || !name.is_ascii() || is_metrics20 {
        return None;
    }
    let tags_are_fine = name.split(';').skip(1).all(|tag| {
        tag.split_once('=').is_some_and(|(key, value)| {
            !key.is_empty() && !key.contains('!') && !value.is_empty() && !value.contains('=')
        })
    });
    let value_is_fine = value.parse::<f64>().is_ok_and(f64::is_finite);
    let timestamp = match timestamp {
        "N" | "-1" => NOW.to_string(),
        digits if digits.parse::<u32>().is_ok() && !digits.starts_with('+') => digits.to_owned(),
        _ => return None,
    };
    let mut blocked = snapshot
        .blocklists
        .iter()
        .flat_map(|blocklist| &blocklist.entries);
    if !tags_are_fine || !value_is_fine || blocked.any(|entry| matches(entry, name)) {
        return None;
    }
    let destinations = route(snapshot, name);
    (!destinations.is_empty()).then(|| (format!("{name} {value} {timestamp}\n"), destinations))
}

fn route(snapshot: &Snapshot, name: &str) -> Vec<usize> {
    let mut destinations = Vec::new();
    let mut stopped = false;
    for unmatched_only in [false, true] {
        for route in snapshot
            .routes
            .iter()
            .filter(|route| route.unmatched_only == unmatched_only)
        {
            if stopped || (unmatched_only && !destinations.is_empty()) {
                break;
            }
            if !route
                .r#match
                .as_ref()
                .is_none_or(|conditions| matches(conditions, name))
            {
                continue;
            }
            let targets = route.targets.iter().filter(|target| {
                target
                    .r#match
                    .as_ref()
                    .is_none_or(|conditions| matches(conditions, name))
            });
            let first_only = route.distribution() == proto::Distribution::FirstMatch;
            for target in targets.take(if first_only { 1 } else { usize::MAX }) {
                let name = &target.destination.as_ref().expect("a target has one").name;
                let index = DESTINATIONS
                    .iter()
                    .position(|destination| destination == name)
                    .expect("it is one of them");
                stopped |= route.stop;
                if !destinations.contains(&index) {
                    destinations.push(index);
                }
            }
        }
    }
    destinations
}

fn matches(conditions: &Match, name: &str) -> bool {
    let unset_or = |text: &str, holds: bool| text.is_empty() || holds;
    let found = |regex: &str| Regex::new(regex).expect("it is valid").is_match(name);
    unset_or(&conditions.prefix, name.starts_with(&conditions.prefix))
        && unset_or(
            &conditions.not_prefix,
            !name.starts_with(&conditions.not_prefix),
        )
        && unset_or(&conditions.contains, name.contains(&conditions.contains))
        && unset_or(
            &conditions.not_contains,
            !name.contains(&conditions.not_contains),
        )
        && unset_or(&conditions.suffix, name.ends_with(&conditions.suffix))
        && unset_or(
            &conditions.glob,
            glob(conditions.glob.as_bytes(), name.as_bytes()),
        )
        && conditions.tags.iter().all(|condition| tag(condition, name))
        && unset_or(&conditions.regex, found(&conditions.regex))
        && unset_or(&conditions.not_regex, !found(&conditions.not_regex))
}

fn glob(glob_left: &[u8], name_left: &[u8]) -> bool {
    match (glob_left, name_left) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let end = name_left
                .iter()
                .position(|byte| *byte == b'.')
                .unwrap_or(name_left.len());
            (0..=end).any(|taken| glob(rest, &name_left[taken..]))
        }
        ([b'?', rest @ ..], [byte, more @ ..]) => *byte != b'.' && glob(rest, more),
        ([literal, rest @ ..], [byte, more @ ..]) => literal == byte && glob(rest, more),
        ([_, ..], []) | ([], [_, ..]) => false,
    }
}

fn tag(condition: &str, name: &str) -> bool {
    let (key, value) = condition.split_once('=').expect("it has a value");
    let (key, is_negated) = key
        .strip_suffix('!')
        .map_or((key, false), |key| (key, true));
    let mut tags = name
        .split(';')
        .skip(1)
        .filter_map(|tag| tag.split_once('='));
    let found = tags
        .find(|(tag, _)| *tag == key)
        .map_or("", |(_, value)| value);
    (found == value) != is_negated
}

// Few letters, so that names repeat and conditions hit.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ab]{1,2}\\.[abc]{1,2}",
        2 => "[ab.]{0,4}(;[ab]=[ab]){0,2}",
        1 => "[ab.=_;!é]{0,6}",
        1 => "a_is_b\\.[ab]",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        8 => "-?[0-9]{1,3}(\\.[0-9]{1,2})?".boxed(),
        1 => "[0-9]e[0-9]".boxed(),
        1 => "nan|inf|x|1\\.2\\.3|0x1|9e999".boxed(),
    ];
    let timestamp = prop_oneof![
        8 => "1[0-9]{9}".boxed(),
        1 => "N|-1|[0-9]{1,11}".boxed(),
        1 => "x|1x|-5".boxed(),
    ];
    let space = || prop_oneof![12 => Just(" ".to_owned()), 1 => "[ \\t]{1,2}".boxed()];
    let end = prop_oneof![12 => Just(String::new()), 1 => "[ \\t\\r]{1,2}| 1".boxed()];
    (name(), space(), value, space(), timestamp, end).prop_map(
        |(name, space, value, space_2, timestamp, end)| {
            format!("{name}{space}{value}{space_2}{timestamp}{end}")
        },
    )
}

fn conditions() -> impl Strategy<Value = Match> {
    let literal = || prop_oneof![3 => Just(String::new()), 1 => "[abc.]{1,2}".boxed()];
    let regex = || {
        prop_oneof![
            4 => Just(String::new()),
            1 => prop::sample::select(vec!["^a", "b$", "^[ab]+\\.b", "a|c", "^(a|b)\\.a?c", "b.*a"])
                .prop_map(str::to_owned),
        ]
    };
    let glob = prop_oneof![
        6 => Just(String::new()),
        1 => prop::sample::select(vec!["a.*", "*.b*", "?.?", "a*"]).prop_map(str::to_owned),
    ];
    let tags = prop_oneof![
        6 => Just(vec![]),
        1 => prop::sample::subsequence(vec!["a=b", "b!=a", "a="], 1..3),
    ];
    let literals = (literal(), literal(), literal(), literal(), literal());
    (literals, regex(), regex(), glob, tags).prop_map(|(literals, regex, not_regex, glob, tags)| {
        let (prefix, not_prefix, contains, not_contains, suffix) = literals;
        Match {
            prefix,
            not_prefix,
            contains,
            not_contains,
            regex,
            not_regex,
            suffix,
            glob,
            tags: tags.into_iter().map(str::to_owned).collect(),
        }
    })
}

fn target() -> impl Strategy<Value = proto::Target> {
    (
        0..DESTINATIONS.len(),
        prop::option::weighted(0.3, conditions()),
    )
        .prop_map(|(index, conditions)| proto::Target {
            destination: Some(ObjectRef::new("Destination", "d", DESTINATIONS[index])),
            r#match: conditions,
            ..Default::default()
        })
}

fn route_message() -> impl Strategy<Value = proto::Route> {
    let targets = prop::collection::vec(target(), 1..4);
    (
        conditions(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        any::<bool>(),
        targets,
    )
        .prop_map(
            |(conditions, stop, unmatched_only, first_match, targets)| proto::Route {
                source: Some(ObjectRef::new("Route", "d", "r")),
                r#match: Some(conditions),
                stop,
                unmatched_only,
                distribution: match first_match {
                    true => proto::Distribution::FirstMatch.into(),
                    false => proto::Distribution::All.into(),
                },
                targets,
                ..Default::default()
            },
        )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let blocked = conditions().prop_filter("it would drop all", |entry| *entry != Match::default());
    let entries = prop::collection::vec(blocked, 0..2);
    (prop::collection::vec(route_message(), 0..16), entries).prop_map(|(routes, entries)| {
        Snapshot {
            schema: proto::SCHEMA,
            blocklists: vec![proto::Blocklist {
                source: None,
                entries,
            }],
            routes,
            destinations: DESTINATIONS.map(destination).into(),
            ..Snapshot::default()
        }
    })
}

fn destination(name: &str) -> proto::Destination {
    proto::Destination {
        source: Some(ObjectRef::new("Destination", "d", name)),
        id: name.to_owned(),
        queue: Some(proto::Queue {
            bytes_max: 1 << 20,
            when_full: proto::WhenFull::Block.into(),
        }),
        endpoint: Some(proto::destination::Endpoint::File(proto::File {
            path: "/x".into(),
        })),
    }
}
