//! What the lines of one block come to, per destination: bytes ready for the wire.

/// The place of a destination in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationIndex(pub(crate) u32);

impl DestinationIndex {
    /// The place in [`crate::Table::destinations`].
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// Lines for each destination, as one run of bytes each. The caller keeps it over blocks, so that its memory is reused.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: Vec<Lane>,
    // The lanes that hold something; most blocks touch few of them.
    filled: Vec<DestinationIndex>,
}

#[derive(Debug, Default)]
struct Lane {
    bytes: Vec<u8>,
    lines: u64,
}

impl Outbox {
    /// Gives each destination's lines to `take`, as whole lines with their newlines and how many they are, and empties the
    /// outbox. `take` may keep the buffer by swapping another one in.
    pub fn drain(&mut self, mut take: impl FnMut(DestinationIndex, &mut Vec<u8>, u64)) {
        for destination in self.filled.drain(..) {
            let lane = &mut self.lanes[destination.get()];
            take(
                destination,
                &mut lane.bytes,
                std::mem::take(&mut lane.lines),
            );
            lane.bytes.clear();
        }
    }

    /// Appends `lines` whole lines for each of `destinations`.
    pub(crate) fn append(&mut self, destinations: &[DestinationIndex], bytes: &[u8], lines: u64) {
        for destination in destinations {
            let index = destination.get();
            if index >= self.lanes.len() {
                self.lanes.resize_with(index + 1, Lane::default);
            }
            let lane = &mut self.lanes[index];
            if lane.lines == 0 {
                self.filled.push(*destination);
            }
            lane.lines += lines;
            lane.bytes.extend_from_slice(bytes);
        }
    }
}
