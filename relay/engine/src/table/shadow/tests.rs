use std::sync::LazyLock;

use proptest::prelude::*;
use relay_proto::{Distribution, Target};

use super::*;
use crate::pattern::Pattern;

#[test]
fn what_people_write_is_found() {
    let cases = [
        (
            "a catch-all that stops, before others",
            vec![stop(all("all")), prefix("a", "a."), prefix("b", "b.")],
            &["a by all", "b by all"][..],
        ),
        (
            "a wide prefix that stops, before a narrow one",
            vec![
                stop(prefix("servers", "servers.")),
                prefix("web", "servers.web."),
                prefix("db", "db."),
            ],
            &["web by servers"],
        ),
        (
            "the same expression twice",
            vec![
                stop(regex("one", "^a.*b[0-9]")),
                regex("other", "^a.*b[1-9]"),
                regex("two", "^a.*b[0-9]"),
            ],
            &["two by one"],
        ),
        (
            "a default route beside a catch-all that does not stop",
            vec![
                unmatched_only(all("default")),
                prefix("a", "a."),
                all("all"),
            ],
            &["default by all"],
        ),
        (
            "a second default route",
            vec![
                unmatched_only(all("one")),
                prefix("a", "a."),
                unmatched_only(prefix("two", "b.")),
            ],
            &["two by one"],
        ),
        (
            "an expression that means everything",
            vec![stop(regex("all", "^.*$")), regex("a", "^a")],
            &["a by all"],
        ),
        (
            "an expression that means a prefix",
            vec![
                stop(regex("servers", r"^servers\.")),
                regex("hosts", r"^servers\.(web|db)[0-9]+\."),
            ],
            &["hosts by servers"],
        ),
        (
            "an expression that means several prefixes",
            vec![
                stop(regex("hosts", r"^(web|db)\.")),
                regex("cpu", r"^(web\.a|db\.b).*\.cpu$"),
            ],
            &["cpu by hosts"],
        ),
        (
            "a glob that means a prefix, before another glob",
            vec![
                stop(glob("servers", "servers.**")),
                glob("cpu", "servers.*.cpu"),
            ],
            &["cpu by servers"],
        ),
        (
            "a part of another part",
            vec![
                stop(matching("cpu", |m| m.contains = "cpu".into())),
                matching("user", |m| m.suffix = ".cpu.user".into()),
            ],
            &["user by cpu"],
        ),
        (
            "exceptions that another route keeps clear of",
            vec![
                stop(matching("most", |m| {
                    m.not_prefix = "tmp.".into();
                    m.not_contains = "debug".into();
                    m.not_regex = r"\.test$".into();
                })),
                matching("cpu", |m| {
                    m.prefix = "servers.".into();
                    m.not_contains = "bug".into();
                    m.suffix = ".cpu".into();
                }),
            ],
            &["cpu by most"],
        ),
        (
            "the same tag with more conditions",
            vec![
                stop(matching("ams", |m| m.tags = vec!["dc=ams".into()])),
                matching("prod", |m| {
                    m.tags = vec!["env=prod".into(), "dc=ams".into()]
                }),
            ],
            &["prod by ams"],
        ),
        (
            "targets that take all that those of another route do",
            vec![
                stop(to(prefix("a", "a."), &["a.x", "a.y"])),
                to(all("b"), &["a.y.1", "a.x"]),
            ],
            &["b by a"],
        ),
    ];
    for (name, routes, expected) in cases {
        assert_eq!(found(routes), expected, "{name}");
    }
}

#[test]
fn routes_that_a_line_can_reach_are_left_alone() {
    let cases = [
        ("it does not stop", vec![all("all"), prefix("a", "a.")]),
        (
            "the narrow one comes first",
            vec![stop(prefix("a", "a.b.")), prefix("b", "a.")],
        ),
        (
            "a target leaves some lines",
            vec![
                stop(to(all("all"), &["a.", "b."])),
                to(all("b"), &["a.x", "c."]),
            ],
        ),
        (
            "it sees only what no other took",
            vec![unmatched_only(stop(all("all"))), prefix("a", "a.")],
        ),
        (
            "the last ones together take all, but none of them does",
            vec![
                prefix("a", "a."),
                unmatched_only(prefix("b", "b.")),
                unmatched_only(all("c")),
            ],
        ),
        (
            "the expressions differ",
            vec![stop(regex("a", "^a[0-8]")), regex("b", "^a[0-9]")],
        ),
        (
            "a prefix in capitals",
            vec![stop(prefix("a", "a.")), regex("b", r"(?i)^A\.")],
        ),
        (
            "the exception begins as the other route's lines do",
            vec![
                stop(matching("most", |m| m.not_prefix = "servers.tmp.".into())),
                prefix("servers", "servers."),
            ],
        ),
    ];
    for (name, routes) in cases {
        assert_eq!(found(routes), [""; 0], "{name}");
    }
}

#[test]
fn people_are_told_why() {
    let routes = vec![
        stop(matching("a", |m| {
            m.prefix = "a.".into();
            m.not_contains = "x".into();
        })),
        matching("b", |m| {
            m.prefix = "a.b.".into();
            m.not_contains = "x".into();
        }),
        all("all"),
        unmatched_only(all("default")),
    ];
    assert_eq!(
        shadowed(&snapshot(routes)),
        [
            Shadowed {
                route: object("b"),
                by: object("a"),
                why: "Route d/a comes first, takes every line with prefix 'a.' and notContains 'x' and stops: \
                      raise this route's priority or narrow that one's match"
                    .into(),
            },
            Shadowed {
                route: object("default"),
                by: object("all"),
                why: "Route d/all takes every line, and this route sees only lines that no other took: \
                      narrow that one's match or remove this route"
                    .into(),
            },
        ]
    );
}

// Every condition before every other: nothing is said to follow that does not.
#[test]
fn conditions_follow_only_where_they_hold() {
    let mut count = 0;
    for one in &WORLD.conditions {
        for other in &WORLD.conditions {
            let routes = vec![stop(with("one", [one])), with("other", [other])];
            count += assert_unreached(routes);
        }
    }
    assert!(count > WORLD.conditions.len(), "{count}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_reported_sees_no_line(routes in prop::collection::vec(any_route(), 2..6)) {
        assert_unreached(routes);
    }
}

// With so many routes the bounds are reached; what is found is right, and it is found quickly.
#[test]
fn many_routes_are_compared_within_bounds() {
    let number = 10_000;
    let mut routes: Vec<_> = (0..number)
        .map(|number| {
            stop(matching(&format!("{number}"), |m| {
                m.prefix = "servers.".into();
                m.contains = format!("web{number:05}");
            }))
        })
        .collect();
    routes.push(matching("same", |m| {
        m.prefix = "servers.".into();
        m.contains = "web09999".into();
    }));
    assert_eq!(found(routes), ["same by 9999"]);
}

fn assert_unreached(routes: Vec<Route>) -> usize {
    let snapshot = snapshot(routes);
    let found = shadowed(&snapshot);
    if found.is_empty() {
        return 0;
    }
    let routes: Vec<NaiveRoute> = snapshot.routes.iter().map(NaiveRoute::new).collect();
    for (place, name) in WORLD.names.iter().enumerate() {
        let takers = takers(&routes, place);
        for shadowed in &found {
            assert!(
                !takers.iter().any(|taker| **taker == shadowed.route),
                "{} reaches {}, but it is said that {}\n{:#?}",
                String::from_utf8_lossy(name),
                shadowed.route,
                shadowed.why,
                snapshot.routes,
            );
        }
    }
    found.len()
}

// The routes that take a name, by the words of the contract.
fn takers(routes: &[NaiveRoute], name: usize) -> Vec<&ObjectRef> {
    let mut taken_by = Vec::new();
    for route in routes.iter().filter(|route| !route.unmatched_only) {
        if route.takes[name] {
            taken_by.push(&route.source);
            if route.stop {
                return taken_by;
            }
        }
    }
    if taken_by.is_empty() {
        let mut last = routes.iter().filter(|route| route.unmatched_only);
        taken_by.extend(
            last.find(|route| route.takes[name])
                .map(|route| &route.source),
        );
    }
    taken_by
}

struct NaiveRoute {
    source: ObjectRef,
    stop: bool,
    unmatched_only: bool,
    /// By the name's place.
    takes: Vec<bool>,
}

impl NaiveRoute {
    fn new(route: &Route) -> Self {
        let by_match = holds(&route.r#match);
        let by_target: Vec<_> = route
            .targets
            .iter()
            .map(|target| holds(&target.r#match))
            .collect();
        let takes = |name: usize| by_match[name] && by_target.iter().any(|holds| holds[name]);
        Self {
            source: route.source.clone().unwrap(),
            stop: route.stop,
            unmatched_only: route.unmatched_only,
            takes: (0..WORLD.names.len()).map(takes).collect(),
        }
    }
}

// By the name's place.
fn holds(conditions: &Option<Match>) -> Vec<bool> {
    let mut all = vec![true; WORLD.names.len()];
    for condition in conditions.iter().flat_map(each) {
        for (all, one) in all.iter_mut().zip(&WORLD.holds[&condition]) {
            *all &= one;
        }
    }
    all
}

/// A field of a match and its text.
type Setting = (&'static str, String);

/// All that a random table is made of.
struct World {
    names: Vec<Vec<u8>>,
    conditions: Vec<Setting>,
    /// Whether a condition holds, by the name's place.
    holds: HashMap<Setting, Vec<bool>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut names: Vec<Vec<u8>> = vec![Vec::new()];
    for length in 0..5 {
        let longest: Vec<_> = names
            .iter()
            .filter(|name| name.len() == length)
            .cloned()
            .collect();
        names.extend(
            longest
                .iter()
                .flat_map(|name| b"ab.".map(|byte| [&name[..], &[byte]].concat())),
        );
    }
    let short: Vec<_> = names
        .iter()
        .filter(|name| name.len() < 3)
        .cloned()
        .collect();
    for end in ["é", ";k=a", ";k=b", ";x=.b;k=a"] {
        names.extend(short.iter().map(|name| [name, end.as_bytes()].concat()));
    }
    // Without validation there are names that are not UTF-8.
    names.extend(
        short
            .iter()
            .flat_map(|name| [[&name[..], b"\xc3"].concat(), [b"\xa9", &name[..]].concat()]),
    );
    let mut conditions = Vec::new();
    let mut add = |field, texts: &[&str]| {
        conditions.extend(texts.iter().map(|text| (field, (*text).to_owned())))
    };
    for field in ["prefix", "notPrefix", "contains", "notContains", "suffix"] {
        add(
            field,
            &[
                "a", "b", ".", "ab", "ba", "a.", "aa", "a.b", ".ab", "k=a", "é",
            ],
        );
    }
    for field in ["regex", "notRegex"] {
        add(
            field,
            &[
                "^a",
                r"^a\.",
                "a",
                "ab",
                r"b\.",
                "a$",
                r"\.a$",
                ".*",
                "^.*",
                "^.*$",
                ".*a.*",
                "^.*a",
                "a.*$",
                "^a.*b$",
                r"^(a|b)\.",
                r"\.(a|b)",
                "(a|b)$",
                "^a?b",
                "^a?",
                "a?$",
                "^a?$",
                "^ab$",
                "^(ab|b)$",
                "^a|b",
                "^a|^b",
                r"(^|\.)a",
                "^a(^b|a)",
                "(?i)A",
                "(?i)^A",
                "(?m)^a",
                "(?m)a$",
                r"\ba",
                r"a\b",
                r"^\ba",
                "^[ab]",
                "[ab]$",
                "^a{2}",
                "^(a.)+",
                "^a+$",
                "[^.]*a",
                r"^[^.]*\.",
                "(?s)^.*b",
                "(?s)b.*$",
                "^$",
                "$",
                "^",
                "a||b",
                "^^a",
                "a$$",
                "(^a)b",
                "(^(a))",
                r"[^\x00-\xff]",
                ".",
                ".+",
                "a*b",
                "^a*",
                "(?U)a.*$",
                r"\Aa",
                r"a\z",
                "(?:^.*)?a",
                "(?:a$)?",
                "(a|ab)(b|)",
                "a[^b]a",
                "^[^a]*b",
                "^[^a\\n]*b",
                "^a[^b]",
                "[^b]a$",
                "^(|a)b",
                "(?s).*a",
                "^.$",
                "é",
                "^é?a",
            ],
        );
    }
    add(
        "glob",
        &[
            "*", "**", "a*", "a**", "*b", "**b", "a.*", "{a,b}.*", "{a,ab}", "a.{a,b}", "?",
            "[ab]*", "[!a]*", "ab", "a**b", "{,a}**",
        ],
    );
    add(
        "tags",
        &[
            "k=a", "k!=a", "k=", "k!=", "k=~a", "k!=~a", "name=a", "name=~a",
        ],
    );
    let holds = conditions.iter().map(|condition| {
        let pattern = Pattern::compile(&of([condition])).unwrap();
        let holds = names.iter().map(|name| pattern.matches(name)).collect();
        (condition.clone(), holds)
    });
    World {
        holds: holds.collect(),
        names,
        conditions,
    }
});

fn any_route() -> impl Strategy<Value = Route> {
    let any_match = |conditions_max| {
        let condition = prop::sample::select(&WORLD.conditions[..]);
        prop::collection::vec(condition, 0..=conditions_max)
    };
    let targets = prop::collection::vec(any_match(1), 1..4);
    (
        any_match(2),
        targets,
        any::<bool>(),
        prop::bool::weighted(0.3),
        any::<u32>(),
    )
        .prop_map(
            |(conditions, targets, is_stop, is_unmatched_only, name)| Route {
                targets: targets
                    .iter()
                    .map(|conditions| target(of(conditions)))
                    .collect(),
                stop: is_stop,
                unmatched_only: is_unmatched_only,
                ..with(&name.to_string(), &conditions)
            },
        )
}

fn found(routes: Vec<Route>) -> Vec<String> {
    let found = shadowed(&snapshot(routes));
    let said = |shadowed: Shadowed| format!("{} by {}", shadowed.route.name, shadowed.by.name);
    found.into_iter().map(said).collect()
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    Snapshot {
        routes,
        ..Snapshot::default()
    }
}

fn object(name: &str) -> ObjectRef {
    ObjectRef::new("Route", "d", name)
}

fn all(name: &str) -> Route {
    Route {
        source: Some(object(name)),
        distribution: Distribution::All.into(),
        targets: vec![target(Match::default())],
        ..Route::default()
    }
}

fn target(conditions: Match) -> Target {
    Target {
        destination: Some(ObjectRef::new("Destination", "d", "x")),
        r#match: Some(conditions),
        ..Target::default()
    }
}

fn matching(name: &str, set: impl FnOnce(&mut Match)) -> Route {
    let mut conditions = Match::default();
    set(&mut conditions);
    Route {
        r#match: Some(conditions),
        ..all(name)
    }
}

fn prefix(name: &str, prefix: &str) -> Route {
    matching(name, |m| m.prefix = prefix.into())
}

fn regex(name: &str, regex: &str) -> Route {
    matching(name, |m| m.regex = regex.into())
}

fn glob(name: &str, glob: &str) -> Route {
    matching(name, |m| m.glob = glob.into())
}

fn stop(route: Route) -> Route {
    Route {
        stop: true,
        ..route
    }
}

fn unmatched_only(route: Route) -> Route {
    Route {
        unmatched_only: true,
        ..route
    }
}

// To a target for each prefix.
fn to(route: Route, prefixes: &[&str]) -> Route {
    let with_prefix = |prefix: &&str| Match {
        prefix: (*prefix).into(),
        ..Match::default()
    };
    Route {
        targets: prefixes
            .iter()
            .map(|prefix| target(with_prefix(prefix)))
            .collect(),
        ..route
    }
}

fn with<'a>(name: &str, conditions: impl IntoIterator<Item = &'a Setting>) -> Route {
    matching(name, |m| *m = of(conditions))
}

fn of<'a>(conditions: impl IntoIterator<Item = &'a Setting>) -> Match {
    let mut made = Match::default();
    for (field, text) in conditions {
        let text = text.clone();
        match *field {
            "prefix" => made.prefix = text,
            "notPrefix" => made.not_prefix = text,
            "contains" => made.contains = text,
            "notContains" => made.not_contains = text,
            "regex" => made.regex = text,
            "notRegex" => made.not_regex = text,
            "suffix" => made.suffix = text,
            "glob" => made.glob = text,
            "tags" => made.tags.push(text),
            field => panic!("{field} is no field of a match"),
        }
    }
    made
}

fn each(conditions: &Match) -> impl Iterator<Item = Setting> {
    let single = [
        ("prefix", &conditions.prefix),
        ("notPrefix", &conditions.not_prefix),
        ("contains", &conditions.contains),
        ("notContains", &conditions.not_contains),
        ("regex", &conditions.regex),
        ("notRegex", &conditions.not_regex),
        ("suffix", &conditions.suffix),
        ("glob", &conditions.glob),
    ];
    let tags = conditions.tags.iter().map(|text| ("tags", text));
    let set = single
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .chain(tags);
    set.map(|(field, text)| (field, text.clone()))
}
