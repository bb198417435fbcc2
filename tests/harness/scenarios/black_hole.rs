//! The way to a destination swallows packets: nobody says that the connection is broken.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{directory_to, wait_until_empty};
use crate::{DEADLINE, Directory, Flood, Ledger, RelayProcess, eventually, finish, skip};

// A network namespace with two links to ours: one for senders, one for the destination. It goes when this is dropped.
struct Network {
    name: String,
}

// Of the namespace and of this side, by link.
const SENDERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 203, 0, 2), Ipv4Addr::new(10, 203, 0, 1)];
const DESTINATION: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 203, 1, 2), Ipv4Addr::new(10, 203, 1, 1)];

fn ip(words: &str) -> bool {
    finish(Command::new("ip").args(words.split(' '))).code == Some(0)
}

impl Network {
    // `None`: not permitted here.
    fn new() -> Option<Self> {
        let name = format!("carbonway-{}", std::process::id());
        let network = ip(&format!("netns add {name}")).then_some(Self { name })?;
        let name = &network.name;
        for (link, [inside, outside]) in [("cws", SENDERS), ("cwd", DESTINATION)] {
            let made = ip(&format!(
                "link add {link}0 type veth peer name {link}1 netns {name}"
            )) && ip(&format!("addr add {outside}/24 dev {link}0"))
                && ip(&format!("link set {link}0 up"))
                && ip(&format!("-n {name} addr add {inside}/24 dev {link}1"))
                && ip(&format!("-n {name} link set {link}1 up"));
            if !made {
                return None;
            }
        }
        ip(&format!("-n {name} link set lo up")).then_some(network)
    }

    // Packets to and from the destination vanish, or do not.
    fn swallow(&self, swallows: bool) {
        let state = if swallows { "down" } else { "up" };
        assert!(ip(&format!("link set cwd0 {state}")), "a link can be set");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
        // A namespace's end takes its side of the links along, and that the other, a moment later.
        ip("link del cws0");
        ip("link del cwd0");
    }
}

/// A destination behind a way that swallows packets for `length`, with this `carbon.writeTimeout`. Returns how long it took
/// until that was noticed. `None` where it cannot be tried.
///
/// # Panics
/// If a line is lost, or it is not noticed in time.
pub fn black_hole(length: Duration, write_timeout: Duration) -> Option<Duration> {
    let Some(network) = Network::new() else {
        skip("network namespaces cannot be made here: be root, with iproute2");
        return None;
    };
    let mut ledger = Ledger::at((DESTINATION[1], 2003).into());
    ledger.reopen();
    let state = Directory::of([]);
    let directory = directory_to(&[&ledger], "");
    let timeouts = format!(
        "connectTimeout: 1s, writeTimeout: {}ms, address",
        write_timeout.as_millis()
    );
    let objects = std::fs::read_to_string(directory.file("more.yaml")).expect("it is there");
    directory.write("more.yaml", &objects.replace("address", &timeouts));
    let words = ["ip", "netns", "exec", &network.name];
    let relay = RelayProcess::run_under(&words, SENDERS[0], &directory, state.path());
    relay.wait_for_connected("a", true);
    let flood = Flood::paced(relay.address(), "load.a", 100_000);
    flood.wait_for_more(50_000);
    network.swallow(true);
    let began = Instant::now();
    eventually(
        write_timeout + DEADLINE,
        "the black hole to be noticed",
        || match relay.accounts().destination("a").spooled > 0
            && relay.metrics().get(
                "carbonway_destination_connected",
                &[("destination", "default/a")],
            ) == Some(0.0)
        {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        },
    );
    let noticed = began.elapsed();
    super::go_on_for(length.saturating_sub(noticed));
    network.swallow(false);
    let sent = flood.finish();
    wait_until_empty(&relay, "a", sent);
    ledger.wait_for_all(sent, super::LONG);
    Some(noticed)
}
