//! Whatever somebody calls a payload: no panic, and each of its points is one line of three fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_wire::{Points, protobuf};

#[path = "lines.rs"]
mod lines;

fuzz_target!(|frame: &[u8]| {
    let mut points = Points::default();
    if protobuf::decode(frame, &mut points).is_ok() {
        lines::check(frame, &points);
    }
});
