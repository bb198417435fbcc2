//! The file system with the spools fills up, and has space again.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{directory_to, wait_until_empty};
use crate::{
    DEADLINE, Directory, Flood, Ledger, RelayProcess, eventually, finish, own_address, skip,
};

/// What became of the lines.
#[derive(Clone, Copy, Debug)]
pub struct FullFigures {
    /// Lines that were sent.
    pub sent: u64,
    /// Lines that were dropped because the disk was full, each counted.
    pub dropped: u64,
}

/// A file system of `mebibytes` for spools, half of it taken by a file that is removed when it was full; then the destination
/// comes back. `None` where that cannot be tried.
///
/// # Panics
/// If a line is lost that is not counted, or the relay does not recover by itself.
pub fn full_disk(mebibytes: u64) -> Option<FullFigures> {
    if finish(Command::new("unshare").args(["--mount", "true"])).code != Some(0) {
        skip("mount namespaces cannot be made here: be root");
        return None;
    }
    let mut ledger = Ledger::absent();
    let state = Directory::of([]);
    let directory = directory_to(&[&ledger], "queue: {maxBytes: 1Mi}, ");
    let mount = format!(
        "mount -t tmpfs -o size={mebibytes}m tmpfs {} && exec \"$@\"",
        state.path().display()
    );
    let words = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let relay = RelayProcess::run_under(&words, own_address(), &directory, state.path());
    // The relay's file system, seen from here.
    let root = PathBuf::from(format!("/proc/{}/root", relay.process.id()));
    let inside = root.join(state.path().strip_prefix("/").expect("it is absolute"));
    let ballast = inside.join("ballast");
    fs::write(&ballast, vec![0; (mebibytes << 20) as usize / 2]).expect("there is room for it");
    let dropped = || {
        let a = relay.accounts().destination("a");
        a.dropped.get("disk_full").copied().unwrap_or_default()
    };
    let flood = Flood::start(relay.address(), "load.a");
    eventually(super::LONG, "the disk to be full", || match dropped() {
        0 => Err("nothing is dropped".to_owned()),
        _ => Ok(()),
    });
    fs::remove_file(&ballast).expect("it is there");
    let spooled = || relay.accounts().destination("a").spooled;
    let at_first = spooled();
    eventually(DEADLINE, "the space to be used", || match spooled() {
        lines if lines > at_first * 3 / 2 => Ok(()),
        lines => Err(format!("{lines} lines on disk, {at_first} before")),
    });
    let sent = flood.finish();
    ledger.reopen();
    let a = wait_until_empty(&relay, "a", sent);
    let dropped: u64 = a.dropped.values().sum();
    ledger.wait_for_all_but(sent, dropped, super::LONG);
    // It spools again as if nothing had been.
    ledger.close();
    relay.wait_for_connected("a", false);
    let again = Flood::paced(relay.address(), "load.a", 20_000);
    again.wait_for_more(10_000);
    let more = again.finish();
    ledger.reopen();
    let after = wait_until_empty(&relay, "a", sent + more);
    assert_eq!(
        after.dropped, a.dropped,
        "lines are dropped although there is space"
    );
    Some(FullFigures { sent, dropped })
}
