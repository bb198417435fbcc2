//! How many instructions the engine takes for a line, stage by stage. Unlike time they hardly depend on the machine and on what
//! else it does, so creep of a few per cent is seen.
//!
//! `make bench-instructions` runs this under valgrind and prints instructions per line, and the change since the last run. To
//! compare with another state of the code, and to fail if anything takes 5 % more:
//!
//! ```text
//! git switch main;    make bench-instructions ARGS=--save-baseline=main
//! git switch -;       make bench-instructions ARGS="--baseline=main --callgrind-limits=ir=5%"
//! ```
//!
//! From run to run, `names_new` differs by less than 0.1 % and `names_seen` by about 1 %, `aggregated` by 3 %. Where the
//! instructions went says `callgrind_annotate`, given a file of `target/gungraun/relay-engine/instructions/`.
//!
//! What is counted is one block of 1,000 lines in each of 8 engines; the Makefile divides by these.

use std::hint::black_box;
use std::iter;
use std::ops::Range;

use gungraun::{library_benchmark, library_benchmark_group, main};
use relay_engine::{Engine, Moment, Outbox, Table, Tally, UnixSeconds};
use relay_proto::destination::Endpoint;
use relay_proto::rewrite_rule::Find;
use relay_proto::{
    Aggregator, Blocklist, Carbon, ConsistentHash, Destination, Distribution, Match, ObjectRef,
    Queue, RewriteRule, Rewriter, Route, Snapshot, Target, WhenFull,
};

const LINES: usize = 1_000;
/// Engines differ by the seed of their memory for names, and so by a few instructions per line; their mean hardly does.
const ENGINES: usize = 8;
const LINE_BYTES_MAX: usize = 4_096;
const NAMES_BYTES: usize = 4 << 20;
const NOW: u64 = 1_700_000_000;
const MOMENT: Moment<'static> = Moment {
    now: UnixSeconds(NOW),
    stamp: 0,
    is_live: &|_| true,
};

library_benchmark_group!(name = lines, benchmarks = [names_seen, names_new]);
main!(library_benchmark_groups = lines);

// Every name was seen before.
#[library_benchmark(teardown = Case::check)]
#[bench::forwarded(seen(one_route(), line, Fate::Forwarded))]
#[bench::hashed(seen(hashing(), line, Fate::Forwarded))]
#[bench::blocked(seen(blocking(), line, Fate::Dropped))]
#[bench::untidy(seen(one_route(), untidy_line, Fate::Forwarded))]
#[bench::refused(seen(one_route(), refused_line, Fate::Dropped))]
#[bench::rewritten(seen(rewriting(), line, Fate::Forwarded))]
#[bench::aggregated(seen(aggregating(), line, Fate::Absorbed))]
fn names_seen(case: Case) -> Case {
    black_box(case.run())
}

// No name was.
#[library_benchmark(teardown = Case::check)]
#[bench::forwarded(new(one_route(), Fate::Forwarded))]
#[bench::hashed(new(hashing(), Fate::Forwarded))]
#[bench::missed_by_200_expressions(new(missing(), Fate::Forwarded))]
#[bench::missed_by_a_blocklist(new(not_blocking(), Fate::Forwarded))]
#[bench::rewritten(new(rewriting(), Fate::Forwarded))]
#[bench::aggregated(new(aggregating(), Fate::Absorbed))]
fn names_new(case: Case) -> Case {
    black_box(case.run())
}

/// Engines that have run other blocks, and the block that each of them runs to be measured.
struct Case {
    table: Table,
    engines: Vec<(Engine, Outbox)>,
    block: String,
    tally: Tally,
    fate: Fate,
}

/// What becomes of all lines of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Forwarded,
    Absorbed,
    Dropped,
}

fn seen(snapshot: Snapshot, line: fn(usize) -> String, fate: Fate) -> Case {
    let block = |lines: usize| (0..lines).map(line).collect();
    let mut case = Case::new(&snapshot, block(LINES), fate);
    // A name is kept when it comes for the second time. With so many, the memory for names has just grown, so that hardly any
    // two are in each other's way.
    let before: String = block(LINES + LINES / 5);
    for _ in 0..6 {
        case.process(&before);
    }
    case
}

fn new(snapshot: Snapshot, fate: Fate) -> Case {
    let block = |numbers: Range<usize>| numbers.map(line).collect::<String>();
    let mut case = Case::new(&snapshot, block(LINES..2 * LINES), fate);
    case.process(&block(0..LINES));
    case
}

impl Case {
    fn new(snapshot: &Snapshot, block: String, fate: Fate) -> Self {
        let engine = || (Engine::new(NAMES_BYTES), Outbox::default());
        Self {
            table: Table::load(snapshot).expect("the snapshot is valid"),
            engines: iter::repeat_with(engine).take(ENGINES).collect(),
            block,
            tally: Tally::default(),
            fate,
        }
    }

    // Before what is measured.
    fn process(&mut self, block: &str) {
        for (engine, out) in &mut self.engines {
            engine.process(&self.table, block.as_bytes(), LINE_BYTES_MAX, MOMENT, out);
            out.drain(|_, _, _| {});
        }
    }

    fn run(mut self) -> Self {
        let block = self.block.as_bytes();
        for (engine, out) in &mut self.engines {
            self.tally += &engine.process(&self.table, block, LINE_BYTES_MAX, MOMENT, out);
        }
        self
    }

    fn check(self) {
        let lines = (ENGINES * LINES) as u64;
        let expected = match self.fate {
            Fate::Forwarded => (lines, 0),
            Fate::Absorbed => (0, lines),
            Fate::Dropped => (0, 0),
        };
        let found = (self.tally.forwarded, self.tally.absorbed);
        assert_eq!(found, expected, "{:?}", self.fate);
    }
}

fn name(number: usize) -> String {
    format!(
        "servers.web{:04}.cpu.core{:02}.user",
        number / 16,
        number % 16
    )
}

fn line(number: usize) -> String {
    format!("{} {}.25 {NOW}\n", name(number), number % 100)
}

fn untidy_line(number: usize) -> String {
    let name = name(number);
    match number % 5 {
        0 => format!("{name}\t1\t{NOW}\n"),
        1 => format!("{name}  1  {NOW} \n"),
        2 => format!(".{name} 1 {NOW}\n"),
        3 => format!("{name} 1e5 {NOW}\r\n"),
        _ => format!("{name} 1 -1\n"),
    }
}

fn refused_line(number: usize) -> String {
    let name = name(number);
    match number % 5 {
        0 => format!("{name} 1\n"),
        1 => format!("{name} one {NOW}\n"),
        2 => format!("{name} 1 today\n"),
        3 => format!("{name};dc= 1 {NOW}\n"),
        _ => format!("{name}.\u{e9} 1 {NOW}\n"),
    }
}

fn one_route() -> Snapshot {
    Snapshot {
        schema: 1,
        destinations: (0..8).map(destination).collect(),
        routes: vec![route(Match::default(), 0..1)],
        ..Snapshot::default()
    }
}

fn hashing() -> Snapshot {
    let consistent_hash = ConsistentHash {
        algorithm: "Carbon".into(),
        replication_factor: 1,
        ..ConsistentHash::default()
    };
    Snapshot {
        routes: vec![Route {
            distribution: Distribution::ConsistentHash.into(),
            consistent_hash: Some(consistent_hash),
            ..route(Match::default(), 0..8)
        }],
        ..one_route()
    }
}

fn missing() -> Snapshot {
    let missing = (0..200).map(|number| route(regex(&format!(r"^team{number}\..*\.user$")), 0..1));
    Snapshot {
        routes: missing.chain(one_route().routes).collect(),
        ..one_route()
    }
}

fn blocking() -> Snapshot {
    with_blocklist(vec![regex(r"^servers\..*\.cpu\.")])
}

fn not_blocking() -> Snapshot {
    let of_number = |number: usize| match number % 3 {
        0 => prefix(&format!("team{number}.")),
        1 => regex(&format!(r"^servers\.db{number}\..*\.user$")),
        _ => regex(&format!(r"\.disk{number}\.[a-z]+$")),
    };
    with_blocklist((0..30).map(of_number).collect())
}

fn with_blocklist(entries: Vec<Match>) -> Snapshot {
    Snapshot {
        blocklists: vec![Blocklist {
            source: Some(object("Blocklist", "blocklist")),
            entries,
        }],
        ..one_route()
    }
}

fn rewriting() -> Snapshot {
    let rule = |name: &str, find, with: &str| RewriteRule {
        name: name.into(),
        find: Some(find),
        with: with.into(),
        ..RewriteRule::default()
    };
    Snapshot {
        rewriters: vec![Rewriter {
            source: Some(object("Rewriter", "rewriter")),
            rules: vec![
                rule("literal", Find::Literal("core".into()), "c"),
                rule("regex", Find::Regex(r"^servers\.([a-z]+)".into()), "${1}s."),
                rule("neither", Find::Literal("disk".into()), "d"),
            ],
        }],
        ..one_route()
    }
}

fn aggregating() -> Snapshot {
    Snapshot {
        aggregators: vec![Aggregator {
            source: Some(object("Aggregator", "aggregator")),
            id: "aggregator".into(),
            r#match: Some(regex(r"^servers\.(.*)\.core[0-9]+\.(.*)")),
            functions: vec!["Sum".into(), "Avg".into()],
            output: "sums.$1.$2".into(),
            interval_ms: 10_000,
            wait_ms: 20_000,
            drop_raw: true,
            ..Aggregator::default()
        }],
        ..one_route()
    }
}

fn route(conditions: Match, destinations: Range<usize>) -> Route {
    let target = |number| Target {
        destination: Some(object("Destination", &format!("graphite-{number}"))),
        ..Target::default()
    };
    Route {
        source: Some(object("Route", "route")),
        r#match: Some(conditions),
        distribution: Distribution::All.into(),
        targets: destinations.map(target).collect(),
        ..Route::default()
    }
}

fn destination(number: usize) -> Destination {
    let carbon = Carbon {
        address: format!("graphite-{number}:2003"),
        connect_timeout_ms: 1_000,
        write_timeout_ms: 1_000,
        ..Carbon::default()
    };
    Destination {
        source: Some(object("Destination", &format!("graphite-{number}"))),
        id: format!("graphite-{number}"),
        queue: Some(Queue {
            bytes_max: 1 << 20,
            when_full: WhenFull::Block.into(),
        }),
        endpoint: Some(Endpoint::Carbon(carbon)),
        ..Destination::default()
    }
}

fn prefix(prefix: &str) -> Match {
    Match {
        prefix: prefix.into(),
        ..Match::default()
    }
}

fn regex(regex: &str) -> Match {
    Match {
        regex: regex.into(),
        ..Match::default()
    }
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "bench", name)
}
