//! Payloads with one metric for each point.

use super::write;
use crate::frame;
use crate::line::Line;

/// Appends a frame with the first points of `lines` to `out`: as many as fit in one. Returns how many bytes of `lines` are in
/// it. Lines are such as the engine forwards; there is at least one.
pub fn encode(lines: &[u8], out: &mut Vec<u8>) -> usize {
    frame::write(lines, out, &[], metric, &[])
}

fn metric(line: Line<'_>, out: &mut Vec<u8>) {
    let point = write::varint_len(line.timestamp.into()) + write::DOUBLE_LEN;
    let metric = write::bytes_len(line.name.len()) + write::bytes_len(point);
    write::begin(1, metric, out);
    write::bytes(1, line.name, out);
    write::begin(2, point, out);
    write::varint(1, line.timestamp.into(), out);
    write::double(2, line.value.as_f64(), out);
}
