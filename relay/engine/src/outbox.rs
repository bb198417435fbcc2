//! What the lines of one block come to, per lane: bytes ready for the wire.

use crate::lane::LaneIndex;

/// Lines for each lane, as one run of bytes each. The caller keeps it over blocks, so that its memory is reused.
#[derive(Debug, Default)]
pub struct Outbox {
    boxes: Vec<LaneBox>,
    // Those that hold something; most blocks touch few of them.
    filled: Vec<LaneIndex>,
}

#[derive(Debug, Default)]
struct LaneBox {
    bytes: Vec<u8>,
    lines: u64,
}

impl Outbox {
    /// Gives each lane's lines to `take`, as whole lines with their newlines and how many they are, and empties the
    /// outbox. `take` may keep the buffer by swapping another one in.
    pub fn drain(&mut self, mut take: impl FnMut(LaneIndex, &mut Vec<u8>, u64)) {
        for lane in self.filled.drain(..) {
            let filled = &mut self.boxes[lane.get()];
            take(lane, &mut filled.bytes, std::mem::take(&mut filled.lines));
            filled.bytes.clear();
        }
    }

    /// Appends `lines` whole lines for each of `lanes`.
    pub(crate) fn append(&mut self, lanes: &[LaneIndex], bytes: &[u8], lines: u64) {
        for lane in lanes {
            let index = lane.get();
            if index >= self.boxes.len() {
                self.boxes.resize_with(index + 1, LaneBox::default);
            }
            let filled = &mut self.boxes[index];
            if filled.lines == 0 {
                self.filled.push(*lane);
            }
            filled.lines += lines;
            filled.bytes.extend_from_slice(bytes);
        }
    }
}
