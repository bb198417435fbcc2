//! Payloads with one metric for each point.

use crate::frame;
use crate::line::Line;

// A point without its varint: the key of the timestamp, and the key and the bits of the value.
const POINT_FIXED_BYTES: usize = 1 + 1 + 8;

/// Appends a frame with the first points of `lines` to `out`: as many as fit in one. Returns how many bytes of `lines` are in
/// it. Lines are such as the engine forwards; there is at least one.
pub fn encode(lines: &[u8], out: &mut Vec<u8>) -> usize {
    frame::write(lines, out, &[], metric, &[])
}

fn metric(line: Line<'_>, out: &mut Vec<u8>) {
    let point = POINT_FIXED_BYTES + varint_bytes(line.timestamp.into());
    let name = line.name.len();
    let metric = 1 + varint_bytes(name as u64) + name + 1 + varint_bytes(point as u64) + point;
    let bytes = |number: u8| number << 3 | 2;
    out.push(bytes(1));
    varint(metric as u64, out);
    out.push(bytes(1));
    varint(name as u64, out);
    out.extend_from_slice(line.name);
    out.push(bytes(2));
    varint(point as u64, out);
    out.push(1 << 3);
    varint(line.timestamp.into(), out);
    out.push(2 << 3 | 1);
    out.extend_from_slice(&line.value.as_f64().to_le_bytes());
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}
