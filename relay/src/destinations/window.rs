//! What a connection took last, kept for when it breaks.
//!
//! TCP does not say what the peer has read. When a connection breaks, what the peer's kernel had not acknowledged is lost for
//! certain, and what it had may be: a killed peer has not read it all. So the last bytes are kept and sent again. Points that
//! come twice do no harm.

use std::collections::VecDeque;

use super::queue::Chunk;

/// What is kept beyond what must be, in bytes, so that the kernel is not asked for every write.
const SLACK_BYTES: usize = 1 << 20;

/// The chunks that were handed over last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    chunks: VecDeque<Chunk>,
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
        if self.bytes_max.is_some() {
            self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.bytes.len());
            self.chunks.extend(chunk);
        }
    }

    /// Lets go of what need not be kept. `unacknowledged` says how many bytes are under way.
    pub(crate) fn trim(&mut self, unacknowledged: impl FnOnce() -> usize) {
        let bytes_max = self.bytes_max.unwrap_or_default();
        if self.bytes > bytes_max + SLACK_BYTES {
            self.trim_to(bytes_max + unacknowledged());
        }
    }

    /// Everything that is to be sent again, as copies that are not from any spool.
    pub(crate) fn take(&mut self, unacknowledged: usize) -> VecDeque<Chunk> {
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
        self.bytes = 0;
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
        window.set_bytes_max(Some(25));
        for (byte, unacknowledged, expected) in [
            (10, 0, &[3, 4, 5][..]),
            (10, 10, &[2, 3, 4, 5]),
            (0, 0, &[3, 4, 5]),
        ] {
            for number in 1..=5 {
                window.extend(Some(chunk(number, 10)));
            }
            assert_eq!(kept(&mut window, unacknowledged), expected, "{byte}");
            assert!(kept(&mut window, 0).is_empty());
        }
    }

    #[test]
    fn it_does_not_grow_and_may_be_nothing() {
        let mut window = Window::default();
        window.extend(Some(chunk(1, 10)));
        assert!(kept(&mut window, 100).is_empty());
        window.set_bytes_max(Some(0));
        for _ in 0..100 {
            window.extend(Some(chunk(1, 64 << 10)));
            window.trim(|| 100);
            assert!(window.bytes <= SLACK_BYTES + (64 << 10));
        }
        window.clear();
        assert!(kept(&mut window, 100).is_empty());
    }
}
