//! Frames on their way out.

use crate::FRAME_HEADER_BYTES;
use crate::line::Line;

/// Points in one frame, at most: what carbon's relays put into one.
const POINTS_MAX: usize = 500;
/// A frame takes no more points when it has this many bytes. carbon takes frames of up to 1 MiB, and a point takes less than
/// 70 KiB.
const BYTES_MAX: usize = 512 << 10;

/// Appends a frame to `out` with the first of `lines`. `point` appends each; `end` what follows the last. Returns how many
/// bytes of `lines` are in it.
pub(crate) fn write(
    lines: &[u8],
    out: &mut Vec<u8>,
    begin: &[u8],
    mut point: impl FnMut(Line<'_>, &mut Vec<u8>),
    end: &[u8],
) -> usize {
    let header = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    out.extend_from_slice(begin);
    let mut rest = lines;
    let mut points = 0;
    while points < POINTS_MAX
        && out.len() - header < BYTES_MAX
        && let Some(line) = Line::take(&mut rest)
    {
        point(line, out);
        points += 1;
    }
    out.extend_from_slice(end);
    let length = out.len() - header - FRAME_HEADER_BYTES;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[header..header + FRAME_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    lines.len() - rest.len()
}
