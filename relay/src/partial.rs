//! The beginnings of lines that are not yet whole: one for each connection, and a bound for all of them together.

use std::cell::Cell;

/// What every connection may keep without asking, in bytes: more than nearly any line is long.
const FREE_BYTES: usize = 4096;

/// What the connections of one data thread may keep beyond what is free, in bytes.
#[derive(Debug)]
pub(crate) struct PartialRoom(Cell<usize>);

impl PartialRoom {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Cell::new(bytes))
    }
}

/// The beginning of a line.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    bytes: Vec<u8>,
    // Of the room.
    taken: usize,
    room: &'a PartialRoom,
}

/// There is no room for a beginning; nothing of it is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl<'a> Partial<'a> {
    pub(crate) fn new(room: &'a PartialRoom) -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            room,
        }
    }

    /// What is kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Keeps `bytes` in place of what was kept.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.bytes.clear();
        let wanted = bytes.len().saturating_sub(FREE_BYTES);
        let room = self.room.0.get() + self.taken;
        let Some(left) = room.checked_sub(wanted) else {
            self.clear();
            return Err(NoRoom);
        };
        self.room.0.set(left);
        self.taken = wanted;
        if wanted == 0 {
            self.bytes.shrink_to(FREE_BYTES);
        }
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Keeps nothing.
    pub(crate) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.room.0.set(self.room.0.get() + self.taken);
        self.taken = 0;
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_beginnings_share_the_room_and_short_ones_are_free() {
        let room = PartialRoom::new(10_000);
        let (long, short) = ([1; FREE_BYTES + 6_000], [2; FREE_BYTES]);
        let [mut a, mut b, mut c] = [0; 3].map(|_| Partial::new(&room));
        assert_eq!(a.keep(&long), Ok(()));
        assert_eq!(b.keep(&long), Err(NoRoom));
        assert!(b.bytes().is_empty());
        assert_eq!(c.keep(&short), Ok(()));
        // it grows, and then its line is whole
        assert_eq!(a.keep(&[1; FREE_BYTES + 10_000]), Ok(()));
        assert_eq!(a.keep(&[1; FREE_BYTES + 10_001]), Err(NoRoom));
        assert_eq!(b.keep(&long), Ok(()));
        assert_eq!(b.keep(&short), Ok(()));
        assert_eq!(b.bytes(), short);
        drop((a, b, c));
        assert_eq!(room.0.get(), 10_000);
    }
}
