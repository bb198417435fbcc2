//! Destinations and relays that are killed, over and over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::scenarios::Chance;
use harness::{
    DEADLINE, Directory, Flood, RelayProcess, Sender, Sink, carbon, eventually, numbered_line,
    relay, route,
};

const LONG: Duration = Duration::from_secs(600);

fn directory(sink: &Sink, spec: &str) -> Directory {
    Directory::of([
        relay("", ""),
        carbon("a", sink.address(), spec),
        route("all", "destinations: [{name: a}]"),
    ])
}

// The numbers that arrived, and how many lines that were. Every line is whole, but for the last of a connection that was cut.
fn numbers(sink: &Sink) -> (BTreeSet<u64>, usize) {
    let (mut distinct, mut all) = (BTreeSet::new(), 0);
    for connection in sink.connections() {
        let text = String::from_utf8(connection.bytes).unwrap();
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let number = line
                .split(' ')
                .nth(1)
                .and_then(|number| number.parse().ok());
            let number = number.unwrap_or_else(|| panic!("no line: {line:?}"));
            assert_eq!(line, numbered_line("load.a", number), "torn or merged");
            distinct.insert(number);
            all += 1;
        }
    }
    (distinct, all)
}

// Waits until these have arrived, and says how many lines came and how many of them twice.
fn wait_for(sink: &Sink, expected: &BTreeSet<u64>) {
    let (distinct, all) = eventually(LONG, "every line to arrive", || {
        let (distinct, all) = numbers(sink);
        match expected.difference(&distinct).next() {
            None => Ok((distinct, all)),
            Some(first) => Err(format!("{} arrived, {first} did not", distinct.len())),
        }
    });
    println!(
        "{} had to arrive, {} did, {} of them more than once",
        expected.len(),
        distinct.len(),
        all - distinct.len()
    );
}

#[test]
fn a_destination_that_is_killed_ten_times_under_load_gets_every_line() {
    let mut sink = Sink::open();
    let (directory, state) = (directory(&sink, ""), Directory::of([]));
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let flood = Flood::start(relay.address(), "load.a");
    for _ in 0..10 {
        flood.wait_for_more(200_000);
        // With what it has not read in its kernel's buffers, which go with it.
        sink.close();
        flood.wait_for_more(200_000);
        sink.reopen();
        relay.wait_for_connected("a", true);
    }
    let sent = flood.finish();
    let accounts = eventually(LONG, "everything to be sent", || {
        let accounts = relay.accounts();
        accounts.balance()?;
        let a = accounts.destination("a");
        match a.queued + a.spooled == 0 && accounts.received == sent {
            true => Ok(a),
            false => Err(format!("{a:?}")),
        }
    });
    println!("{accounts:?}");
    wait_for(&sink, &(0..sent).collect());
}

#[test]
fn a_relay_that_is_killed_fifty_times_with_a_backlog_keeps_what_is_older_than_the_sync_interval() {
    const SYNC_INTERVAL: Duration = Duration::from_secs(1);
    let mut chance = Chance::new();
    let mut sink = Sink::absent();
    let (directory, state) = (directory(&sink, ""), Directory::of([]));
    let mut must_arrive: BTreeSet<u64> = BTreeSet::new();
    let mut next = 0;
    for _ in 0..50 {
        let mut relay = RelayProcess::run_with_state(&directory, state.path());
        let mut sender = Sender::connect(relay.address());
        let kill_at = Instant::now() + SYNC_INTERVAL + Duration::from_millis(chance.below(2000));
        let first = next;
        let mut read: Vec<(Instant, u64)> = Vec::new();
        while Instant::now() < kill_at {
            let end = next + 1 + chance.below(40);
            sender.send_numbers("load.a", next, end);
            // What is in the kernel only was never the relay's.
            eventually(DEADLINE, "the relay to have read it", || {
                match relay.accounts().received {
                    received if received == end - first => Ok(()),
                    received => Err(format!("{received} received")),
                }
            });
            read.push((Instant::now(), end));
            next = end;
        }
        let killed = Instant::now();
        relay.process.kill();
        let is_old = |(at, _): &&(Instant, u64)| killed - *at > SYNC_INTERVAL;
        if let Some((_, end)) = read.iter().rfind(is_old) {
            must_arrive.extend(first..*end);
        }
    }
    println!("{next} lines sent, {} must arrive", must_arrive.len());
    let relay = RelayProcess::run_with_state(&directory, state.path());
    sink.reopen();
    eventually(LONG, "everything to be sent", || {
        let a = relay.accounts().destination("a");
        match a.queued + a.spooled == 0 && a.sent > 0 {
            true => Ok(()),
            false => Err(format!("{a:?}")),
        }
    });
    wait_for(&sink, &must_arrive);
}
