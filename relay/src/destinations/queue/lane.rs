//! One lane of a queue, for those who fill it and for the sender that empties it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_engine::WhenFull;

use super::{Chunk, LaneNumber, Loss, Moving, Queue, Signals, whole_lines};
use crate::destinations::link::Link;

/// One lane of a queue. When its last holder goes, it goes.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: Arc<Queue>,
    number: LaneNumber,
    signals: Arc<Signals>,
}

impl Lane {
    pub(super) fn new(queue: Arc<Queue>, number: LaneNumber, signals: Arc<Signals>) -> Self {
        Self {
            queue,
            number,
            signals,
        }
    }

    /// The queue that it is a lane of.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn number(&self) -> LaneNumber {
        self.number
    }

    /// Takes `lines` lines in. Returns how many bytes of them had no room and must wait (`WhenFull::Block` only): the last
    /// ones, from a line's start on. They are not counted yet.
    #[must_use = "what had no room must be pushed again"]
    pub(crate) fn push(&self, bytes: &[u8], lines: u64) -> usize {
        let mut state = self.queue.lock();
        let number = state.standing_in(self.number);
        if state.limits.when_full == WhenFull::DropOldest {
            state.make_room(number, bytes.len());
        }
        let (share, part) = (state.share(), state.part());
        let is_moved = state.spools && state.limits.when_full == WhenFull::Spool;
        let Some(lane) = state.lanes.get_mut(&number) else {
            // Whoever holds a lane keeps it there.
            state.drop_offered(lines, Loss::Removed);
            return 0;
        };
        let room = share.saturating_sub(lane.bytes);
        let (fitting, fitting_lines) = match bytes.len() <= room {
            true => (bytes, lines),
            // The spool has room for one that the sender leaves none.
            false if is_moved => whole_lines(bytes, room, lane.chunks.is_empty()),
            false => whole_lines(bytes, room, lane.bytes == 0),
        };
        if !fitting.is_empty() {
            lane.append(fitting, fitting_lines, part);
        }
        let is_crowded = lane.is_crowded(share);
        state.figures.offered += fitting_lines;
        state.figures.queue_lines += fitting_lines;
        state.figures.queue_bytes += fitting.len() as u64;
        if state.spools && is_crowded {
            self.queue.crowded.notify_one();
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
            let room = self.queue.emptied.notified();
            let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
            let waiting = self.push(bytes, lines);
            *bytes = &bytes[bytes.len() - waiting..];
            if waiting == 0 {
                return;
            }
            room.await;
        }
    }

    /// Names what has come so far, for [`Lane::passed`].
    pub(crate) fn ticket(&self) -> u64 {
        let state = self.queue.lock();
        state.lanes.get(&self.number).map_or(0, |lane| lane.pushed)
    }

    /// Resolves when nothing that had come by then waits in memory any more: it was handed over, is on disk, or was dropped.
    pub(crate) async fn passed(&self, ticket: u64) {
        loop {
            let changed = self.queue.emptied.notified();
            let has_passed = {
                let state = self.queue.lock();
                let lane = state.lanes.get(&self.number);
                lane.is_none_or(|lane| lane.pushed >= ticket + lane.bytes as u64 || lane.bytes == 0)
            };
            if has_passed {
                return;
            }
            changed.await;
        }
    }

    /// Counts lines that were to be pushed and never will be.
    pub(crate) fn give_up_offered(&self, bytes: &[u8], loss: Loss) {
        let lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.queue.lock().drop_offered(lines, loss);
    }

    /// What a sender may have in hand before it takes no more, in bytes. It may be a chunk more then.
    pub(crate) fn in_hand_max(&self) -> usize {
        self.queue.lock().part()
    }

    /// Moves waiting chunks to `taken`, until these have `bytes_max` bytes, or what a sender may have in hand. Waits for the first.
    /// Returns `false` once the lane is closed and empty, or has left.
    pub(crate) async fn take(&self, taken: &mut VecDeque<Chunk>, bytes_max: usize) -> bool {
        loop {
            {
                let mut state = self.queue.lock();
                let bytes_max = bytes_max.min(state.part());
                let mut bytes = 0;
                while bytes < bytes_max
                    && let Some(lane) = state.lanes.get_mut(&self.number)
                    && let Some(chunk) = lane.chunks.pop_front()
                {
                    bytes += chunk.bytes.len();
                    taken.push_back(chunk.into());
                }
                if bytes > 0 {
                    return true;
                }
                if self.signals.closed.is_cancelled() || self.has_left() {
                    return false;
                }
            }
            tokio::select! {
                () = self.signals.filled.notified() => {}
                () = self.signals.closed.cancelled() => {}
                () = self.left() => {}
            }
        }
    }

    /// Counts lines that were taken as handed over, but for those that were refused for good.
    pub(crate) fn sent(&self, bytes: usize, lines: u64, refused: u64) {
        let mut state = self.queue.lock();
        state.figures.sent_from_memory += lines - refused;
        state.figures.dropped[Loss::Rejected as usize] += refused;
        state.figures.bytes_sent += bytes as u64;
        state.figures.queue_lines -= lines;
        state.release(self.number, bytes);
        drop(state);
        self.queue.emptied.notify_waiters();
    }

    /// Counts bytes from the spool as handed over; the spool counts their lines, those that were refused for good included.
    pub(crate) fn replayed(&self, bytes: usize, refused: u64) {
        let mut state = self.queue.lock();
        state.refused += refused;
        state.figures.bytes_sent += bytes as u64;
        state.figures.bytes_replayed += bytes as u64;
    }

    /// Counts lines that the destination's settings leave out of what its server gets.
    pub(crate) fn leave_out(&self, lines: u64) {
        if lines > 0 {
            self.queue.lock().figures.left_out += lines;
        }
    }

    /// Takes back chunks that were not handed over, to be the first again.
    pub(crate) fn put_back(&self, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        self.queue.lock().put_back(self.number, chunks);
    }

    /// Takes chunks that were handed over, and may not have arrived, in once more: they are the first.
    pub(crate) fn resend(&self, chunks: VecDeque<Chunk>) {
        let mut state = self.queue.lock();
        let number = state.standing_in(self.number);
        state.resend(number, chunks);
    }

    /// Chunks that were taken, on their way to the spool.
    pub(crate) fn moving(&self, taken: &mut VecDeque<Chunk>) -> Moving {
        let chunks: Vec<Chunk> = taken.drain(..).collect();
        let bytes = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        Moving {
            chunks,
            shares: vec![(self.number, bytes)],
        }
    }

    /// Drops everything that waits and `taken`, which the sender holds. Returns how many lines that were.
    pub(crate) fn give_up(&self, taken: &mut VecDeque<Chunk>, loss: Loss) -> u64 {
        let mut moving = self.moving(taken);
        {
            let mut state = self.queue.lock();
            if let Some(lane) = state.lanes.get_mut(&self.number) {
                let waiting = std::mem::take(&mut lane.chunks).into_iter();
                let waiting: Vec<Chunk> = waiting.map(Chunk::from).collect();
                let bytes = waiting.iter().map(|chunk| chunk.bytes.len()).sum();
                moving.shares.push((self.number, bytes));
                moving.chunks.extend(waiting);
            }
        }
        let lines = moving.chunks.iter().map(|chunk| chunk.lines).sum();
        self.queue.give_up(moving, loss);
        lines
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        if let Some(lane) = self.queue.lock().lanes.get_mut(&self.number) {
            lane.is_connected = connected;
        }
    }

    /// The connections of its sender.
    pub(crate) fn link(&self) -> &Link {
        &self.signals.link
    }

    /// Whether it takes lines, as far as failover is concerned. Until it has failed once it does.
    pub(crate) fn is_live(&self) -> bool {
        self.signals.is_live()
    }

    pub(crate) fn set_live(&self, live: bool) {
        self.signals.is_down.store(!live, Ordering::Relaxed);
    }

    /// Resolves when the destination is no longer in the plan.
    pub(crate) async fn removed(&self) {
        self.queue.removed.cancelled().await;
    }

    /// Says that no line will come any more.
    pub(crate) fn close(&self) {
        self.signals.closed.cancel();
    }

    /// Resolves when no line will come any more.
    pub(crate) async fn closed(&self) {
        self.signals.closed.cancelled().await;
    }

    /// Says that the destination has other lanes in its stead. They get what waits here, and what still comes.
    pub(crate) fn leave(&self) {
        self.queue.lock().leave(self.number);
        self.signals.left.cancel();
        self.queue.emptied.notify_waiters();
    }

    pub(crate) fn has_left(&self) -> bool {
        self.signals.left.is_cancelled()
    }

    /// Resolves when other lanes are there in its stead.
    pub(crate) async fn left(&self) {
        self.signals.left.cancelled().await;
    }

    /// Resolves when no line will come any more and none waits. Only for when nothing is being sent.
    pub(crate) async fn finished(&self) {
        let closed = async {
            self.closed().await;
            let bytes = {
                let state = self.queue.lock();
                state.lanes.get(&self.number).map_or(0, |lane| lane.bytes)
            };
            if bytes > 0 {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = closed => {}
            () = self.left() => {}
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.leave(self.number);
        state.lanes.remove(&self.number);
        state.links.add(self.signals.link.figures(), false);
    }
}
