//! Changes of configuration, hand-over and SIGTERM under load.

use std::collections::BTreeMap;
use std::time::Instant;

use harness::{
    Callers, DEADLINE, Directory, Flood, RelayProcess, Signal, Sink, carbon, eventually,
    numbered_line, relay, route,
};

const ROUNDS: u32 = 20;
const CALLERS: usize = 32;

fn stop(relay: &mut RelayProcess) {
    relay.process.signal(Signal::TERM);
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(0));
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["stopped", "lines_lost=0"]);
}

#[test]
fn twenty_changes_and_hand_overs_under_load_lose_nothing() {
    let sink = Sink::open();
    let (directory, state) = (
        Directory::of([relay("", ""), carbon("a", sink.address(), "")]),
        Directory::of([]),
    );
    directory.write("route.yaml", &route("all", "destinations: [{name: a}]"));
    let mut current = RelayProcess::run_with_state(&directory, state.path());
    let callers = Callers::start(current.address(), CALLERS, |caller, number| {
        numbered_line(&format!("load.c{caller}"), number)
    });
    let began = Instant::now();
    for round in 0..ROUNDS {
        callers.wait_for_more(1_000);
        let spec = format!("priority: {round}, destinations: [{{name: a}}]");
        directory.write("route.yaml", &route("all", &spec));
        callers.wait_for_more(1_000);
        let next = RelayProcess::take_over(&current, &directory, state.path());
        callers.wait_for_more(1_000);
        stop(&mut current);
        current = next;
    }
    let sent = callers.finish();
    let total: u64 = sent.iter().sum();
    sink.wait_for_lines(total as usize);
    let mut values = sink.values();
    values.values_mut().for_each(|numbers| numbers.sort());
    let expected = sent.iter().enumerate();
    let expected: BTreeMap<String, Vec<u64>> = expected
        .map(|(caller, sent)| (format!("load.c{caller}"), (0..*sent).collect()))
        .collect();
    assert_eq!(values, expected);
    println!(
        "{ROUNDS} hand-overs, {} connections, {total} lines in {:?}: none refused, none lost, none twice",
        total / 10,
        began.elapsed()
    );
}

#[test]
fn twenty_sigterms_under_full_load_lose_nothing_that_was_sent() {
    let mut lines = 0;
    for _ in 0..ROUNDS {
        let (sink, state) = (Sink::open(), Directory::of([]));
        let directory = Directory::of([
            relay("", ""),
            carbon("a", sink.address(), ""),
            route("all", "destinations: [{name: a}]"),
        ]);
        let mut relay = RelayProcess::run_with_state(&directory, state.path());
        let floods = ["load.a", "load.b", "load.c"];
        let floods = floods.map(|name| (name, Flood::start(relay.address(), name)));
        floods
            .iter()
            .for_each(|(_, flood)| flood.wait_for_more(200_000));
        let sent = floods.each_ref().map(|(name, flood)| (*name, flood.sent()));
        stop(&mut relay);
        floods
            .into_iter()
            .for_each(|(_, flood)| flood.wait_until_cut());
        // What was left waits on disk for the next process.
        let relay = RelayProcess::run_with_state(&directory, state.path());
        eventually(DEADLINE, "nothing to wait", || {
            let a = relay.accounts().destination("a");
            match a.queued + a.spooled {
                0 => Ok(()),
                _ => Err(format!("{a:?}")),
            }
        });
        eventually(DEADLINE, "all that was sent", || {
            let values = sink.values();
            let short = sent
                .iter()
                .find(|(name, sent)| (values[*name].len() as u64) < *sent);
            short.map_or(Ok(()), |short| Err(format!("{short:?} sent")))
        });
        for (name, mut values) in sink.values() {
            values.sort();
            lines += values.len();
            let expected: Vec<u64> = (0..values.len() as u64).collect();
            assert_eq!(values, expected, "{name}: a gap, or a line twice");
        }
    }
    println!("{ROUNDS} times SIGTERM, {lines} lines: all that was sent arrived, none twice");
}
