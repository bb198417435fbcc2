//! A day in minutes: faults one after the other, as chance has them, against a model of what must arrive.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use super::LONG;
use crate::{
    DEADLINE, Directory, Ledger, RelayProcess, Sender, Signal, carbon, eventually, relay, route,
    unix_seconds,
};

const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// What is sent again, at least: more than a kernel holds for a destination that has not read it.
const RESEND_MEBIBYTES: u64 = 8;

/// A xorshift generator: chance that can be had again.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From the seed in CARBONWAY_SEED, or of this second. It is printed.
    ///
    /// # Panics
    /// If that is not a number.
    #[expect(clippy::print_stdout, reason = "with it a run can be had again")]
    pub fn new() -> Self {
        let given = std::env::var("CARBONWAY_SEED").ok();
        let seed = given.map_or_else(unix_seconds, |seed| seed.parse().expect("a number"));
        println!("CARBONWAY_SEED={seed}");
        Self::of(seed)
    }

    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Another one, of which it matters not how often it is asked.
    fn fork(&mut self) -> Self {
        Self::of(self.below(u64::MAX))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    DestinationKilled,
    DestinationBack,
    DestinationSlow,
    DestinationFast,
    RelayKilled,
    RelayStopped,
    Reconfigured,
    SegmentDamaged,
}

const FAULTS: [Fault; 8] = [
    Fault::DestinationKilled,
    Fault::DestinationBack,
    Fault::DestinationSlow,
    Fault::DestinationFast,
    Fault::RelayKilled,
    Fault::RelayStopped,
    Fault::Reconfigured,
    Fault::SegmentDamaged,
];

struct Day {
    // How many lines there are between faults. What is asked of it depends on the machine's speed.
    chance: Chance,
    ledger: Ledger,
    is_open: bool,
    directory: Directory,
    state: Directory,
    relay: RelayProcess,
    // The next number to be sent, and the first that this relay process was sent.
    next: u64,
    first: u64,
    // When each of the last numbers was read.
    read: Vec<(Instant, u64)>,
    // What may be missing.
    may_miss: BTreeSet<u64>,
    // Lines that may be missing beside those, whichever they are: those that a damaged segment had.
    damaged: u64,
}

/// This many faults. Returns how many lines were sent, and how many of them never came.
///
/// # Panics
/// If a line did not come that had to.
#[expect(clippy::print_stdout, reason = "with it a failure can be understood")]
pub fn day(faults: u32) -> (u64, u64) {
    let ledger = Ledger::open();
    let (directory, state) = (Directory::of([]), Directory::of([]));
    directory.write("resources.yaml", &resources(&ledger, RESEND_MEBIBYTES));
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let mut chance = Chance::new();
    let mut day = Day {
        chance: chance.fork(),
        ledger,
        is_open: true,
        directory,
        state,
        relay,
        next: 0,
        first: 0,
        read: Vec::new(),
        may_miss: BTreeSet::new(),
        damaged: 0,
    };
    for _ in 0..faults {
        day.send_for(3 * SYNC_INTERVAL);
        let fault = FAULTS[chance.below(FAULTS.len() as u64) as usize];
        println!("{} lines, then {fault:?}", day.next);
        day.suffer(fault, chance.fork());
    }
    day.end()
}

fn resources(ledger: &Ledger, resend_mebibytes: u64) -> String {
    let spec = format!(
        "queue: {{maxBytes: 1Mi}}, spool: {{sync: {{interval: {}ms}}}}, resend: {{maxBytes: {resend_mebibytes}Mi}}, ",
        SYNC_INTERVAL.as_millis()
    );
    [
        relay("", "drain: {timeout: 2s},"),
        carbon("a", ledger.address(), &spec),
        route("all", "destinations: [{name: a}]"),
    ]
    .join("---\n")
}

impl Day {
    fn send_for(&mut self, time: Duration) {
        let mut sender = Sender::connect(self.relay.address());
        let end = Instant::now() + time;
        while Instant::now() < end {
            let last = self.next + 1 + self.chance.below(2_000);
            sender.send_numbers("load.a", self.next, last);
            self.next = last;
            let sent = self.next - self.first;
            // What is in the kernel only was never the relay's.
            eventually(DEADLINE, "the relay to have read it", || {
                match self.relay.accounts().received {
                    received if received == sent => Ok(()),
                    received => Err(format!("{received} of {sent}")),
                }
            });
            self.read.push((Instant::now(), self.next));
        }
        sender.close();
    }

    fn suffer(&mut self, fault: Fault, mut chance: Chance) {
        match fault {
            Fault::DestinationKilled if self.is_open => {
                self.ledger.close();
                self.is_open = false;
                self.relay.wait_for_connected("a", false);
            }
            Fault::DestinationBack if !self.is_open => {
                self.ledger.reopen();
                self.is_open = true;
            }
            Fault::DestinationSlow => self.ledger.set_pace(Some(500_000)),
            Fault::DestinationFast => self.ledger.set_pace(None),
            Fault::RelayKilled => self.kill(|_| {}),
            Fault::SegmentDamaged => self.kill(|day| day.damage(chance)),
            Fault::RelayStopped => {
                self.relay.process.signal(Signal::TERM);
                assert_eq!(self.relay.process.wait(DEADLINE).code(), Some(0));
                self.relay
                    .process
                    .wait_for_stderr(DEADLINE, 0, &["lines_lost=0"]);
                self.restart();
            }
            Fault::Reconfigured => {
                let text = resources(&self.ledger, RESEND_MEBIBYTES + chance.below(8));
                self.directory.write("resources.yaml", &text);
            }
            Fault::DestinationKilled | Fault::DestinationBack => {}
        }
    }

    // What was read within the sync interval may be lost.
    fn kill(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let killed = Instant::now();
        self.relay.process.kill();
        let is_old = |(at, _): &&(Instant, u64)| killed - *at > SYNC_INTERVAL;
        let kept = self.read.iter().rfind(is_old);
        let kept = kept.map_or(self.first, |(_, end)| *end);
        self.may_miss.extend(kept..self.next);
        meanwhile(self);
        self.restart();
    }

    // A byte in the middle of a segment: what it takes is counted by the relay that finds it.
    fn damage(&mut self, mut chance: Chance) {
        let spools = self.state.file("spools");
        let segments = fs::read_dir(spools).into_iter().flatten().flatten();
        let files = segments.filter_map(|spool| fs::read_dir(spool.path()).ok());
        let files = files.flatten().flatten().map(|entry| entry.path());
        let large = files.filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 4096));
        let mut large: Vec<_> = large.collect();
        large.sort();
        if large.is_empty() {
            return;
        }
        let path = &large[chance.below(large.len() as u64) as usize];
        let mut bytes = fs::read(path).expect("a segment can be read");
        let at = 600 + chance.below(bytes.len() as u64 - 600) as usize;
        bytes[at] ^= 0x55;
        // At most what a segment has can go.
        self.damaged += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        fs::write(path, bytes).expect("a segment can be written");
    }

    // What a relay handed over is the destination's business, and the next relay knows nothing of it: if the destination were
    // killed before it has read that, it would be gone. That is not promised, so it is read first.
    fn restart(&mut self) {
        self.ledger.set_pace(None);
        self.ledger.wait_until_left();
        self.relay = RelayProcess::run_with_state(&self.directory, self.state.path());
        self.first = self.next;
        self.read.clear();
    }

    fn end(mut self) -> (u64, u64) {
        self.ledger.set_pace(None);
        if !self.is_open {
            self.ledger.reopen();
        }
        eventually(LONG, "nothing to wait any more", || {
            let accounts = self.relay.accounts();
            accounts.balance()?;
            let a = accounts.destination("a");
            match a.queued + a.spooled == 0 {
                true => Ok(()),
                false => Err(format!("{a:?}")),
            }
        });
        self.relay.process.signal(Signal::TERM);
        assert_eq!(self.relay.process.wait(DEADLINE).code(), Some(0));
        self.ledger.wait_until_left();
        let missing = self.ledger.missing(self.next);
        let lost: Vec<u64> = missing
            .iter()
            .copied()
            .filter(|number| !self.may_miss.contains(number))
            .collect();
        assert!(
            lost.len() as u64 <= self.damaged,
            "{} lines are lost that may not be, the first {:?}",
            lost.len(),
            lost.first()
        );
        (self.next, missing.len() as u64)
    }
}
