//! Whatever somebody calls a pickle: no panic, and each of its points is one line of three fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_wire::Points;
use relay_wire::pickle::Decoder;

#[path = "lines.rs"]
mod lines;

fuzz_target!(|frame: &[u8]| {
    let mut points = Points::default();
    if Decoder::default().decode(frame, &mut points).is_ok() {
        lines::check(frame, &points);
    }
});
