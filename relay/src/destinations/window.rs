//! What a connection took last, kept for when it breaks.
//!
//! TCP does not say what the peer has read. When a connection breaks, what the peer's kernel had not acknowledged is lost for
//! certain, and what it had may be: a killed peer has not read it all. So the last bytes are kept and sent again. Points that
//! come twice do no harm.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::queue::Chunk;

/// What is kept beyond what must be, in bytes, so that the kernel is not asked for every write: as much again, within these.
const SLACK_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 20;

/// Chunks smaller than this, in bytes, are copied together: one that was taken with little in it holds far more memory.
const SMALL_BYTES: usize = 32 << 10;

/// The chunks that were handed over last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    chunks: VecDeque<Chunk>,
    // After these, small chunks together.
    tail: Vec<u8>,
    tail_lines: u64,
    // Of all.
    bytes: usize,
    // What is kept beside what is not acknowledged; `None`: nothing at all.
    bytes_max: Option<usize>,
}

impl Window {
    /// Says how much is kept beside what is not acknowledged, in bytes; `None`: nothing at all.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: Option<usize>) {
        self.bytes_max = bytes_max;
    }

    /// Adds what was handed over.
    pub(crate) fn extend(&mut self, chunk: Option<Chunk>) {
        let Some(chunk) = chunk.filter(|_| self.bytes_max.is_some()) else {
            return;
        };
        self.bytes += chunk.bytes.len();
        if chunk.bytes.len() < SMALL_BYTES {
            self.tail.extend_from_slice(&chunk.bytes);
            self.tail_lines += chunk.lines;
            if self.tail.len() >= SMALL_BYTES {
                self.end_tail();
            }
        } else {
            self.end_tail();
            self.chunks.push_back(chunk);
        }
    }

    /// Lets go of what need not be kept. `unacknowledged` says how many bytes are under way.
    pub(crate) fn trim(&mut self, unacknowledged: impl FnOnce() -> usize) {
        let bytes_max = self.bytes_max.unwrap_or_default();
        let slack = bytes_max.clamp(*SLACK_BYTES.start(), *SLACK_BYTES.end());
        if self.bytes > bytes_max + slack {
            self.trim_to(bytes_max + unacknowledged());
        }
    }

    /// Everything that is to be sent again, as copies that are not from any spool.
    pub(crate) fn take(&mut self, unacknowledged: usize) -> VecDeque<Chunk> {
        self.end_tail();
        self.trim_to(self.bytes_max.unwrap_or_default() + unacknowledged);
        self.bytes = 0;
        let mut chunks = std::mem::take(&mut self.chunks);
        for chunk in &mut chunks {
            chunk.spooled = None;
        }
        chunks
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.tail.clear();
        self.tail_lines = 0;
        self.bytes = 0;
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk {
                bytes: std::mem::take(&mut self.tail).into(),
                lines: std::mem::take(&mut self.tail_lines),
                spooled: None,
            });
        }
    }

    // Lets go of the oldest chunks as long as `bytes` are left.
    fn trim_to(&mut self, bytes: usize) {
        while let Some(oldest) = self.chunks.front()
            && self.bytes - oldest.bytes.len() >= bytes
        {
            self.bytes -= oldest.bytes.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(byte: u8, bytes: usize) -> Chunk {
        Chunk {
            bytes: vec![byte; bytes].into(),
            lines: 1,
            spooled: None,
        }
    }

    fn kept(window: &mut Window, unacknowledged: usize) -> Vec<u8> {
        let chunks = window.take(unacknowledged);
        chunks.iter().map(|chunk| chunk.bytes[0]).collect()
    }

    #[test]
    fn the_last_bytes_and_those_under_way_are_kept() {
        let mut window = Window::default();
        window.set_bytes_max(Some(100_000));
        for (unacknowledged, expected) in [
            (0, &[3, 4, 5][..]),
            (40_000, &[2, 3, 4, 5]),
            (0, &[3, 4, 5]),
        ] {
            for number in 1..=5 {
                window.extend(Some(chunk(number, 40_000)));
            }
            assert_eq!(kept(&mut window, unacknowledged), expected);
            assert!(kept(&mut window, 0).is_empty());
        }
    }

    #[test]
    fn small_chunks_are_copied_together_in_their_order() {
        let mut window = Window::default();
        window.set_bytes_max(Some(1 << 20));
        window.extend(Some(chunk(1, 40_000)));
        for number in 2..=4 {
            window.extend(Some(chunk(number, 20_000)));
        }
        window.extend(Some(chunk(5, 40_000)));
        window.extend(Some(chunk(6, 10)));
        let chunks = window.take(0);
        let shape: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.bytes[0], chunk.bytes.len(), chunk.lines))
            .collect();
        assert_eq!(
            shape,
            [
                (1, 40_000, 1),
                (2, 40_000, 2),
                (4, 20_000, 1),
                (5, 40_000, 1),
                (6, 10, 1)
            ]
        );
    }

    #[test]
    fn it_does_not_grow_and_may_be_nothing() {
        let mut window = Window::default();
        window.extend(Some(chunk(1, 10)));
        assert!(kept(&mut window, 100).is_empty());
        window.set_bytes_max(Some(0));
        for _ in 0..100 {
            window.extend(Some(chunk(1, 64 << 10)));
            window.extend(Some(chunk(1, 100)));
            window.trim(|| 100);
            assert!(window.bytes <= SLACK_BYTES.start() + (65 << 10));
        }
        window.clear();
        assert!(kept(&mut window, 100).is_empty());
    }
}
