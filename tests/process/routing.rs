//! Which lines go where.

use harness::{
    DEADLINE, Directory, RelayProcess, Sender, Sink, blocklist, carbon, eventually, file, relay,
    route,
};

use crate::counts;

// Four sinks as the destinations a to d, and a relay with these routes and blocklists.
struct Bed {
    relay: RelayProcess,
    sinks: [Sink; 4],
    sent: usize,
    _directory: Directory,
}

// What a connection took does not go again when it breaks.
const ONCE: &str = "resend: {maxBytes: 0},";

impl Bed {
    fn new(rules: &[String]) -> Self {
        let sinks = [0; 4].map(|_| Sink::open());
        let [a, b, c, d] = &sinks;
        let directory = Directory::of([
            relay("", ""),
            carbon("a", a.address(), ONCE),
            carbon("b", b.address(), ONCE),
            carbon("c", c.address(), ONCE),
            carbon("d", d.address(), ONCE),
        ]);
        directory.write("rules.yaml", &rules.join("---\n"));
        let relay = RelayProcess::run(&directory);
        Self {
            relay,
            sinks,
            sent: 0,
            _directory: directory,
        }
    }

    // Sends a line for each name.
    fn send(&mut self, names: &[&str]) {
        let lines: String = names.iter().map(|name| format!("{name} 1 1\n")).collect();
        Sender::deliver(self.relay.address(), lines);
        self.sent += names.len();
    }

    // The names that each destination got.
    #[track_caller]
    fn assert_got(&self, expected: [&[&str]; 4]) {
        self.relay.settle(self.sent as u64);
        for (sink, expected) in self.sinks.iter().zip(expected) {
            sink.wait_for_lines(expected.len());
        }
        let got = self
            .sinks
            .each_ref()
            .map(|sink| sink.text().replace(" 1 1\n", " "));
        assert_eq!(
            got,
            expected.map(|names| names
                .iter()
                .map(|name| format!("{name} "))
                .collect::<String>())
        );
    }
}

#[test]
fn every_route_that_matches_gets_the_line_and_what_none_takes_is_counted() {
    let mut bed = Bed::new(&[
        route(
            "web",
            "match: {prefix: web.}, destinations: [{name: a}, {name: b}]",
        ),
        route("cpu", "match: {contains: cpu}, destinations: [{name: c}]"),
    ]);
    bed.send(&["web.cpu", "web.disk", "db.cpu", "db.disk"]);
    let web = ["web.cpu", "web.disk"];
    bed.assert_got([&web, &web, &["web.cpu", "db.cpu"], &[]]);
    let accounts = bed.relay.accounts();
    assert_eq!(
        (accounts.forwarded, accounts.dropped),
        (3, counts([("unrouted", 1)]))
    );
}

#[test]
fn a_destination_gets_a_line_once_however_many_routes_name_it() {
    let mut bed = Bed::new(&[
        route("one", "destinations: [{name: a}, {name: b}, {name: a}]"),
        route(
            "two",
            "match: {prefix: web.}, destinations: [{name: b}, {name: a}]",
        ),
    ]);
    bed.send(&["web.cpu", "db.cpu"]);
    let all = ["web.cpu", "db.cpu"];
    bed.assert_got([&all, &all, &[], &[]]);
    assert_eq!(bed.relay.accounts().destination("a").offered, 2);
}

#[test]
fn first_match_gives_the_line_to_the_first_destination_that_matches() {
    let mut bed = Bed::new(&[route(
        "web",
        "match: {prefix: web.}, distribution: FirstMatch, destinations: [\
         {name: c, match: {contains: cpu}}, {name: a, match: {regex: 'disk$'}}, {name: b}]",
    )]);
    bed.send(&["web.cpu.disk", "web.disk", "web.net", "db.cpu"]);
    bed.assert_got([&["web.disk"], &["web.net"], &["web.cpu.disk"], &[]]);
}

#[test]
fn a_route_takes_a_line_only_if_a_destination_does() {
    let mut bed = Bed::new(&[
        route(
            "first",
            "priority: 1, onMatch: Stop, destinations: [{name: a, match: {prefix: a.}}, {name: b, match: {prefix: b.}}]",
        ),
        route(
            "second",
            "destinations: [{name: c, match: {notPrefix: x.}}]",
        ),
        route("default", "unmatchedOnly: true, destinations: [{name: d}]"),
    ]);
    bed.send(&["a.1", "b.1", "c.1", "x.1"]);
    bed.assert_got([&["a.1"], &["b.1"], &["c.1"], &["x.1"]]);
}

#[test]
fn a_route_that_stops_hides_a_line_from_those_of_lower_priority() {
    let mut bed = Bed::new(&[
        // the order of writing has no meaning
        route("low", "priority: -5, destinations: [{name: c}]"),
        route(
            "high",
            "priority: 10, match: {contains: copy}, destinations: [{name: a}]",
        ),
        route(
            "middle",
            "match: {prefix: web.}, onMatch: Stop, destinations: [{name: b}]",
        ),
    ]);
    bed.send(&["web.copy", "web.cpu", "db.copy", "db.cpu"]);
    bed.assert_got([
        &["web.copy", "db.copy"],
        &["web.copy", "web.cpu"],
        &["db.copy", "db.cpu"],
        &[],
    ]);
}

#[test]
fn routes_of_one_priority_go_by_name() {
    let mut bed = Bed::new(&[
        route("b", "onMatch: Stop, destinations: [{name: b}]"),
        route("c", "onMatch: Stop, destinations: [{name: c}]"),
        route(
            "a",
            "onMatch: Stop, destinations: [{name: a, match: {prefix: a.}}]",
        ),
    ]);
    bed.send(&["a.1", "b.1"]);
    bed.assert_got([&["a.1"], &["b.1"], &[], &[]]);
}

#[test]
fn a_default_route_sees_only_what_no_other_route_took() {
    let mut bed = Bed::new(&[
        // a high priority does not bring it before those that are not defaults
        route(
            "default",
            "priority: 100, unmatchedOnly: true, destinations: [{name: d}]",
        ),
        route("spare", "unmatchedOnly: true, destinations: [{name: c}]"),
        route("web", "match: {prefix: web.}, destinations: [{name: a}]"),
        route(
            "cpu",
            "priority: -100, match: {contains: cpu}, destinations: [{name: b}]",
        ),
    ]);
    bed.send(&["web.cpu", "web.disk", "db.cpu", "db.disk"]);
    bed.assert_got([
        &["web.cpu", "web.disk"],
        &["web.cpu", "db.cpu"],
        &[],
        &["db.disk"],
    ]);
}

#[test]
fn blocklists_drop_before_any_route_sees_the_line() {
    let mut bed = Bed::new(&[
        route("all", "destinations: [{name: a}]"),
        blocklist(
            "noise",
            "{prefix: collectd.localhost}, {regex: '^foo\\..*\\.cpu$'}",
        ),
        blocklist("tests", "{prefix: test., notContains: keep}"),
    ]);
    bed.send(&[
        "collectd.localhost.load",
        "collectd.local",
        "foo.web1.cpu",
        "foo.web1.cpu.user",
        "test.a",
        "test.keep",
        ".test.dotted",
    ]);
    bed.assert_got([
        &["collectd.local", "foo.web1.cpu.user", "test.keep"],
        &[],
        &[],
        &[],
    ]);
    assert_eq!(bed.relay.accounts().dropped, counts([("blocklisted", 4)]));
}

#[test]
fn conditions_see_the_name_with_its_tags_and_nothing_else() {
    let mut bed = Bed::new(&[
        route(
            "value",
            "match: {contains: ' 1'}, destinations: [{name: a}]",
        ),
        route(
            "tags",
            "match: {regex: ';dc=ams$'}, destinations: [{name: b}]",
        ),
        route("end", "match: {regex: 'cpu$'}, destinations: [{name: c}]"),
        route("default", "unmatchedOnly: true, destinations: [{name: d}]"),
    ]);
    bed.send(&["web.cpu;dc=ams", "web.cpu", ".cpu1"]);
    bed.assert_got([&[], &["web.cpu;dc=ams"], &["web.cpu"], &["cpu1"]]);
}

#[test]
fn each_condition_of_a_match_means_what_it_says() {
    // carbon-relay-ng's vectors, and two that it gets wrong (the last two regexes)
    let cases: [(&str, &[&str], &[&str]); 13] = [
        ("prefix: aaa", &["aaaaa"], &["abc", "baab", "a"]),
        ("notPrefix: aaa", &["abc", "baab", "a"], &["aaaaa"]),
        (
            "contains: aaa",
            &["aaaaa", "baaa", "aaab", "bbbaaabbb"],
            &["abc", "aa"],
        ),
        (
            "notContains: aaa",
            &["abc", "aa"],
            &["aaaaa", "baaa", "aaab", "bbbaaabbb"],
        ),
        ("regex: '^[a-c]{3}'", &["abcdef"], &["aad", "daaab"]),
        ("regex: '^abc.+'", &["abcdef"], &["daaab", "abc"]),
        (
            "regex: '[a-c]{3}'",
            &["abcdef", "aadbbb", "daaab"],
            &["dadada"],
        ),
        ("notRegex: '^abc.+'", &["daab", "abc"], &["abcabc"]),
        (
            "regex: '[a-c]{3}', prefix: f",
            &["fabc", "fffabc"],
            &["abcf", "fffab", "abcffff"],
        ),
        (
            "regex: '[a-c]{3}', prefix: f, notPrefix: fa, notContains: bca",
            &["fcba"],
            &["fabc", "fbca", "fcb", "cbaf"],
        ),
        (
            "contains: a, notContains: aa, notRegex: ab",
            &["aca", "cba"],
            &["aaa", "aba", "aab", "bab", "bbb"],
        ),
        ("regex: '^a|b'", &["bx", "ax", "xb"], &["x"]),
        (
            "regex: '^foo?bar'",
            &["fobar", "foobar"],
            &["fooobar", "xfobar"],
        ),
    ];
    let directory = Directory::of([relay("", "")]);
    let mut rules = Vec::new();
    for (index, (condition, _, _)) in cases.iter().enumerate() {
        let (name, path) = (
            format!("case-{index}"),
            directory.file(&format!("{index}.lines")),
        );
        rules.push(file(&name, &path));
        rules.push(route(
            &name,
            &format!("match: {{{condition}}}, destinations: [{{name: {name}}}]"),
        ));
    }
    directory.write("rules.yaml", &rules.join("---\n"));
    let relay = RelayProcess::run(&directory);
    let names: Vec<_> = cases
        .iter()
        .flat_map(|(_, hits, misses)| hits.iter().chain(*misses))
        .collect();
    let lines: String = names.iter().map(|name| format!("{name} 1 1\n")).collect();
    Sender::deliver(relay.address(), lines);
    relay.settle(names.len() as u64);
    for (index, (condition, hits, misses)) in cases.iter().enumerate() {
        let got = std::fs::read_to_string(directory.file(&format!("{index}.lines"))).unwrap();
        let got: Vec<_> = got
            .lines()
            .filter_map(|line| line.strip_suffix(" 1 1"))
            .collect();
        assert!(
            hits.iter().all(|name| got.contains(name)),
            "{condition}: {got:?}, not {hits:?}"
        );
        assert!(
            !misses.iter().any(|name| got.contains(name)),
            "{condition}: {got:?} has of {misses:?}"
        );
    }
}

#[test]
fn failover_moves_on_when_the_first_is_away_and_comes_back_when_it_has_been_up_for_a_while() {
    let rules = [route(
        "all",
        "distribution: Failover, destinations: [{name: a}, {name: b}]",
    )];
    let mut bed = Bed::new(&rules);
    bed.relay.wait_for_connected("a", true);
    bed.relay.wait_for_connected("b", true);
    bed.send(&["one"]);
    bed.sinks[0].wait_for_lines(1);
    bed.sinks[0].close();
    bed.relay.wait_for_live("a", false);
    bed.send(&["two"]);
    bed.sinks[1].wait_for_lines(1);
    bed.sinks[0].reopen();
    bed.relay.wait_for_connected("a", true);
    bed.send(&["three"]);
    bed.sinks[1].wait_for_lines(2);
    bed.relay.wait_for_live("a", true);
    bed.send(&["four"]);
    bed.assert_got([&["one", "four"], &["two", "three"], &[], &[]]);
}

#[test]
fn round_robin_takes_turns() {
    let rules = [route(
        "all",
        "distribution: RoundRobin, destinations: [{name: a}, {name: b, match: {suffix: x}}, {name: c}]",
    )];
    let mut bed = Bed::new(&rules);
    bed.send(&["1.x", "2.x", "3.x", "4.x", "5.x", "6.x"]);
    bed.assert_got([&["1.x", "4.x"], &["2.x", "5.x"], &["3.x", "6.x"], &[]]);
}

#[test]
fn consistent_hash_shares_series_out_with_replicas() {
    let rules = [route(
        "all",
        "distribution: ConsistentHash, consistentHash: {algorithm: Rendezvous, replicationFactor: 2}, \
         destinations: [{name: a, instance: a}, {name: b, instance: b}, {name: c, instance: c}]",
    )];
    let mut bed = Bed::new(&rules);
    let names: Vec<String> = (0..300)
        .map(|number| format!("servers.web{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.send(&names);
    bed.send(&names);
    bed.relay.settle(600);
    // each line was sent twice and has two owners, the same ones both times
    eventually(DEADLINE, "1200 lines at the sinks", || {
        match bed.sinks.iter().map(Sink::line_count).sum::<usize>() {
            1200 => Ok(()),
            lines => Err(format!("{lines} came")),
        }
    });
    let mut copies = std::collections::BTreeMap::<String, usize>::new();
    for sink in &bed.sinks[..3] {
        let lines = sink.lines();
        assert!((250..550).contains(&lines.len()), "{} lines", lines.len());
        lines
            .into_iter()
            .for_each(|line| *copies.entry(line).or_default() += 1);
    }
    assert_eq!(copies.len(), 300);
    assert!(copies.values().all(|copies| *copies == 4), "{copies:?}");
}

#[test]
fn suffix_glob_and_tags_match() {
    let rules = [
        route("suffix", "match: {suffix: .cpu}, destinations: [{name: a}]"),
        route(
            "glob",
            "match: {glob: 'servers.*.{cpu,mem}'}, destinations: [{name: b}]",
        ),
        route(
            "tags",
            "match: {tags: ['dc=~am', 'env!=dev']}, destinations: [{name: c}]",
        ),
    ];
    let mut bed = Bed::new(&rules);
    bed.send(&[
        "servers.x.cpu",
        "servers.x.y.cpu",
        "servers.x.mem",
        "a;dc=ams",
        "a;dc=ams;env=dev",
    ]);
    bed.assert_got([
        &["servers.x.cpu", "servers.x.y.cpu"],
        &["servers.x.cpu", "servers.x.mem"],
        &["a;dc=ams"],
        &[],
    ]);
}
