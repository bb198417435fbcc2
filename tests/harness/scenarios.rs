//! What can happen to a relay under load, each at the length that is asked for: seconds in the process tier, minutes in the
//! soak tier. Each checks that no line is lost that may not be, and gives what it measured.

mod away;
mod black_hole;
mod day;
mod down;
mod full_disk;
mod slow;

use std::time::Duration;

use crate::{
    DestinationAccounts, Directory, Ledger, RelayProcess, carbon, eventually, relay, route,
};

pub use away::every_sink_is_away;
pub use black_hole::black_hole;
pub use day::{Chance, day};
pub use down::{DownFigures, down};
pub use full_disk::{FullFigures, full_disk};
pub use slow::{SlowFigures, one_of_three_is_slow};

// How long the rest of a scenario may take.
const LONG: Duration = Duration::from_secs(900);

// Every line goes to each of these, `a`, `b` and so on; `spec` says more about them.
fn directory_to(ledgers: &[&Ledger], spec: &str) -> Directory {
    let directory = Directory::of([relay("", "")]);
    let names: Vec<String> = ('a'..).take(ledgers.len()).map(String::from).collect();
    let mut objects = Vec::new();
    for (name, ledger) in names.iter().zip(ledgers) {
        objects.push(carbon(name, ledger.address(), spec));
        objects.push(route(name, &format!("destinations: [{{name: {name}}}]")));
    }
    directory.write("more.yaml", &objects.join("---\n"));
    directory
}

// Waits until the relay has received this many lines and nothing waits for a destination; every line is accounted for.
fn wait_until_empty(relay: &RelayProcess, destination: &str, received: u64) -> DestinationAccounts {
    eventually(LONG, "nothing to wait any more", || {
        let accounts = relay.accounts();
        accounts.balance()?;
        let of = accounts.destination(destination);
        match of.queued + of.spooled == 0 && accounts.received == received {
            true => Ok(of),
            false => Err(format!("{} received, {of:?}", accounts.received)),
        }
    })
}

// Lets time pass, while what was set up goes on.
fn go_on_for(time: Duration) {
    std::thread::sleep(time);
}
