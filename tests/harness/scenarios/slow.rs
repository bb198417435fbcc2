//! One of three destinations reads at a hundredth of its speed.

use std::time::{Duration, Instant};

use super::{directory_to, go_on_for, wait_until_empty};
use crate::{Directory, Flood, Ledger, RelayProcess};

/// Lines a second that the other two got.
#[derive(Clone, Copy, Debug)]
pub struct SlowFigures {
    /// While the third one was as fast as they.
    pub with_three_fast: f64,
    /// While it was slow.
    pub with_one_slow: f64,
}

/// Full input to three destinations, of which one is slow for `length`; then it is fast again and gets the rest.
///
/// # Panics
/// If a line is lost.
pub fn one_of_three_is_slow(length: Duration) -> SlowFigures {
    let [a, b, c] = [0; 3].map(|_| Ledger::open());
    let state = Directory::of([]);
    let directory = directory_to(&[&a, &b, &c], "");
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let flood = Flood::start(relay.address(), "load.a");
    flood.wait_for_more(50_000);
    let rate = || {
        let (began, before) = (Instant::now(), a.distinct() + b.distinct());
        go_on_for(length);
        (a.distinct() + b.distinct() - before) as f64 / 2.0 / began.elapsed().as_secs_f64()
    };
    let with_three_fast = rate();
    let bytes_per_line = 28.0;
    c.set_pace(Some((with_three_fast * bytes_per_line / 100.0) as u64));
    let with_one_slow = rate();
    let sent = flood.finish();
    c.set_pace(None);
    for (name, ledger) in [("a", &a), ("b", &b), ("c", &c)] {
        wait_until_empty(&relay, name, sent);
        ledger.wait_for_all(sent, super::LONG);
    }
    SlowFigures {
        with_three_fast,
        with_one_slow,
    }
}
