//! Whatever an operator sends: no panic, and a table that loads takes lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_engine::{Engine, Moment, Outbox, Table, UnixSeconds};
use relay_proto::{Message as _, Snapshot};

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    if let Ok(table) = Table::load(&snapshot) {
        let block = b"servers.web1.cpu 1 1700000000\na;b=c 2 N\n";
        let tally = Engine::new(0).process(&table, block, 64, Moment { now: UnixSeconds(1), stamp: 0, is_live: &|_| true }, &mut Outbox::default());
        assert_eq!(tally.received, 2);
    }
});
