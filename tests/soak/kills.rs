//! Destinations and relays that are killed, over and over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::scenarios::Chance;
use harness::{
    DEADLINE, Directory, Flood, Ledger, RelayProcess, Sender, carbon, eventually, relay, route,
};

const LONG: Duration = Duration::from_secs(600);

fn directory(ledger: &Ledger) -> Directory {
    Directory::of([
        relay("", ""),
        carbon("a", ledger.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ])
}

#[test]
fn a_destination_that_is_killed_ten_times_under_load_gets_every_line() {
    let mut ledger = Ledger::open();
    let (directory, state) = (directory(&ledger), Directory::of([]));
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let flood = Flood::start(relay.address(), "load.a");
    for _ in 0..10 {
        flood.wait_for_more(200_000);
        // With what it has not read in its kernel's buffers, which go with it.
        ledger.close();
        flood.wait_for_more(200_000);
        ledger.reopen();
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
    ledger.wait_for_all(sent, LONG);
    println!(
        "{sent} lines sent, {} came twice: {accounts:?}",
        ledger.twice()
    );
}

#[test]
fn a_relay_that_is_killed_fifty_times_with_a_backlog_keeps_what_is_older_than_the_sync_interval() {
    const SYNC_INTERVAL: Duration = Duration::from_secs(1);
    let mut chance = Chance::new();
    let mut ledger = Ledger::absent();
    let (directory, state) = (directory(&ledger), Directory::of([]));
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
    ledger.reopen();
    eventually(LONG, "everything to be sent", || {
        let a = relay.accounts().destination("a");
        match a.queued + a.spooled == 0 && a.sent > 0 {
            true => Ok(()),
            false => Err(format!("{a:?}")),
        }
    });
    eventually(LONG, "every line that must arrive", || {
        let missing = ledger.missing(next);
        match missing.iter().find(|number| must_arrive.contains(number)) {
            None => Ok(()),
            Some(first) => Err(format!("{first} did not")),
        }
    });
    println!(
        "{} arrived, {} of them more than once",
        ledger.distinct(),
        ledger.twice()
    );
}
