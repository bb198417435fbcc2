//! A destination is down for a while, under a steady load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{directory_to, go_on_for, wait_until_empty};
use crate::{DEADLINE, Directory, Flood, Ledger, RelayProcess, Sender, eventually};

/// What a destination got that was down.
#[derive(Clone, Copy, Debug)]
pub struct DownFigures {
    /// Lines that waited on disk when it was connected again.
    pub backlog: u64,
    /// How long it took until none did.
    pub replay: Duration,
    /// The 99th percentile of the time from sender to destination, before it went down.
    pub p99_before: Duration,
    /// The same, while it was sent what had waited.
    pub p99_during: Duration,
}

/// How often the time from sender to destination is taken.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// A load of `lines_per_second`; the destination is down for `length`.
///
/// # Panics
/// If a line is lost.
pub fn down(length: Duration, lines_per_second: u64) -> DownFigures {
    let mut ledger = Ledger::open();
    let state = Directory::of([]);
    let directory = directory_to(&[&ledger], "");
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let flood = Flood::paced(relay.address(), "load.a", lines_per_second);
    flood.wait_for_more(1_000);
    let probes = Probes::start(&relay);
    go_on_for(length.min(Duration::from_secs(5)));
    let before = probes.finish();
    let p99_before = before.p99(&ledger, 0);
    let first = before.sent.len();
    ledger.close();
    go_on_for(length);
    ledger.reopen();
    relay.wait_for_connected("a", true);
    let backlog = relay.accounts().destination("a").spooled;
    let began = Instant::now();
    let probes = Probes::start_from(&relay, first);
    eventually(super::LONG, "nothing to wait on disk", || {
        match relay.accounts().destination("a").spooled {
            0 => Ok(()),
            lines => Err(format!("{lines} do")),
        }
    });
    let replay = began.elapsed();
    let during = probes.finish();
    let p99_during = during.p99(&ledger, first);
    let sent = flood.finish();
    let probes = (before.sent.len() + during.sent.len()) as u64;
    wait_until_empty(&relay, "a", sent + probes);
    ledger.wait_for_all(sent, super::LONG);
    DownFigures {
        backlog,
        replay,
        p99_before,
        p99_during,
    }
}

// Lines that are sent one by one, each at a known time.
struct Probes {
    enough: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Instant>>,
}

struct Sent {
    sent: Vec<Instant>,
}

impl Probes {
    fn start(relay: &RelayProcess) -> Self {
        Self::start_from(relay, 0)
    }

    fn start_from(relay: &RelayProcess, first: usize) -> Self {
        let enough = Arc::<AtomicBool>::default();
        let (shared, mut sender) = (Arc::clone(&enough), Sender::connect(relay.address()));
        let thread = thread::spawn(move || {
            let mut sent = Vec::new();
            while !shared.load(Ordering::Relaxed) {
                let number = (first + sent.len()) as u64;
                sent.push(Instant::now());
                sender.send_numbers("probe.a", number, number + 1);
                thread::sleep(PROBE_INTERVAL);
            }
            sent
        });
        Self { enough, thread }
    }

    fn finish(self) -> Sent {
        self.enough.store(true, Ordering::Relaxed);
        let sent = self.thread.join().expect("the relay takes probes");
        Sent { sent }
    }
}

impl Sent {
    // Waits for all of them. `first` is the number of the first.
    fn p99(&self, ledger: &Ledger, first: usize) -> Duration {
        let mut took: Vec<Duration> = Vec::new();
        for (number, sent) in (first..).zip(&self.sent) {
            let came = eventually(DEADLINE, "a probe", || {
                ledger.probe(number).ok_or_else(|| "not there".to_owned())
            });
            took.push(came - *sent);
        }
        took.sort();
        took[(took.len() * 99 / 100).min(took.len() - 1)]
    }
}
