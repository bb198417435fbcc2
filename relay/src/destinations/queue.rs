//! What waits in memory for one destination: whole lines in chunks, bounded in bytes.
//!
//! A destination has a lane for each of its connections ([`Lane`]), and a lane a share of the queue. Workers push runs of lines
//! into lanes; a lane's one sender takes chunks out and says when their bytes were handed over; until then they count as
//! queued. Where there is a spool, its spooler takes out of all lanes what waits for too long. A lane that leaves hands what
//! waits in it to another one, and what is still pushed into it.
//!
//! All figures change under one lock, so at any moment
//! `offered + recovered + resent = sent + dropped + queued lines + spooled lines`.

mod figures;
mod lane;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use relay_engine::WhenFull;
use relay_spool::Position;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::{self, Link};
pub(crate) use figures::{Figures, Loss};
pub(crate) use lane::Lane;

/// What a new chunk has room for, in bytes. Small pushes fill the last chunk up, so that memory follows the bytes queued;
/// a write of one chunk is large enough that the system call no longer counts.
const CHUNK_BYTES: usize = 64 << 10;

/// The least share of a queue that a lane has, in bytes, however many there are.
const SHARE_BYTES_MIN: usize = 64 << 10;

/// What a sender has in hand cannot be moved to the spool. So it takes no more of its lane's share at a time than one of so many
/// parts, and no chunk is larger, if it is not one line: when a connection takes nothing, half of the share can be moved, and is.
const SHARE_PARTS: usize = 4;

/// A destination is slow for this long after something came that had no room with it.
const SLOW_AFTER_OVERFLOW: Duration = Duration::from_secs(3);

/// One destination's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    // There may be room where there was none.
    emptied: Notify,
    // More waits than should in memory, and there is a spool.
    crowded: Notify,
    // The destination is no longer in the plan.
    removed: CancellationToken,
}

#[derive(Debug)]
struct State {
    limits: relay_engine::Queue,
    lanes: BTreeMap<LaneNumber, Waiting>,
    next: u64,
    // What has no room waits on disk.
    spools: bool,
    // When something last had no room in here while there was a connection.
    overflowed_at: Option<Instant>,
    figures: Figures,
    // Lines from the spool that were refused for good, and that it has not yet been told of.
    refused: u64,
    // Of lanes that are gone.
    links: link::Figures,
}

/// Tells the lanes of a queue apart, those that are gone included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneNumber(u64);

// What waits in one lane.
#[derive(Debug)]
struct Waiting {
    chunks: VecDeque<Filling>,
    // With those that were taken and are not yet handed over.
    bytes: usize,
    // All that ever came, in bytes.
    pushed: u64,
    is_connected: bool,
    has_left: bool,
    signals: Arc<Signals>,
}

// What a lane's holders tell each other.
#[derive(Debug, Default)]
struct Signals {
    filled: Notify,
    // Failed, and not yet trusted again.
    is_down: AtomicBool,
    link: Link,
    // No producer is left: what is in the lane is all that will come.
    closed: CancellationToken,
    // The destination has other lanes in its stead.
    left: CancellationToken,
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

/// Chunks on their way from lanes to the spool. They still count as queued.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    pub(crate) chunks: Vec<Chunk>,
    // What of them is whose, in bytes.
    shares: Vec<(LaneNumber, usize)>,
}

impl Queue {
    pub(crate) fn new(limits: relay_engine::Queue) -> Self {
        let state = State {
            limits,
            lanes: BTreeMap::new(),
            next: 0,
            spools: false,
            overflowed_at: None,
            figures: Figures::default(),
            refused: 0,
            links: link::Figures::default(),
        };
        Self {
            state: Mutex::new(state),
            emptied: Notify::new(),
            crowded: Notify::new(),
            removed: CancellationToken::new(),
        }
    }

    /// One more lane.
    pub(crate) fn add_lane(self: &Arc<Self>) -> Arc<Lane> {
        let signals = Arc::<Signals>::default();
        let mut state = self.lock();
        let number = LaneNumber(state.next);
        state.next += 1;
        let waiting = Waiting {
            chunks: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            is_connected: false,
            has_left: false,
            signals: Arc::clone(&signals),
        };
        state.lanes.insert(number, waiting);
        Arc::new(Lane::new(Arc::clone(self), number, signals))
    }

    /// Resolves when more waits than should in memory, where there is a spool.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Takes out of all lanes what waits for `age` or longer, and more of the oldest where there is too much in memory.
    pub(crate) fn take_overdue(&self, age: Duration) -> Moving {
        let mut state = self.lock();
        let share = state.share();
        let mut moving = Moving::default();
        for (number, lane) in &mut state.lanes {
            let mut bytes: usize = lane.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            let bytes_kept = if lane.is_crowded(share) {
                share / 4
            } else {
                usize::MAX
            };
            let mut taken = 0;
            while let Some(first) = lane.chunks.front() {
                if first.since.elapsed() < age && bytes <= bytes_kept {
                    break;
                }
                bytes -= first.bytes.len();
                taken += first.bytes.len();
                moving
                    .chunks
                    .extend(lane.chunks.pop_front().map(Chunk::from));
            }
            if taken > 0 {
                moving.shares.push((*number, taken));
            }
        }
        moving
    }

    /// Counts what was moved to the spool, `lines` lines, whose figures are `spool` now.
    pub(crate) fn moved_to_spool(&self, shares: Shares, lines: u64, spool: relay_spool::Figures) {
        let mut state = self.lock();
        state.overflowed();
        for (number, bytes) in shares.0 {
            state.release(number, bytes);
        }
        state.figures.queue_lines -= lines;
        state.set_spool(spool);
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Counts lines that the spool was given because their connection broke.
    pub(crate) fn resent_to_spool(&self, lines: u64, spool: relay_spool::Figures) {
        let mut state = self.lock();
        state.figures.resent += lines;
        state.set_spool(spool);
    }

    /// Counts lines that were moving as dropped.
    pub(crate) fn give_up(&self, moving: Moving, loss: Loss) {
        let mut state = self.lock();
        let lines: u64 = moving.chunks.iter().map(|chunk| chunk.lines).sum();
        for (number, bytes) in moving.shares {
            state.release(number, bytes);
        }
        state.figures.queue_lines -= lines;
        state.figures.dropped[loss as usize] += lines;
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Takes chunks that were handed over, and may not have arrived, in once more: they are the first of a lane. Returns
    /// whether there is one.
    pub(crate) fn resend(&self, chunks: VecDeque<Chunk>) -> bool {
        let mut state = self.lock();
        let heir = state.heir();
        if let Some(heir) = heir {
            state.resend(heir, chunks);
        }
        heir.is_some()
    }

    pub(crate) fn set_spooled(&self, spool: relay_spool::Figures) {
        self.lock().set_spool(spool);
    }

    /// Says whether something may wait on disk that nobody has looked at.
    pub(crate) fn set_spool_is_unknown(&self, unknown: bool) {
        self.lock().figures.spool_is_unknown = unknown;
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

    pub(crate) fn set_limits(&self, limits: relay_engine::Queue) {
        self.lock().limits = limits;
        // Those who wait may have room, or may no longer have to wait.
        self.emptied.notify_waiters();
    }

    /// Whether the destination takes less than comes, or did a moment ago, although it is connected.
    pub(crate) fn is_slow(&self) -> bool {
        let state = self.lock();
        let share = state.share();
        let overflowed = state.overflowed_at;
        state.lanes.values().any(|lane| lane.is_crowded(share))
            || overflowed.is_some_and(|at| at.elapsed() < SLOW_AFTER_OVERFLOW)
    }

    /// Says that the destination is no longer in the plan, so that nobody waits for room.
    pub(crate) fn remove(&self) {
        self.removed.cancel();
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.lock();
        let lanes = || state.lanes.values().filter(|lane| !lane.has_left);
        Figures {
            lanes: lanes().count(),
            connected: lanes().filter(|lane| lane.is_connected).count(),
            live: lanes().any(|lane| lane.signals.is_live()),
            ..state.figures
        }
    }

    /// How the connections are and were, of all lanes. Asks the kernel about each.
    pub(crate) fn links(&self) -> link::Figures {
        let state = self.lock();
        let mut all = state.links.clone();
        for lane in state.lanes.values() {
            all.add(lane.signals.link.figures(), !lane.has_left);
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the figures are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of moving chunks is whose.
#[derive(Debug)]
pub(crate) struct Shares(Vec<(LaneNumber, usize)>);

impl Moving {
    /// The chunks, and what of them is whose.
    pub(crate) fn split(self) -> (Vec<Chunk>, Shares) {
        (self.chunks, Shares(self.shares))
    }
}

impl Signals {
    fn is_live(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }
}

impl Waiting {
    fn is_crowded(&self, share: usize) -> bool {
        self.bytes > share / 2
    }

    // `part` is what a chunk of several lines may have, in bytes.
    fn append(&mut self, mut bytes: &[u8], mut lines: u64, part: usize) {
        while bytes.len() > part {
            let (first, first_lines) = whole_lines(bytes, part, true);
            self.append_together(first, first_lines, part);
            bytes = &bytes[first.len()..];
            lines -= first_lines;
        }
        if !bytes.is_empty() {
            self.append_together(bytes, lines, part);
        }
        self.signals.filled.notify_one();
    }

    fn append_together(&mut self, bytes: &[u8], lines: u64, part: usize) {
        let has_room = |chunk: &Filling| chunk.bytes.capacity() - chunk.bytes.len() >= bytes.len();
        if !self.chunks.back().is_some_and(has_room) {
            let bytes = Vec::with_capacity(bytes.len().max(CHUNK_BYTES.min(part)));
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
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
    }
}

impl State {
    // What of the queue a lane may take, in bytes.
    fn share(&self) -> usize {
        let lanes = self.lanes.values().filter(|lane| !lane.has_left).count();
        (self.limits.bytes_max / lanes.max(1)).max(SHARE_BYTES_MIN.min(self.limits.bytes_max))
    }

    // What a sender has in hand before it takes no more, and what a chunk of several lines has at most, in bytes.
    fn part(&self) -> usize {
        (self.share() / SHARE_PARTS).max(SHARE_BYTES_MIN / SHARE_PARTS)
    }

    // Where what is for a lane goes.
    fn standing_in(&self, number: LaneNumber) -> LaneNumber {
        match self.lanes.get(&number) {
            Some(lane) if !lane.has_left => number,
            _ => self.heir().unwrap_or(number),
        }
    }

    // The lane that takes what others leave: one that has a connection, if there is one, and of those the one with least.
    fn heir(&self) -> Option<LaneNumber> {
        let lanes = self.lanes.iter().filter(|(_, lane)| !lane.has_left);
        let heir = lanes.min_by_key(|(_, lane)| (!lane.is_connected, lane.bytes));
        heir.map(|(number, _)| *number)
    }

    // Drops the oldest chunks that wait in a lane, until there is room for `bytes`.
    fn make_room(&mut self, number: LaneNumber, bytes: usize) {
        let share = self.share();
        while let Some(lane) = self.lanes.get_mut(&number)
            && lane.bytes + bytes > share
            && let Some(oldest) = lane.chunks.pop_front()
        {
            self.overflowed();
            self.release(number, oldest.bytes.len());
            self.figures.queue_lines -= oldest.lines;
            self.figures.dropped[Loss::QueueFull as usize] += oldest.lines;
        }
    }

    // What piles up while there is no connection says nothing of how fast the destination is.
    fn overflowed(&mut self) {
        if self.lanes.values().any(|lane| lane.is_connected) {
            self.overflowed_at = Some(Instant::now());
        }
    }

    // The spool counts what was refused as handed over, a moment later.
    fn set_spool(&mut self, spool: relay_spool::Figures) {
        let more = spool
            .acknowledged
            .saturating_sub(self.figures.spool.acknowledged);
        let refused = self.refused.min(more);
        self.refused -= refused;
        self.figures.refused_from_spool += refused;
        self.figures.dropped[Loss::Rejected as usize] += refused;
        self.figures.spool = spool;
    }

    fn drop_offered(&mut self, lines: u64, loss: Loss) {
        self.figures.offered += lines;
        self.figures.dropped[loss as usize] += lines;
    }

    // Bytes no longer count, in their lane if it is still there.
    fn release(&mut self, number: LaneNumber, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.bytes -= bytes;
        }
        self.figures.queue_bytes -= bytes as u64;
    }

    // Makes chunks the first of a lane; they count as queued already, in the lane `from`.
    fn put_back(&mut self, from: LaneNumber, chunks: impl DoubleEndedIterator<Item = Chunk>) {
        let to = self.standing_in(from);
        for chunk in chunks.rev() {
            let bytes = chunk.bytes.len();
            if let Some(lane) = self.lanes.get_mut(&from) {
                lane.bytes -= bytes;
            }
            if let Some(lane) = self.lanes.get_mut(&to) {
                lane.bytes += bytes;
                lane.chunks.push_front(Filling::from(chunk));
                lane.signals.filled.notify_one();
            }
        }
    }

    fn resend(&mut self, to: LaneNumber, chunks: VecDeque<Chunk>) {
        let Some(lane) = self.lanes.get_mut(&to) else {
            return;
        };
        for chunk in chunks.into_iter().rev() {
            self.figures.resent += chunk.lines;
            self.figures.queue_lines += chunk.lines;
            self.figures.queue_bytes += chunk.bytes.len() as u64;
            lane.bytes += chunk.bytes.len();
            lane.chunks.push_front(Filling::from(chunk));
        }
        lane.signals.filled.notify_one();
    }

    // Hands what waits in a lane to another one.
    fn leave(&mut self, number: LaneNumber) {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return;
        };
        lane.has_left = true;
        let chunks = std::mem::take(&mut lane.chunks);
        lane.bytes -= chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        let heir = self.standing_in(number);
        if let Some(lane) = self.lanes.get_mut(&heir) {
            lane.bytes += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
            lane.chunks.extend(chunks);
            lane.signals.filled.notify_one();
        }
    }
}

impl Chunk {
    /// Whole lines that are not from a spool.
    pub(crate) fn of(lines: Vec<u8>) -> Self {
        Self {
            lines: memchr::memchr_iter(b'\n', &lines).count() as u64,
            bytes: lines.into(),
            spooled: None,
        }
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

// The whole lines at the front that fit in `room` bytes, and how many they are. One line fits in any case if nothing waits,
// or it would wait for ever.
fn whole_lines(bytes: &[u8], room: usize, is_empty: bool) -> (&[u8], u64) {
    let mut end = memchr::memrchr(b'\n', &bytes[..room]).map_or(0, |newline| newline + 1);
    if end == 0 && is_empty {
        end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1);
    }
    let fitting = &bytes[..end];
    (fitting, memchr::memchr_iter(b'\n', fitting).count() as u64)
}

#[cfg(test)]
mod tests;
