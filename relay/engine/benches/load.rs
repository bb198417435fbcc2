//! What a table of regular expressions costs: the time to load it, the memory that it takes, and the time to judge names
//! that were never seen. `cargo bench -p relay-engine --bench load`; on Linux, with nothing else running.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::Command;
use std::time::{Duration, Instant};

use relay_engine::{Engine, Moment, Outbox, Table, UnixSeconds};
use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

const NAMES: usize = 100_000;
const ROUNDS: usize = 5;

fn main() {
    // A heap that was used before hides what is taken, so each case is a process of its own.
    match std::env::args().nth(1).and_then(|case| case.parse().ok()) {
        Some(case) => run(case),
        None => {
            println!("{:<36} {:>9} {:>12}", "", "load ms", "KiB a table");
            (0..LOADS.len()).for_each(in_a_process);
            println!("\n{:<36} {:>9} {:>12}", "new names", "ns each", "KiB more");
            (LOADS.len()..LOADS.len() + JUDGED.len()).for_each(in_a_process);
        }
    }
}

const LOADS: [usize; 2] = [200, 10_000];

// What it is, how many routes with which regular expression (`@` is the number of the route), how the names begin.
const JUDGED: [(&str, usize, &str, &str); 8] = [
    ("200 routes, none is asked", 200, TEAM, "servers.web"),
    ("10,000 routes, none is asked", 10_000, TEAM, "servers.web"),
    ("10,000 routes, each matches ten", 10_000, TEAM, "team"),
    (
        "5 asked for each: anchored",
        5,
        r"^[a-z0-9.]+\.disk\.[a-z]+$",
        "web",
    ),
    ("5 asked for each: a literal", 5, r"host[0-9]+\.rack", "web"),
    ("5 asked for each: the end", 5, r"[a-z]+\.user$", "web"),
    ("50 asked for each: a literal", 50, r"dc1\..*disk", "web"),
    (
        "500 without a literal",
        500,
        r"^[a-z]+[0-9]+\.[a-z]+@\.",
        "web",
    ),
];

const TEAM: &str = r"^team@\..*\.(cpu|mem|disk)\.[a-z]+$";

fn in_a_process(case: usize) {
    let program = std::env::current_exe().expect("a program knows its path");
    let status = Command::new(program).arg(case.to_string()).status();
    assert!(status.expect("it can be run").success());
}

fn run(case: usize) {
    if let Some(count) = LOADS.get(case) {
        let snapshot = snapshot(*count, TEAM);
        let kib = kib_of(|| table(&snapshot));
        let ms = shortest(|| table(&snapshot)).as_secs_f64() * 1e3;
        println!("{:<36} {ms:>9.2} {kib:>12}", format!("{count} routes"));
        return;
    }
    let (title, count, regex, prefix) = JUDGED[case - LOADS.len()];
    let (snapshot, names) = (snapshot(count, regex), names(prefix));
    let first = table(&snapshot);
    let before = rss_kib();
    judge(&first, &names);
    let kib = rss_kib().saturating_sub(before);
    let time = |_| {
        let table = table(&snapshot);
        let began = Instant::now();
        judge(&table, &names);
        began.elapsed().as_nanos() / NAMES as u128
    };
    let ns = (0..ROUNDS).map(time).min().unwrap_or_default();
    println!("{title:<36} {ns:>9} {kib:>12}");
}

fn names(prefix: &str) -> Vec<u8> {
    let line = |n| {
        let (team, host) = (n % 10_000, n / 10_000);
        format!("{prefix}{team}.dc1.host{host}.rack{team}.disk.user 1 1700000000\n")
    };
    (0..NAMES).map(line).collect::<String>().into_bytes()
}

fn table(snapshot: &Snapshot) -> Table {
    Table::load(snapshot).expect("the snapshot is valid")
}

fn judge(table: &Table, block: &[u8]) {
    let mut out = Outbox::default();
    let is_live = &|_| true;
    let now = UnixSeconds(1_700_000_000);
    let tally = Engine::new(0).process(
        table,
        block,
        1024,
        Moment {
            now,
            stamp: 0,
            is_live,
        },
        &mut out,
    );
    assert_eq!(tally.received, NAMES as u64);
}

fn shortest<T>(mut work: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let began = Instant::now();
        let made = work();
        let took = began.elapsed();
        drop(made);
        took
    };
    (0..ROUNDS).map(time).min().unwrap_or_default()
}

// Three alive at once, as while one is swapped for the next.
fn kib_of<T>(mut make: impl FnMut() -> T) -> u64 {
    let before = rss_kib();
    let alive = [make(), make(), make()];
    let kib = rss_kib().saturating_sub(before) / alive.len() as u64;
    drop(alive);
    kib
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default()
}

fn snapshot(routes: usize, regex: &str) -> Snapshot {
    let destination = ObjectRef::new("Destination", "d", "a");
    let route = |number: usize| proto::Route {
        r#match: Some(Match {
            regex: regex.replace('@', &number.to_string()),
            ..Match::default()
        }),
        distribution: proto::Distribution::All.into(),
        targets: vec![proto::Target {
            destination: Some(destination.clone()),
            ..proto::Target::default()
        }],
        ..proto::Route::default()
    };
    Snapshot {
        schema: proto::SCHEMA,
        routes: (0..routes).map(route).collect(),
        destinations: vec![proto::Destination {
            source: Some(destination.clone()),
            id: "a".into(),
            queue: Some(proto::Queue {
                bytes_max: 1 << 20,
                when_full: proto::WhenFull::Block.into(),
            }),
            endpoint: Some(proto::destination::Endpoint::File(proto::File {
                path: "/x".into(),
                ..proto::File::default()
            })),
            ..proto::Destination::default()
        }],
        ..Snapshot::default()
    }
}
