//! A second process that takes over from the first, with its ports and its state directory.

use std::collections::BTreeMap;

use harness::{
    Callers, DEADLINE, Directory, RelayProcess, Signal, Sink, aggregator, carbon, eventually,
    numbered_line, relay, route, unix_seconds,
};
use tempfile::TempDir;

const CALLERS: usize = 32;

fn stop(relay: &mut RelayProcess) {
    relay.process.signal(Signal::TERM);
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(0));
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["stopped", "lines_lost=0"]);
}

#[test]
fn a_second_process_takes_over_and_nobody_is_refused() {
    let sink = Sink::open();
    let directory = Directory::of([
        relay("", ""),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    let state = TempDir::new().unwrap();
    let mut current = RelayProcess::run_with_state(&directory, state.path());
    let callers = Callers::start(current.address(), CALLERS, |caller, number| {
        numbered_line(&format!("load.c{caller}"), number)
    });
    for _ in 0..3 {
        callers.wait_for_more(1_000);
        let next = RelayProcess::take_over(&current, &directory, state.path());
        callers.wait_for_more(1_000);
        stop(&mut current);
        current = next;
    }
    callers.wait_for_more(1_000);
    let sent = callers.finish();
    sink.wait_for_lines(sent.iter().sum::<u64>() as usize);
    let mut values = sink.values();
    // two processes, two connections: a series may be out of order
    values.values_mut().for_each(|numbers| numbers.sort());
    let expected = sent.iter().enumerate();
    let expected: BTreeMap<String, Vec<u64>> = expected
        .map(|(caller, sent)| (format!("load.c{caller}"), (0..*sent).collect()))
        .collect();
    assert_eq!(values, expected);
}

#[test]
fn what_waits_on_disk_and_in_buckets_goes_over_to_the_second_process() {
    let (mut sink, sums) = (Sink::absent(), Sink::open());
    let directory = Directory::of([
        relay("", ""),
        carbon("away", sink.address(), "spool: {sync: {interval: 100ms}},"),
        carbon("sums", sums.address(), ""),
        route("all", "match: {prefix: raw.}, destinations: [{name: away}]"),
        route(
            "sums",
            "match: {prefix: sum.}, destinations: [{name: sums}]",
        ),
        aggregator(
            "sum",
            "match: {regex: '^raw[.](.*)'}, functions: [Sum], output: sum.$1, interval: 2s, wait: 4s",
        ),
    ]);
    let state = TempDir::new().unwrap();
    let mut first = RelayProcess::run_with_state(&directory, state.path());
    let callers = Callers::start(first.address(), CALLERS, |caller, _| {
        format!("raw.c{caller} 1 {}\n", unix_seconds())
    });
    callers.wait_for_more(1_000);
    eventually(DEADLINE, "lines on disk", || {
        match first.accounts().destination("away").spooled {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    });
    let second = RelayProcess::take_over(&first, &directory, state.path());
    callers.wait_for_more(1_000);
    stop(&mut first);
    second
        .process
        .wait_for_stderr(DEADLINE, 0, &["taken up again"]);
    callers.wait_for_more(1_000);
    let sent: u64 = callers.finish().iter().sum();
    sink.reopen();
    sink.wait_for_lines(sent as usize);
    assert!(second.accounts().destination("away").recovered > 0);
    eventually(DEADLINE, "every point in a sum", || {
        let text = sums.text();
        let sums = text.lines().filter_map(|line| line.split(' ').nth(1));
        let summed: u64 = sums.map(|sum| sum.parse::<u64>().unwrap()).sum();
        match summed == sent {
            true => Ok(()),
            false => Err(format!("{summed} of {sent}")),
        }
    });
    second.accounts().balance().unwrap();
}
