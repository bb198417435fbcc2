//! What waits in memory for one destination: whole lines in chunks, bounded in bytes.
//!
//! Workers push runs of lines, the destination's one sender takes chunks out and says when their bytes were handed over;
//! until then they count as queued. Where there is a spool, its spooler takes out what waits for too long. All figures change
//! under one lock, so at any moment
//! `offered + recovered + resent = sent + dropped + queued lines + spooled lines`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use relay_engine::WhenFull;
use relay_spool::Position;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::Link;

/// What a new chunk has room for, in bytes. Small pushes fill the last chunk up, so that memory follows the bytes queued;
/// a write of one chunk is large enough that the system call no longer counts.
const CHUNK_BYTES: usize = 64 << 10;

/// A destination is slow for this long after something came that had no room with it.
const SLOW_AFTER_OVERFLOW: Duration = Duration::from_secs(3);

/// One destination's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    // More waits than should in memory, and there is a spool.
    crowded: Notify,
    // Takes lines, as far as failover is concerned.
    live: AtomicBool,
    link: Link,
    // The destination is no longer in the plan.
    removed: CancellationToken,
    // No producer is left: what is in here is all that will come.
    closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    limits: relay_engine::Queue,
    chunks: VecDeque<Filling>,
    // What has no room waits on disk.
    spools: bool,
    // When something last had no room in here while there was a connection.
    overflowed_at: Option<Instant>,
    figures: Figures,
}

// Whole lines, each with its newline, and room for more.
#[derive(Debug)]
struct Filling {
    bytes: Vec<u8>,
    lines: u64,
    // Of the first line.
    since: Instant,
}

/// Whole lines, each with its newline, on their way out.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) lines: u64,
    /// Where it ends in the spool, if it is from there.
    pub(crate) spooled: Option<Position>,
}

/// A queue's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Lines that workers brought.
    pub(crate) offered: u64,
    /// Lines that were given to the destination once more, because their connection broke.
    pub(crate) resent: u64,
    /// Lines whose bytes were handed over, but for those from the spool.
    pub(crate) sent_from_memory: u64,
    /// Bytes that were handed over, those from the spool included.
    pub(crate) bytes_sent: u64,
    /// Those from the spool; what is sent again from there counts again.
    pub(crate) bytes_replayed: u64,
    /// Lines dropped, by [`Loss`].
    pub(crate) dropped: [u64; Loss::ALL.len()],
    /// Lines that wait, those with the sender included.
    pub(crate) queue_lines: u64,
    /// Their bytes.
    pub(crate) queue_bytes: u64,
    /// The spool's.
    pub(crate) spool: relay_spool::Figures,
    /// Whether the sender has a connection.
    pub(crate) connected: bool,
    /// Whether failover gives it lines.
    pub(crate) live: bool,
}

impl Figures {
    /// Lines whose bytes were handed over.
    pub(crate) fn sent(&self) -> u64 {
        self.sent_from_memory + self.spool.acknowledged
    }

    /// Lines that were lost because the relay stopped.
    pub(crate) fn lost_at_shutdown(&self) -> u64 {
        self.dropped[Loss::Shutdown as usize]
    }
}

/// Why a destination did not get a line that was forwarded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The queue was full.
    QueueFull,
    /// The destination was removed, and what waited for it could not be handed over in time.
    Removed,
    /// The relay stopped, and what waited could not be handed over in time.
    Shutdown,
}

impl Loss {
    pub(crate) const ALL: [Self; 3] = [Self::QueueFull, Self::Removed, Self::Shutdown];

    /// The loss as a metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Removed => "removed",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Queue {
    pub(crate) fn new(limits: relay_engine::Queue) -> Self {
        let state = State {
            limits,
            chunks: VecDeque::new(),
            spools: false,
            overflowed_at: None,
            figures: Figures::default(),
        };
        Self {
            state: Mutex::new(state),
            filled: Notify::new(),
            emptied: Notify::new(),
            crowded: Notify::new(),
            live: AtomicBool::new(true),
            link: Link::default(),
            removed: CancellationToken::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Takes `lines` lines in. Returns how many bytes of them had no room and must wait (`WhenFull::Block` only): the last
    /// ones, from a line's start on. They are not counted yet.
    #[must_use = "what had no room must be pushed again"]
    pub(crate) fn push(&self, bytes: &[u8], lines: u64) -> usize {
        let mut state = self.lock();
        if state.limits.when_full == WhenFull::DropOldest {
            state.make_room(bytes.len());
        }
        let room = state
            .limits
            .bytes_max
            .saturating_sub(state.figures.queue_bytes as usize);
        let (fitting, fitting_lines) = match bytes.len() <= room {
            true => (bytes, lines),
            false => whole_lines(bytes, room, state.figures.queue_bytes == 0),
        };
        if !fitting.is_empty() {
            state.append(fitting, fitting_lines);
            self.filled.notify_one();
        }
        if state.spools && state.is_crowded() {
            self.crowded.notify_one();
        }
        let waiting = bytes.len() - fitting.len();
        if waiting > 0 {
            state.overflowed();
        }
        match state.limits.when_full {
            WhenFull::Block => waiting,
            // The spool is about to make room: whatever the disk does, it takes lines or drops them.
            WhenFull::Spool if state.spools => waiting,
            WhenFull::Spool | WhenFull::DropNewest | WhenFull::DropOldest => {
                state.drop_offered(lines - fitting_lines, Loss::QueueFull);
                0
            }
        }
    }

    /// Takes lines in, waiting for room as often as it needs to. `bytes` becomes what has had no room yet.
    pub(crate) async fn push_all(&self, bytes: &mut &[u8]) {
        loop {
            let room = self.emptied.notified();
            let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
            let waiting = self.push(bytes, lines);
            *bytes = &bytes[bytes.len() - waiting..];
            if waiting == 0 {
                return;
            }
            room.await;
        }
    }

    /// Counts lines that were to be pushed and never will be.
    pub(crate) fn give_up_offered(&self, bytes: &[u8], loss: Loss) {
        self.lock()
            .drop_offered(memchr::memchr_iter(b'\n', bytes).count() as u64, loss);
    }

    /// Moves waiting chunks to `taken`, up to about `bytes_max` bytes. Waits for the first. Returns `false` once the queue is
    /// closed and empty.
    pub(crate) async fn take(&self, taken: &mut VecDeque<Chunk>, bytes_max: usize) -> bool {
        loop {
            {
                let mut state = self.lock();
                let mut bytes = 0;
                while let Some(chunk) = state.chunks.pop_front() {
                    bytes += chunk.bytes.len();
                    taken.push_back(chunk.into());
                    if bytes >= bytes_max {
                        break;
                    }
                }
                if bytes > 0 {
                    return true;
                }
                if self.closed.is_cancelled() {
                    return false;
                }
            }
            tokio::select! {
                () = self.filled.notified() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Counts lines that were taken as handed over.
    pub(crate) fn sent(&self, bytes: usize, lines: u64) {
        let mut state = self.lock();
        state.figures.sent_from_memory += lines;
        state.figures.bytes_sent += bytes as u64;
        state.release(bytes, lines);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Counts bytes from the spool as handed over; the spool counts their lines.
    pub(crate) fn replayed(&self, bytes: usize) {
        let mut state = self.lock();
        state.figures.bytes_sent += bytes as u64;
        state.figures.bytes_replayed += bytes as u64;
    }

    /// Resolves when more waits than should in memory, where there is a spool.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Moves chunks to `taken` that wait for `age` or longer, and more of the oldest if there is too much in memory. They still
    /// count as queued.
    pub(crate) fn take_overdue(&self, age: Duration, taken: &mut VecDeque<Chunk>) {
        let mut state = self.lock();
        let mut bytes: usize = state.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut bytes_kept = usize::MAX;
        if bytes > state.limits.bytes_max / 2 {
            bytes_kept = state.limits.bytes_max / 4;
        }
        while let Some(first) = state.chunks.front() {
            if first.since.elapsed() < age && bytes <= bytes_kept {
                return;
            }
            bytes -= first.bytes.len();
            taken.extend(state.chunks.pop_front().map(Chunk::from));
        }
    }

    /// Counts lines that were taken as moved to the spool, whose figures are `spool` now.
    pub(crate) fn moved_to_spool(&self, bytes: usize, lines: u64, spool: relay_spool::Figures) {
        let mut state = self.lock();
        state.overflowed();
        state.release(bytes, lines);
        state.figures.spool = spool;
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Counts lines that the spool was given because their connection broke.
    pub(crate) fn resent_to_spool(&self, lines: u64, spool: relay_spool::Figures) {
        let mut state = self.lock();
        state.figures.resent += lines;
        state.figures.spool = spool;
    }

    pub(crate) fn set_spooled(&self, spool: relay_spool::Figures) {
        self.lock().figures.spool = spool;
    }

    /// Says whether there is a spool for what has no room.
    pub(crate) fn set_spools(&self, spools: bool) {
        self.lock().spools = spools;
        self.emptied.notify_waiters();
    }

    /// Whether there is a spool, and the destination wants one.
    pub(crate) fn spools(&self) -> bool {
        let state = self.lock();
        state.spools && state.limits.when_full == WhenFull::Spool
    }

    /// Takes back chunks that were not handed over, to be the first again.
    pub(crate) fn put_back(&self, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        let mut state = self.lock();
        for chunk in chunks.rev() {
            state.chunks.push_front(Filling::from(chunk));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes chunks that were handed over, and may not have arrived, in once more: they are the first.
    pub(crate) fn resend(&self, chunks: VecDeque<Chunk>) {
        let mut state = self.lock();
        for chunk in chunks.into_iter().rev() {
            state.figures.resent += chunk.lines;
            state.figures.queue_lines += chunk.lines;
            state.figures.queue_bytes += chunk.bytes.len() as u64;
            state.chunks.push_front(Filling::from(chunk));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Drops everything that waits and `taken`, which the sender holds.
    pub(crate) fn give_up(&self, taken: &mut VecDeque<Chunk>, loss: Loss) -> u64 {
        let mut state = self.lock();
        let mut lost = Vec::new();
        lost.extend(
            taken
                .drain(..)
                .map(|chunk| (chunk.bytes.len(), chunk.lines)),
        );
        lost.extend(
            state
                .chunks
                .drain(..)
                .map(|chunk| (chunk.bytes.len(), chunk.lines)),
        );
        let mut lines = 0;
        for (bytes, chunk_lines) in lost {
            lines += chunk_lines;
            state.release(bytes, chunk_lines);
        }
        state.figures.dropped[loss as usize] += lines;
        drop(state);
        self.emptied.notify_waiters();
        lines
    }

    pub(crate) fn set_limits(&self, limits: relay_engine::Queue) {
        self.lock().limits = limits;
        // Those who wait may have room, or may no longer have to wait.
        self.emptied.notify_waiters();
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.lock().figures.connected = connected;
    }

    /// The connections of its sender.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Whether the destination takes less than comes, or did a moment ago, although it is connected.
    pub(crate) fn is_slow(&self) -> bool {
        let state = self.lock();
        let overflowed = state.overflowed_at;
        state.is_crowded() || overflowed.is_some_and(|at| at.elapsed() < SLOW_AFTER_OVERFLOW)
    }

    /// Whether the destination takes lines, as far as failover is concerned. Until it has failed once it does.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// Says that the destination is no longer in the plan, so that nobody waits for room.
    pub(crate) fn remove(&self) {
        self.removed.cancel();
    }

    /// Resolves when the destination is no longer in the plan.
    pub(crate) async fn removed(&self) {
        self.removed.cancelled().await;
    }

    /// Says that no line will come any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Resolves when no line will come any more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Resolves when no line will come any more and none waits. Only for when nothing is being sent.
    pub(crate) async fn finished(&self) {
        self.closed().await;
        if self.figures().queue_lines > 0 {
            std::future::pending().await
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            live: self.is_live(),
            ..self.lock().figures
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the figures are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, bytes: &[u8], lines: u64) {
        let has_room = |chunk: &Filling| chunk.bytes.capacity() - chunk.bytes.len() >= bytes.len();
        if !self.chunks.back().is_some_and(has_room) {
            let bytes = Vec::with_capacity(bytes.len().max(CHUNK_BYTES));
            self.chunks.push_back(Filling {
                bytes,
                lines: 0,
                since: Instant::now(),
            });
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.bytes.extend_from_slice(bytes);
            chunk.lines += lines;
        }
        self.figures.offered += lines;
        self.figures.queue_lines += lines;
        self.figures.queue_bytes += bytes.len() as u64;
    }

    // Drops the oldest chunks that wait, until there is room for `bytes`.
    fn make_room(&mut self, bytes: usize) {
        while self.figures.queue_bytes as usize + bytes > self.limits.bytes_max
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.overflowed();
            self.release(oldest.bytes.len(), oldest.lines);
            self.figures.dropped[Loss::QueueFull as usize] += oldest.lines;
        }
    }

    // What piles up while there is no connection says nothing of how fast the destination is.
    fn overflowed(&mut self) {
        if self.figures.connected {
            self.overflowed_at = Some(Instant::now());
        }
    }

    fn is_crowded(&self) -> bool {
        self.figures.queue_bytes as usize > self.limits.bytes_max / 2
    }

    fn drop_offered(&mut self, lines: u64, loss: Loss) {
        self.figures.offered += lines;
        self.figures.dropped[loss as usize] += lines;
    }

    fn release(&mut self, bytes: usize, lines: u64) {
        self.figures.queue_lines -= lines;
        self.figures.queue_bytes -= bytes as u64;
    }
}

impl From<Filling> for Chunk {
    fn from(filling: Filling) -> Self {
        Self {
            bytes: filling.bytes.into(),
            lines: filling.lines,
            spooled: None,
        }
    }
}

impl From<Chunk> for Filling {
    fn from(chunk: Chunk) -> Self {
        Self {
            bytes: chunk.bytes.into(),
            lines: chunk.lines,
            since: Instant::now(),
        }
    }
}

// The whole lines at the front that fit in `room` bytes, and how many they are. One line fits in any case if the queue is
// empty, or it would wait for ever.
fn whole_lines(bytes: &[u8], room: usize, is_empty: bool) -> (&[u8], u64) {
    let mut end = memchr::memrchr(b'\n', &bytes[..room]).map_or(0, |newline| newline + 1);
    if end == 0 && is_empty {
        end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1);
    }
    let fitting = &bytes[..end];
    (fitting, memchr::memchr_iter(b'\n', fitting).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(bytes_max: usize, when_full: WhenFull) -> Queue {
        Queue::new(relay_engine::Queue {
            bytes_max,
            when_full,
        })
    }

    fn figures(offered: u64, sent: u64, full: u64, lines: u64, bytes: u64) -> Figures {
        let dropped = [full, 0, 0];
        Figures {
            offered,
            sent_from_memory: sent,
            // Lines of the tests have six bytes.
            bytes_sent: sent * 6,
            dropped,
            queue_lines: lines,
            queue_bytes: bytes,
            live: true,
            ..Figures::default()
        }
    }

    async fn take_all(queue: &Queue) -> String {
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, usize::MAX).await);
        let mut text = Vec::new();
        for chunk in taken {
            queue.sent(chunk.bytes.len(), chunk.lines);
            text.extend_from_slice(&chunk.bytes);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn lines_come_out_as_they_went_in() {
        let queue = queue(100, WhenFull::DropNewest);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\n", 2), 0);
        assert_eq!(queue.push(b"c 1 1\n", 1), 0);
        assert_eq!(queue.figures(), figures(3, 0, 0, 3, 18));
        assert_eq!(take_all(&queue).await, "a 1 1\nb 1 1\nc 1 1\n");
        assert_eq!(queue.figures(), figures(3, 3, 0, 0, 0));
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_lines_and_counts_them() {
        let queue = queue(15, WhenFull::DropNewest);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\nc 1 1\nd 1 1\n", 4), 0);
        assert_eq!(queue.figures(), figures(4, 0, 2, 2, 12));
        assert_eq!(take_all(&queue).await, "a 1 1\nb 1 1\n");
    }

    #[tokio::test]
    async fn lines_with_the_sender_still_count_as_queued() {
        let queue = queue(12, WhenFull::DropNewest);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\n", 2), 0);
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, 1).await);
        assert_eq!(queue.push(b"c 1 1\n", 1), 0);
        assert_eq!(queue.figures(), figures(3, 0, 1, 2, 12));
        assert_eq!(queue.give_up(&mut taken, Loss::Shutdown), 2);
        assert_eq!(
            queue.figures(),
            Figures {
                dropped: [1, 0, 2],
                ..figures(3, 0, 1, 0, 0)
            }
        );
    }

    #[tokio::test]
    async fn a_full_queue_that_blocks_lets_lines_wait_and_loses_none() {
        let queue = queue(12, WhenFull::Block);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\nc 1 1\n", 3), 6);
        let everything = async { queue.push_all(&mut &b"c 1 1\nd 1 1\ne 1 1\n"[..]).await };
        let taken = async {
            let mut text = take_all(&queue).await;
            text += &take_all(&queue).await;
            text += &take_all(&queue).await;
            text
        };
        let ((), taken) = tokio::join!(everything, taken);
        assert_eq!(taken, "a 1 1\nb 1 1\nc 1 1\nd 1 1\ne 1 1\n");
        assert_eq!(queue.figures(), figures(5, 5, 0, 0, 0));
    }

    #[tokio::test]
    async fn one_line_fits_an_empty_queue_however_long_it_is() {
        let queue = queue(3, WhenFull::Block);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\n", 2), 6);
        assert_eq!(take_all(&queue).await, "a 1 1\n");
    }

    #[tokio::test]
    async fn a_closed_queue_ends_once_it_is_empty() {
        let queue = queue(100, WhenFull::Block);
        assert_eq!(queue.push(b"a 1 1\n", 1), 0);
        queue.close();
        assert_eq!(take_all(&queue).await, "a 1 1\n");
        assert!(!queue.take(&mut VecDeque::new(), 1).await);
    }

    #[tokio::test]
    async fn a_full_queue_may_drop_the_oldest_lines() {
        let queue = queue(12, WhenFull::DropOldest);
        assert_eq!(queue.push(b"a 1 1\n", 1), 0);
        assert_eq!(queue.push(b"b 1 1\nc 1 1\n", 2), 0);
        assert_eq!(queue.push(b"d 1 1\ne 1 1\nf 1 1\n", 3), 0);
        assert_eq!(queue.figures(), figures(6, 0, 4, 2, 12));
        assert_eq!(take_all(&queue).await, "d 1 1\ne 1 1\n");
    }

    #[tokio::test]
    async fn what_waits_for_too_long_or_is_too_much_goes_to_the_spool() {
        let queue = queue(400 << 10, WhenFull::Spool);
        queue.set_spools(true);
        let block = "a 1 1\n".repeat((64 << 10) / 6);
        for _ in 0..3 {
            assert_eq!(queue.push(block.as_bytes(), 10922), 0);
        }
        let mut taken = VecDeque::new();
        queue.take_overdue(Duration::from_secs(3600), &mut taken);
        assert_eq!(taken.len(), 0);
        assert_eq!(queue.push(block.as_bytes(), 10922), 0);
        queue.crowded().await;
        queue.take_overdue(Duration::from_secs(3600), &mut taken);
        assert_eq!(taken.len(), 3);
        let before = queue.figures();
        let spool = relay_spool::Figures {
            offered: 3 * 10922,
            waiting: 3 * 10922,
            ..relay_spool::Figures::default()
        };
        queue.moved_to_spool(3 * block.len(), 3 * 10922, spool);
        let after = queue.figures();
        assert_eq!(before.queue_lines, after.queue_lines + after.spool.waiting);
        queue.take_overdue(Duration::ZERO, &mut taken);
        assert_eq!(taken.len(), 4);
    }

    #[tokio::test]
    async fn without_a_spool_what_has_no_room_is_dropped() {
        let queue = queue(12, WhenFull::Spool);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\nc 1 1\n", 3), 0);
        assert_eq!(queue.figures(), figures(3, 0, 1, 2, 12));
        queue.set_spools(true);
        assert_eq!(queue.push(b"d 1 1\n", 1), 6);
    }

    #[tokio::test]
    async fn lines_that_are_sent_again_come_first_and_are_counted() {
        let queue = queue(100, WhenFull::DropNewest);
        assert_eq!(queue.push(b"a 1 1\nb 1 1\n", 2), 0);
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken, usize::MAX).await);
        queue.sent(12, 2);
        assert_eq!(queue.push(b"c 1 1\n", 1), 0);
        queue.resend(taken);
        let before = queue.figures();
        assert_eq!(
            (before.offered, before.resent, before.queue_lines),
            (3, 2, 3)
        );
        assert_eq!(take_all(&queue).await, "a 1 1\nb 1 1\nc 1 1\n");
        assert_eq!(
            (queue.figures().sent(), queue.figures().queue_lines),
            (5, 0)
        );
    }
}
