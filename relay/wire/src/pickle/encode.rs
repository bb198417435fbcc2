//! Pickles of protocol 2, which Python 2 and 3 and carbon-relay-ng read.

use crate::frame;
use crate::line::{Line, Value};

// PROTO 2, EMPTY_LIST, MARK
const BEGIN: [u8; 4] = [0x80, 2, b']', b'('];
// APPENDS, STOP
const END: [u8; 2] = *b"e.";
const TUPLE2: u8 = 0x86;

/// Appends a frame with the first points of `lines` to `out`: as many as fit in one. Returns how many bytes of `lines` are in
/// it. Lines are such as the engine forwards; there is at least one.
pub fn encode(lines: &[u8], out: &mut Vec<u8>) -> usize {
    frame::write(lines, out, &BEGIN, point, &END)
}

fn point(line: Line<'_>, out: &mut Vec<u8>) {
    // BINUNICODE
    out.push(b'X');
    let length = u32::try_from(line.name.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(line.name);
    int(line.timestamp.into(), out);
    match line.value {
        Value::Int(value) => int(value, out),
        Value::Float(value) => {
            out.push(b'G');
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    out.extend_from_slice(&[TUPLE2, TUPLE2]);
}

fn int(int: i64, out: &mut Vec<u8>) {
    match i32::try_from(int) {
        Ok(small) => {
            out.push(b'J');
            out.extend_from_slice(&small.to_le_bytes());
        }
        // LONG1
        Err(_) => {
            out.extend_from_slice(&[0x8a, 8]);
            out.extend_from_slice(&int.to_le_bytes());
        }
    }
}
