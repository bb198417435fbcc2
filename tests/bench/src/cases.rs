//! What is measured. A case is one entry here: its load, and its rules in the language of each relay that has them.

use std::fmt::Write as _;

use crate::{load::Load, relays::Relay};

pub(crate) struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub goal: &'static str,
    /// How many destinations the rules refer to: `sink0`, `sink1`, …
    pub sinks: usize,
    /// How often each line arrives when none is lost, over all sinks; 0: it goes into an aggregate.
    pub copies: u64,
    pub load: Load,
    pub input: Input,
    pub output: Output,
    /// How many lines a round sends, unless told otherwise; in whole passes over the series.
    pub lines: u64,
    /// The rules, after the relay's own frame; `None` if this relay cannot say them.
    pub rules: fn(Relay) -> Option<String>,
    /// Whether a rule changes once a second while lines are sent, by [`edit`].
    pub is_edited: bool,
}

/// What goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Lines,
    /// Pickles of up to 500 points, as carbon's clients send them.
    Pickle,
    /// Datagrams of as many lines as fit into an Ethernet frame.
    Datagrams,
}

/// What comes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Output {
    #[default]
    Lines,
    Pickle,
    /// Prometheus' remote-write protocol.
    RemoteWrite,
    /// Lines, to a broker.
    Kafka,
}

pub(crate) const CASES: [Case; 14] = [
    Case {
        name: "A",
        title: "one route, one destination",
        goal: "CPU ≤ 4 × HAProxy, 0 % lost, ≤ 100 MiB",
        sinks: 1,
        copies: 1,
        load: Load::Flood,
        lines: 10_000_000,
        rules: one_route,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "B",
        title: "consistent hash over 8",
        goal: "CPU ≤ 200 ns, 0 % lost",
        sinks: 8,
        copies: 1,
        load: Load::Flood,
        lines: 10_000_000,
        rules: |relay| hashed_route(relay, 8),
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "C",
        title: "200 regex routes that miss, one that hits, a catch-all",
        goal: "CPU ≤ 1.3 × case A",
        sinks: 2,
        copies: 1,
        load: Load::Flood,
        lines: 10_000_000,
        rules: |relay| regex_routes(relay, 200),
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "D",
        title: "10,000 regex routes that miss, one that hits, a catch-all, series seen before",
        goal: "CPU ≤ 1.5 × case A",
        sinks: 2,
        copies: 1,
        load: Load::Flood,
        lines: 10_000_000,
        rules: many_regex_routes,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "E",
        title: "case C, every name new",
        goal: "CPU ≤ 800 ns",
        sinks: 2,
        copies: 1,
        load: Load::FloodOfNewNames,
        lines: 5_000_000,
        rules: |relay| regex_routes(relay, 200),
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "F",
        title: "100,000 series summed and averaged into 120 by one regex, raw lines dropped",
        goal: "CPU ≤ 250 ns",
        sinks: 1,
        copies: 0,
        load: Load::FloodOfNow,
        lines: 10_000_000,
        rules: aggregate,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "latency",
        title: "case A at 200,000 lines per second",
        goal: "99 % within 5 ms",
        sinks: 1,
        copies: 1,
        load: Load::Paced {
            lines_per_slice: 50,
        },
        lines: 2_000_000,
        rules: one_route,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "steady",
        title: "10,000 regex routes at 200,000 lines per second",
        goal: "99 % within 5 ms",
        sinks: 2,
        copies: 1,
        load: Load::Paced {
            lines_per_slice: 50,
        },
        lines: 2_000_000,
        rules: many_regex_routes,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: false,
    },
    Case {
        name: "swap",
        title: "the same, while one of the routes changes every second and all are loaded anew",
        goal: "no pause that a sender could see",
        sinks: 2,
        copies: 1,
        load: Load::Paced {
            lines_per_slice: 50,
        },
        lines: 2_000_000,
        rules: many_regex_routes,
        input: Input::Lines,
        output: Output::Lines,
        is_edited: true,
    },
    Case {
        name: "pickle-in",
        title: "pickles in, lines out",
        goal: "CPU ≤ 1,000 ns",
        sinks: 1,
        copies: 1,
        load: Load::Flood,
        input: Input::Pickle,
        output: Output::Lines,
        lines: 1_000_000,
        rules: formats,
        is_edited: false,
    },
    Case {
        name: "pickle-out",
        title: "lines in, pickles out",
        goal: "CPU ≤ 1,000 ns",
        sinks: 1,
        copies: 1,
        load: Load::Flood,
        input: Input::Lines,
        output: Output::Pickle,
        lines: 1_000_000,
        rules: formats,
        is_edited: false,
    },
    Case {
        name: "udp",
        title: "datagrams in at 520,000 lines per second, lines out",
        goal: "0 % lost",
        sinks: 1,
        copies: 1,
        load: Load::Paced {
            lines_per_slice: 130,
        },
        input: Input::Datagrams,
        output: Output::Lines,
        lines: 5_000_000,
        rules: formats,
        is_edited: false,
    },
    Case {
        name: "remote-write",
        title: "lines in, Prometheus' remote-write out",
        goal: "CPU ≤ 3,333 ns",
        sinks: 1,
        copies: 1,
        load: Load::Flood,
        input: Input::Lines,
        output: Output::RemoteWrite,
        lines: 5_000_000,
        rules: acknowledged,
        is_edited: false,
    },
    Case {
        name: "kafka",
        title: "lines in, Kafka out",
        goal: "CPU ≤ 3,333 ns",
        sinks: 1,
        copies: 1,
        load: Load::Flood,
        input: Input::Lines,
        output: Output::Kafka,
        lines: 5_000_000,
        rules: acknowledged,
        is_edited: false,
    },
];

impl Case {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CASES
            .iter()
            .find(|case| case.name.eq_ignore_ascii_case(name))
    }
}

// Those that Python carbon knows, too.
fn formats(relay: Relay) -> Option<String> {
    match relay {
        Relay::HaProxy | Relay::CarbonC => None,
        // It has a place for what it sends to in its settings.
        Relay::PythonCarbon => Some(String::new()),
        Relay::Carbonway => one_route(relay),
    }
}

fn acknowledged(relay: Relay) -> Option<String> {
    match relay {
        Relay::HaProxy | Relay::CarbonC | Relay::PythonCarbon => None,
        Relay::Carbonway => one_route(relay),
    }
}

fn one_route(relay: Relay) -> Option<String> {
    Some(match relay {
        Relay::PythonCarbon => return None, // would take minutes
        Relay::HaProxy => "  server sink0 {sink0}\n".into(),
        Relay::CarbonC => "match * send to sink0 stop;\n".into(),
        Relay::Carbonway => carbonway_route("all", 0, "", "sink0"),
    })
}

fn hashed_route(relay: Relay, sinks: usize) -> Option<String> {
    let members = |before: &str, after: &str| -> String {
        (0..sinks)
            .map(|sink| format!("{before}sink{sink}{after}"))
            .collect()
    };
    match relay {
        Relay::HaProxy | Relay::PythonCarbon => None,
        Relay::CarbonC => Some(format!(
            "cluster ring fnv1a_ch replication 1{};\nmatch * send to ring stop;\n",
            members(" {", "}")
        )),
        Relay::Carbonway => Some(format!(
            "---\n\
             apiVersion: carbonway.io/v1alpha1\n\
             kind: Route\n\
             metadata: {{name: ring}}\n\
             spec:\n\
             \x20 distribution: ConsistentHash\n\
             \x20 consistentHash: {{algorithm: Fnv1aCRelay}}\n\
             \x20 destinations:\n{}",
            members("  - {name: ", "}\n")
        )),
    }
}

// `misses` routes for names that no line has, one that takes a fifth of the lines, and one for the rest.
fn regex_routes(relay: Relay, misses: usize) -> Option<String> {
    const HIT: &str = r"dc[0-3]\.(web|db|cache)-[0-9]+\.cpu";
    let miss = |team| format!(r"^team{team}\..*\.(cpu|mem|disk)\.[a-z]+$");
    let mut rules = String::new();
    for route in 0..=misses {
        let regex = if route == misses {
            HIT.into()
        } else {
            miss(route)
        };
        match relay {
            Relay::HaProxy | Relay::PythonCarbon => return None,
            Relay::CarbonC => writeln!(rules, "match {regex} send to sink1 stop;").ok()?,
            Relay::Carbonway => {
                rules += &carbonway_route(&format!("r{route}"), 1, &regex, "sink1");
            }
        }
    }
    rules += &match relay {
        Relay::HaProxy | Relay::PythonCarbon => return None,
        Relay::CarbonC => "match * send to sink0 stop;\n".into(),
        Relay::Carbonway => carbonway_route("rest", 0, "", "sink0"),
    };
    Some(rules)
}

fn many_regex_routes(relay: Relay) -> Option<String> {
    match relay {
        Relay::CarbonC => None, // would take an hour
        Relay::HaProxy | Relay::PythonCarbon | Relay::Carbonway => regex_routes(relay, 10_000),
    }
}

/// A rule of Carbonway's that no line meets, another one for each number.
pub(crate) fn edit(number: usize) -> String {
    carbonway_route("edited", 2, &format!("^edit{number}\\."), "sink0")
}

// By datacentre, role and leaf. What is not aggregated, which is the first line that tells that the relay is up, is routed.
fn aggregate(relay: Relay) -> Option<String> {
    const REGEX: &str = r"^servers\.p[0-9]+\.(dc[0-9])\.([a-z]+)-[0-9]+\.(.*)$";
    Some(match relay {
        Relay::HaProxy | Relay::PythonCarbon => return None,
        Relay::CarbonC => format!(
            "aggregate {REGEX}\n\
             \x20 every 10 seconds expire after 12 seconds timestamp at start of bucket\n\
             \x20 compute sum write to agg.\\1.\\2.\\3.sum\n\
             \x20 compute average write to agg.\\1.\\2.\\3.avg\n\
             \x20 send to sink0 stop;\n\
             match * send to sink0 stop;\n"
        ),
        Relay::Carbonway => {
            carbonway_route("all", 0, "", "sink0")
                + &format!(
                    "---\n\
                     apiVersion: carbonway.io/v1alpha1\n\
                     kind: Aggregator\n\
                     metadata: {{name: by-role}}\n\
                     spec:\n\
                     \x20 match: {{regex: '{REGEX}'}}\n\
                     \x20 functions: [Sum, Avg]\n\
                     \x20 output: agg.$1.$2.$3\n\
                     \x20 interval: 10s\n\
                     \x20 wait: 12s\n\
                     \x20 dropRaw: true\n"
                )
        }
    })
}

fn carbonway_route(name: &str, priority: i32, regex: &str, destination: &str) -> String {
    format!(
        "---\n\
         apiVersion: carbonway.io/v1alpha1\n\
         kind: Route\n\
         metadata: {{name: {name}}}\n\
         spec:\n\
         \x20 priority: {priority}\n\
         \x20 match: {{regex: '{regex}'}}\n\
         \x20 onMatch: Stop\n\
         \x20 destinations: [{{name: {destination}}}]\n"
    )
}
