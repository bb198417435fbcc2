//! The engine against a naive reference, written straight from the semantics: whatever the table, the names, the order of
//! blocks and the swaps of tables between them, the engine's memory of names and its short cuts never change what comes out.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use regex::Regex;
use relay_engine::{Engine, Moment, Outbox, Outcome, Table, UnixSeconds, aggregate};
use relay_proto::rewrite_rule::Find;
use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

const DESTINATIONS: [&str; 3] = ["a", "b", "c"];
const NOW: u64 = 1_700_000_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_reference_does(
        aggregators in prop::collection::vec(aggregator(), 0..4),
        tables in prop::collection::vec(snapshot(), 1..4),
        blocks in prop::collection::vec((0_usize..4, prop::collection::vec(line(), 0..80)), 1..12),
    ) {
        // The same aggregators in every table, so that their buckets stay open.
        let tables: Vec<Snapshot> = tables
            .into_iter()
            .map(|snapshot| Snapshot { aggregators: named(&aggregators), ..snapshot })
            .collect();
        let loaded: Vec<_> = tables.iter().map(|snapshot| Table::load(snapshot).expect("it is valid")).collect();
        let mut engine = Engine::new(0);
        let mut out = Outbox::default();
        let mut buckets = BTreeMap::new();
        for (table, lines) in &blocks {
            let table = table % tables.len();
            let moment = Moment { now: UnixSeconds(NOW), stamp: 0, is_live: &|_| true };
            let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let tally = engine.process(&loaded[table], block.as_bytes(), 64, moment, &mut out);
            let mut came_out = vec![String::new(); DESTINATIONS.len()];
            out.drain(|destination, bytes, _| {
                came_out[destination.get()] = String::from_utf8(bytes.clone()).expect("it is text");
            });
            let mut expected = vec![String::new(); DESTINATIONS.len()];
            let mut absorbed = 0;
            for line in lines {
                let told = loaded[table].explain(line.as_bytes(), 64, moment);
                match reference(&tables[table], line, &mut buckets) {
                    Way::Dropped => prop_assert_eq!(told.outcome, Outcome::Dropped),
                    Way::Absorbed => {
                        prop_assert_eq!(told.outcome, Outcome::Absorbed);
                        absorbed += 1;
                    }
                    Way::Forwarded(text, destinations) => {
                        let names = destinations.iter().map(|index| format!("d/{}", DESTINATIONS[*index]));
                        prop_assert_eq!(told.destinations, names.collect::<Vec<_>>());
                        destinations.iter().for_each(|index| expected[*index] += &text);
                    }
                }
            }
            prop_assert_eq!(came_out, expected);
            prop_assert_eq!(tally.absorbed, absorbed);
        }
        prop_assert_eq!(counts(&mut engine), buckets);
    }
}

// More of them by CARBONWAY_CASES, for a long run by hand.
fn cases() -> u32 {
    let wanted = std::env::var("CARBONWAY_CASES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(100)
}

// How many points are in each bucket, by output name and start; aggregators here count.
type Buckets = BTreeMap<(String, u32), u64>;

// Those of the engine.
fn counts(engine: &mut Engine) -> Buckets {
    let mut counts = Buckets::new();
    let not_finite = aggregate::finish(aggregate::merge(engine.take_all()), |line| {
        let mut name = Vec::new();
        line.write_name(&mut name);
        let name = String::from_utf8(name).expect("it is text");
        *counts.entry((name, line.start)).or_default() += line.value as u64;
    });
    assert_eq!(not_finite, 0);
    counts
}

enum Way {
    Dropped,
    Absorbed,
    // What comes out, and for whom.
    Forwarded(String, Vec<usize>),
}

fn reference(snapshot: &Snapshot, line: &str, buckets: &mut Buckets) -> Way {
    let Some((received, value, timestamp)) = parsed(snapshot, line) else {
        return Way::Dropped;
    };
    let mut blocked = snapshot
        .blocklists
        .iter()
        .flat_map(|blocklist| &blocklist.entries);
    if blocked.any(|entry| matches(entry, &received)) {
        return Way::Dropped;
    }
    let name = rewritten(snapshot, &received);
    let is_fine = !name.contains(' ') && !name.starts_with('.') && is_name(snapshot, &name);
    if name != received && !is_fine {
        return Way::Dropped;
    }
    let seconds: u32 = timestamp.parse().expect("it was checked");
    let (mut is_taken, mut goes_on) = (false, true);
    for aggregator in &snapshot.aggregators {
        let conditions = aggregator.r#match.as_ref().expect("it has one");
        if !goes_on || !matches(conditions, &name) {
            continue;
        }
        goes_on = !aggregator.drop_raw;
        let captures = regex(&conditions.regex);
        let captures = captures.captures(&name).expect("it matched");
        let mut output = String::new();
        captures.expand(&aggregator.output, &mut output);
        let start = seconds - seconds % 10;
        let is_due = u64::from(start) + 12 <= NOW;
        let is_finite = value.parse().is_ok_and(f64::is_finite);
        let is_fine = is_finite && !output.starts_with('.') && is_name(snapshot, &output);
        if is_fine && !is_due && u64::from(seconds) <= NOW + 3600 {
            *buckets.entry((output, start)).or_default() += 1;
            is_taken = true;
        }
    }
    let destinations = if goes_on {
        route(snapshot, &name)
    } else {
        vec![]
    };
    match (destinations.is_empty(), is_taken) {
        (false, _) => Way::Forwarded(format!("{name} {value} {timestamp}\n"), destinations),
        (true, true) => Way::Absorbed,
        (true, false) => Way::Dropped,
    }
}

// Name, value and timestamp of a line that is let in.
fn parsed<'a>(snapshot: &Snapshot, line: &'a str) -> Option<(String, &'a str, String)> {
    if line.len() > 64 {
        return None;
    }
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [name, value, timestamp] = fields[..] else {
        return None;
    };
    let name = name.strip_prefix('.').unwrap_or(name);
    let validation = snapshot.validation.as_ref().expect("there is one");
    let forwards_nan = validation.not_finite() == proto::NotFinite::Forward;
    let is_spelt_out = value.contains(['n', 'N']);
    let value_is_fine = value
        .parse()
        .is_ok_and(|value: f64| value.is_finite() || (forwards_nan && is_spelt_out));
    let timestamp = match timestamp {
        "N" | "-1" => NOW.to_string(),
        digits if digits.parse::<u32>().is_ok() && !digits.starts_with('+') => digits.to_owned(),
        _ => return None,
    };
    let is_fine = is_name(snapshot, name) && value_is_fine;
    is_fine.then(|| (normalised(validation, name), value, timestamp))
}

fn is_name(snapshot: &Snapshot, name: &str) -> bool {
    let validation = snapshot.validation.as_ref().expect("there is one");
    let (path, tags) = name
        .split_once(';')
        .map_or((name, None), |(path, tags)| (path, Some(tags)));
    let first_node = path.split('.').next().unwrap_or_default();
    let is_metrics20 = first_node.contains('=') || first_node.contains("_is_");
    let metrics20_is_fine = validation.metrics20_level() == proto::ValidationLevel::None;
    if name.is_empty() || (is_metrics20 && !metrics20_is_fine) {
        return false;
    }
    let is_medium = || {
        let tag_is_fine = |tag: &str| {
            tag.split_once('=').is_some_and(|(key, value)| {
                !key.is_empty() && !key.contains('!') && !value.is_empty() && !value.contains('=')
            })
        };
        let tags_are_fine = tags.is_none_or(|tags| tags.split(';').all(tag_is_fine));
        name.is_ascii() && !path.is_empty() && tags_are_fine
    };
    let is_strict = || {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        is_metrics20 || (path.chars().all(is_legal) && !path.contains(".."))
    };
    match validation.level() {
        proto::ValidationLevel::None => true,
        proto::ValidationLevel::Strict => is_medium() && is_strict(),
        proto::ValidationLevel::Unspecified | proto::ValidationLevel::Medium => is_medium(),
    }
}

// Tags sorted, of several values of one the last.
fn normalised(validation: &proto::Validation, name: &str) -> String {
    let Some((path, tags)) = name.split_once(';').filter(|_| validation.normalise_tags) else {
        return name.to_owned();
    };
    let pairs: Option<BTreeMap<&str, &str>> =
        tags.split(';').map(|tag| tag.split_once('=')).collect();
    let is_tag =
        |(key, value): (&&str, &&str)| !key.is_empty() && !key.contains('!') && !value.is_empty();
    match pairs {
        Some(pairs) if !path.is_empty() && pairs.iter().all(is_tag) => {
            let tag = |(key, value): (&str, &str)| format!(";{key}={value}");
            path.to_owned() + &pairs.into_iter().map(tag).collect::<String>()
        }
        _ => name.to_owned(),
    }
}

fn rewritten(snapshot: &Snapshot, name: &str) -> String {
    let mut name = name.to_owned();
    for rule in snapshot
        .rewriters
        .iter()
        .flat_map(|rewriter| &rewriter.rules)
    {
        if rule
            .unless
            .as_ref()
            .is_some_and(|unless| matches(unless, &name))
        {
            continue;
        }
        name = match rule.find.as_ref().expect("there is something to find") {
            Find::Literal(literal) if rule.max > 0 => {
                name.replacen(literal, &rule.with, rule.max as usize)
            }
            Find::Literal(literal) => name.replace(literal, &rule.with),
            Find::Regex(regex) => {
                let regex = self::regex(regex);
                regex.replace_all(&name, rule.with.as_str()).into_owned()
            }
        };
    }
    name
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
    let found = |regex: &str| self::regex(regex).is_match(name);
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
        && unset_or(&conditions.glob, glob(&conditions.glob, name))
        && conditions.tags.iter().all(|condition| tag(condition, name))
        && unset_or(&conditions.regex, found(&conditions.regex))
        && unset_or(&conditions.not_regex, !found(&conditions.not_regex))
}

// Compiled once, for the sake of time.
fn regex(pattern: &str) -> Regex {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || Regex::new(pattern).expect("it is valid");
        compiled
            .entry(pattern.to_owned())
            .or_insert_with(compile)
            .clone()
    })
}

// Whether the whole of a name is described by a glob of literals, '*' and '?', which is one character of any length.
fn glob(glob_left: &str, name_left: &str) -> bool {
    let mut name_after = name_left.chars();
    let next = name_after.next();
    let mut glob_after = glob_left.chars();
    match glob_after.next() {
        None => next.is_none(),
        Some('*') => {
            let end = name_left.find('.').unwrap_or(name_left.len());
            let mut ends = (0..=end).filter(|taken| name_left.is_char_boundary(*taken));
            ends.any(|taken| glob(glob_after.as_str(), &name_left[taken..]))
        }
        Some(literal) => {
            let is_fine = |c: char| {
                if literal == '?' {
                    c != '.'
                } else {
                    c == literal
                }
            };
            next.is_some_and(is_fine) && glob(glob_after.as_str(), name_after.as_str())
        }
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
        8 => (NOW - 30..NOW + 20).prop_map(|seconds| seconds.to_string()).boxed(),
        2 => "1[0-9]{9}".boxed(),
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

fn validation() -> impl Strategy<Value = proto::Validation> {
    use proto::ValidationLevel::{Medium, None, Strict};
    let level = prop::sample::select(vec![Medium, Medium, Strict, None]);
    let metrics20_level = prop::sample::select(vec![Medium, None]);
    (level, metrics20_level, any::<bool>(), any::<bool>()).prop_map(
        |(level, metrics20_level, forwards_nan, normalise_tags)| proto::Validation {
            level: level.into(),
            metrics20_level: metrics20_level.into(),
            not_finite: match forwards_nan {
                true => proto::NotFinite::Forward.into(),
                false => proto::NotFinite::Drop.into(),
            },
            normalise_tags,
            ..proto::Validation::default()
        },
    )
}

fn rewrite_rule() -> impl Strategy<Value = proto::RewriteRule> {
    let literal = ("[ab.;=]{1,2}", "[ab.;= ]{0,2}", 0_u32..3)
        .prop_map(|(find, with, max)| (Find::Literal(find), with, max));
    let regexes = vec![
        ("^a", "b"),
        ("(a)(b?)", "${2}x${1}"),
        ("^", "a."),
        ("b+|^", "-"),
        ("\\.(?P<node>[ab]+)$", ".$node.$node"),
        ("[ab]+;", "${0}a=b;"),
    ];
    let regex = prop::sample::select(regexes)
        .prop_map(|(find, with)| (Find::Regex(find.to_owned()), with.to_owned(), 0));
    let unless = prop::option::weighted(0.2, conditions());
    (prop_oneof![literal.boxed(), regex.boxed()], unless).prop_map(|((find, with, max), unless)| {
        proto::RewriteRule {
            name: String::new(),
            find: Some(find),
            with,
            max,
            // One that is all empty leaves nothing alone.
            unless: unless.filter(|unless| *unless != Match::default()),
        }
    })
}

// Regular expression, output, whether the raw line is dropped.
fn aggregator() -> impl Strategy<Value = (Match, String, bool)> {
    let picks = vec![
        ("^([ab]+)\\.", "agg.$1"),
        ("\\.(.*)$", "$1"),
        ("", "all"),
        ("b", "b$0"),
        ("^(a)?", "x${1}"),
    ];
    let pick = prop::sample::select(picks);
    (conditions(), pick, prop::bool::weighted(0.3)).prop_map(
        |(conditions, (regex, output), drop_raw)| {
            // An aggregator needs one.
            let regex = if regex.is_empty() { "." } else { regex };
            let conditions = Match {
                regex: regex.to_owned(),
                ..conditions
            };
            (conditions, output.to_owned(), drop_raw)
        },
    )
}

fn named(aggregators: &[(Match, String, bool)]) -> Vec<proto::Aggregator> {
    let message = |(number, (conditions, output, drop_raw)): (usize, &(Match, String, bool))| {
        proto::Aggregator {
            source: Some(ObjectRef::new("Aggregator", "d", "x")),
            id: number.to_string(),
            r#match: Some(conditions.clone()),
            functions: vec!["Count".to_owned()],
            output: output.clone(),
            interval_ms: 10_000,
            wait_ms: 12_000,
            drop_raw: *drop_raw,
            ..proto::Aggregator::default()
        }
    };
    aggregators.iter().enumerate().map(message).collect()
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let blocked = conditions().prop_filter("it would drop all", |entry| *entry != Match::default());
    let entries = prop::collection::vec(blocked, 0..2);
    let routes = prop::collection::vec(route_message(), 0..16);
    let rules = prop::collection::vec(rewrite_rule(), 0..4);
    (validation(), rules, routes, entries).prop_map(|(validation, rules, routes, entries)| {
        Snapshot {
            schema: proto::SCHEMA,
            validation: Some(validation),
            rewriters: vec![proto::Rewriter {
                source: None,
                rules: (0..)
                    .zip(rules)
                    .map(|(number, rule)| proto::RewriteRule {
                        name: format!("{number}"),
                        ..rule
                    })
                    .collect(),
            }],
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
            ..proto::File::default()
        })),
        ..proto::Destination::default()
    }
}
