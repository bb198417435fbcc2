//! What waits on disk for one destination: keeps its spool, on a thread that may block, beside the senders.
//!
//! ```text
//! queue ── too old, or too much ──▶ spool ── batches, while one is connected ──▶ sender
//!                                     ▲                                            │
//!                                     └──── what was handed over, what must go again ┘
//! ```
//!
//! Of several lanes, one that is connected sends what waits, in its order, whatever lane the lines were for; if its connection
//! breaks another one goes on where it was.
//!
//! A destination that takes its lines never meets the disk. Twice in a sync interval, what has waited in the queue for half of
//! one is moved to the spool and synced: so a crash takes nothing that is older than the interval. What fills more than half
//! of the queue is moved at once: slow is treated like down. What comes in is sent before what waits on disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use relay_spool::{Limits, Position, Spool, UnixSeconds, WhenFull};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::queue::{Chunk, Lane, LaneNumber, Moving, Queue};
use crate::clock;

/// What is read from the spool at a time, in bytes: enough that reading does not count, little enough to go beside what
/// comes in without being noticed.
const BATCH_BYTES: usize = 256 << 10;

/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// Requests that may wait for the disk.
const REQUESTS_MAX: usize = 4;

/// How long until a spool that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// How long until one is tried again that another process has, which may be about to let go of it.
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// How long what has no room in memory waits for another process to let go of the spool. After that it is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Where the lanes of a destination get their ends from.
#[derive(Debug)]
pub(crate) struct SpoolSource {
    requests: mpsc::Sender<Request>,
    handed_over: HandedOver,
}

/// One sender's end.
#[derive(Debug)]
pub(crate) struct SpoolHandle {
    lane: LaneNumber,
    requests: mpsc::Sender<Request>,
    // Of the connection that there is.
    batches: Option<mpsc::Receiver<Chunk>>,
    handed_over: HandedOver,
}

/// The end of what was handed over and is not yet acknowledged to the spool.
type HandedOver = Arc<Mutex<Option<Position>>>;

#[derive(Debug)]
enum Request {
    /// A lane has a connection, which takes batches.
    Connected(LaneNumber, mpsc::Sender<Chunk>),
    Disconnected(LaneNumber),
    /// Keep lines that were handed over once and may not have arrived.
    Resend(VecDeque<Chunk>),
    /// Keep these lines, which still count as queued, and all that the queue has.
    Finish(Moving, oneshot::Sender<()>),
}

/// One destination's spool, and what it works with.
#[derive(Debug)]
pub(crate) struct Spooler {
    queue: Arc<Queue>,
    settings: watch::Receiver<relay_engine::Destination>,
    directory: PathBuf,
    requests: mpsc::Receiver<Request>,
    handed_over: HandedOver,
    // The lanes that have a connection. The first gets batches, from what is not acknowledged on.
    connected: Vec<(LaneNumber, mpsc::Sender<Chunk>)>,
    // Reading may find something.
    has_more: bool,
    // The disk failed, and that was said.
    is_failing: bool,
    /// Dropped when the spooler is done.
    _open: mpsc::Sender<()>,
}

impl SpoolSource {
    /// The two ends of what waits on disk for a destination, in a directory of its own within `directory`.
    pub(crate) fn new(
        queue: &Arc<Queue>,
        settings: watch::Receiver<relay_engine::Destination>,
        directory: &Path,
        open: mpsc::Sender<()>,
    ) -> (Self, Spooler) {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let handed_over = HandedOver::default();
        let name = directory_name(&settings.borrow().id);
        queue.set_spool_is_unknown(true);
        let spooler = Spooler {
            queue: Arc::clone(queue),
            settings,
            directory: directory.join(name),
            requests: inbox,
            handed_over: Arc::clone(&handed_over),
            connected: Vec::new(),
            has_more: false,
            is_failing: false,
            _open: open,
        };
        let source = Self {
            requests,
            handed_over,
        };
        (source, spooler)
    }

    /// The end of a lane's sender.
    pub(crate) fn handle(&self, lane: &Lane) -> SpoolHandle {
        SpoolHandle {
            lane: lane.number(),
            requests: self.requests.clone(),
            batches: None,
            handed_over: Arc::clone(&self.handed_over),
        }
    }
}

impl SpoolHandle {
    /// Asks for batches from now on.
    pub(crate) async fn connected(&mut self) {
        let (batches_out, batches) = mpsc::channel(BATCHES_AHEAD);
        self.batches = Some(batches);
        self.ask(Request::Connected(self.lane, batches_out)).await;
    }

    /// Asks for no more batches. Those that were not handed over come again on the next connection.
    pub(crate) async fn disconnected(&mut self) {
        self.batches = None;
        self.ask(Request::Disconnected(self.lane)).await;
    }

    /// The next batch; waits for it.
    pub(crate) async fn next(&mut self) -> Chunk {
        let batch = match &mut self.batches {
            Some(batches) => batches.recv().await,
            None => None,
        };
        match batch {
            Some(batch) => batch,
            // None will come on this connection.
            None => std::future::pending().await,
        }
    }

    /// The next batch, if it is there.
    pub(crate) fn try_next(&mut self) -> Option<Chunk> {
        self.batches.as_mut()?.try_recv().ok()
    }

    /// Says that everything before `end` was handed over.
    pub(crate) fn handed_over(&self, end: Position) {
        let mut handed_over = self
            .handed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *handed_over = Some(end);
    }

    /// Keeps lines that were handed over once and may not have arrived.
    pub(crate) async fn resend(&self, chunks: VecDeque<Chunk>) {
        self.ask(Request::Resend(chunks)).await;
    }

    /// Keeps what is moving and all that the queue has, and resolves when it outlives a crash.
    pub(crate) async fn finish(&self, moving: Moving) {
        let (done, finished) = oneshot::channel();
        self.ask(Request::Finish(moving, done)).await;
        if finished.await.is_err() {
            warn!("a spool ended before it had everything");
        }
    }

    async fn ask(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            warn!("a spool ended before its sender");
        }
    }
}

impl Spooler {
    /// Works until no sender is left, and none can come.
    pub(crate) async fn run(mut self) {
        let Some(mut spool) = self.open().await else {
            return;
        };
        let mut period = self.period();
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let batches = self.connected.first().filter(|_| self.has_more);
            let batches = batches.map(|(_, batches)| batches.clone());
            spool = tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Request::Finish(moving, done)) => {
                        spool = self.keep_all(spool, moving).await;
                        if done.send(()).is_err() {
                            warn!("nobody waits for the spool any more");
                        }
                        spool
                    }
                    Some(request) => self.answer(spool, request).await,
                    None => {
                        self.sync(spool).await;
                        return;
                    }
                },
                // Before what a flood may always have ready.
                _ = ticks.tick() => {
                    if period != self.period() {
                        period = self.period();
                        ticks = interval(period);
                    }
                    let spool = self.move_overdue(spool).await;
                    self.sync(spool).await
                }
                () = self.queue.crowded() => self.move_overdue(spool).await,
                permit = reserve(batches) => match permit {
                    Ok(permit) => {
                        let (spool, batch) = self.read(spool).await;
                        if let Some(batch) = batch {
                            permit.send(batch);
                        }
                        spool
                    }
                    // Its sender is about to say that the connection is gone.
                    Err(_) => self.disconnect_first(spool).await,
                },
            };
        }
    }

    // Opens the spool when there is to be one. `None`: the sender is done. Until it is open, requests are answered as if
    // there were none, and the queue drops what has no room in it.
    async fn open(&mut self) -> Option<Spool> {
        let mut is_said = false;
        let mut again = OPEN_AGAIN;
        let began = Instant::now();
        loop {
            let destination = self.settings.borrow_and_update().clone();
            let wanted = destination.spool.is_some() || self.directory.exists();
            self.queue.set_spool_is_unknown(wanted);
            if wanted {
                let (directory, limits) = (self.directory.clone(), limits(&destination));
                let (id, name) = (Arc::clone(&destination.id), Arc::clone(&destination.name));
                let now = now();
                let opened = spawn_blocking(move || {
                    std::fs::create_dir_all(&directory).ok();
                    let mut spool = Spool::open(&directory, &id, limits, now)?;
                    if let Err(error) = spool.set_owner(&name) {
                        warn!(destination = &*name, %error, "nothing in the spool's directory says whose it is");
                    }
                    Ok::<_, relay_spool::Error>(spool)
                });
                match opened.await {
                    Ok(Ok(spool)) => {
                        self.take_up(&spool, &destination.name);
                        return Some(spool);
                    }
                    Ok(Err(relay_spool::Error::Locked { .. }))
                        if began.elapsed() < LOCK_PATIENCE =>
                    {
                        // Room is about to be made.
                        self.queue.set_spools(true);
                        again = LOCK_AGAIN;
                    }
                    Ok(Err(error)) if !is_said => {
                        self.queue.set_spools(false);
                        again = OPEN_AGAIN;
                        is_said = true;
                        warn!(destination = &*destination.name, %error, "the spool cannot be used; what has no room in memory is dropped until it can");
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return None,
                }
            }
            tokio::select! {
                request = self.requests.recv() => match request? {
                    Request::Connected(lane, batches) => self.connected.push((lane, batches)),
                    Request::Disconnected(lane) => self.connected.retain(|(other, _)| *other != lane),
                    Request::Resend(chunks) => {
                        self.queue.resend(chunks);
                    }
                    Request::Finish(moving, done) => {
                        self.queue.give_up(moving, super::queue::Loss::Shutdown);
                        if done.send(()).is_err() {
                            return None;
                        }
                    }
                },
                changed = self.settings.changed(), if !wanted => if changed.is_err() {
                    // No more changes: only the sender's end counts now.
                    sleep(OPEN_AGAIN).await;
                },
                () = sleep(again), if wanted => {}
            }
        }
    }

    fn take_up(&mut self, spool: &Spool, destination: &str) {
        let figures = spool.figures();
        if figures.recovered > 0 {
            info!(destination, lines = figures.recovered, "lines wait on disk");
        }
        self.has_more = figures.waiting > 0;
        self.queue.set_spooled(figures);
        self.queue.set_spool_is_unknown(false);
        self.queue.set_spools(true);
    }

    async fn answer(&mut self, spool: Spool, request: Request) -> Spool {
        match request {
            Request::Connected(lane, batches) => {
                self.connected.push((lane, batches));
                match self.connected.len() {
                    1 => self.begin_again(spool).await,
                    _ => spool,
                }
            }
            Request::Disconnected(lane) => {
                let was_first = self
                    .connected
                    .first()
                    .is_some_and(|(first, _)| *first == lane);
                self.connected.retain(|(other, _)| *other != lane);
                match was_first {
                    true => self.begin_again(spool).await,
                    false => spool,
                }
            }
            Request::Resend(chunks) => {
                // What was handed over makes room for what of it goes again, on a disk that is small or full.
                let spool = self.sync(spool).await;
                let (spool, lines) = self.append(spool, chunks).await;
                self.queue.resent_to_spool(lines, spool.figures());
                spool
            }
            Request::Finish(..) => spool,
        }
    }

    async fn disconnect_first(&mut self, spool: Spool) -> Spool {
        self.connected.remove(0);
        self.begin_again(spool).await
    }

    // The next batch is what follows on what was handed over.
    async fn begin_again(&mut self, spool: Spool) -> Spool {
        self.has_more = true;
        let settled = self.take_handed_over();
        let (spool, ()) = blocking(spool, move |spool| {
            settle(spool, settled);
            spool.rewind();
        })
        .await;
        self.queue.set_spooled(spool.figures());
        spool
    }

    // Moves what waits for too long, or is too much, out of the queue.
    async fn move_overdue(&mut self, mut spool: Spool) -> Spool {
        let (is_wanted, limits) = {
            let destination = self.settings.borrow();
            (destination.spool.is_some(), limits(&destination))
        };
        spool.set_limits(limits);
        if !is_wanted {
            return spool;
        }
        let moving = self.queue.take_overdue(self.period());
        self.keep(spool, moving).await
    }

    async fn keep_all(&mut self, spool: Spool, moving: Moving) -> Spool {
        let spool = self.keep(spool, moving).await;
        let rest = self.queue.take_overdue(Duration::ZERO);
        let spool = self.keep(spool, rest).await;
        self.sync(spool).await
    }

    // Keeps chunks that still count as queued.
    async fn keep(&mut self, spool: Spool, moving: Moving) -> Spool {
        if moving.chunks.is_empty() {
            return spool;
        }
        let (chunks, shares) = moving.split();
        let (spool, lines) = self.append(spool, chunks).await;
        self.queue.moved_to_spool(shares, lines, spool.figures());
        spool
    }

    // What the spool does not take it counts. Returns the lines of the chunks.
    async fn append(
        &mut self,
        spool: Spool,
        chunks: impl IntoIterator<Item = Chunk> + Send + 'static,
    ) -> (Spool, u64) {
        let (spool, (lines, failed)) = blocking(spool, move |spool| {
            let (mut lines, mut failed) = (0, None);
            for chunk in chunks {
                lines += chunk.lines;
                if let Err(error) = spool.append(&chunk.bytes, chunk.lines) {
                    failed = Some(error);
                }
            }
            (lines, failed)
        })
        .await;
        self.has_more = true;
        self.say(failed);
        (spool, lines)
    }

    async fn sync(&mut self, spool: Spool) -> Spool {
        let settled = self.take_handed_over();
        let now = now();
        let (spool, synced) = blocking(spool, move |spool| {
            settle(spool, settled);
            spool.sync(now)
        })
        .await;
        self.queue.set_spooled(spool.figures());
        if let Err(error) = synced {
            self.say(Some(error));
        }
        spool
    }

    async fn read(&mut self, spool: Spool) -> (Spool, Option<Chunk>) {
        let settled = self.take_handed_over();
        let (spool, (bytes, read)) = blocking(spool, move |spool| {
            settle(spool, settled);
            let mut bytes = Vec::new();
            let read = spool.read(&mut bytes, BATCH_BYTES);
            (bytes, read)
        })
        .await;
        self.queue.set_spooled(spool.figures());
        let batch = match read {
            Ok(Some(batch)) => Some(Chunk {
                bytes: Bytes::from(bytes),
                lines: batch.lines,
                spooled: Some(batch.end),
            }),
            Ok(None) => None,
            Err(error) => {
                self.say(Some(error));
                None
            }
        };
        self.has_more = batch.is_some();
        (spool, batch)
    }

    fn take_handed_over(&self) -> Option<Position> {
        let mut handed_over = self
            .handed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        handed_over.take()
    }

    // A disk that fails does so many times a second; it is said once, and when it is over.
    fn say(&mut self, failed: Option<relay_spool::Error>) {
        let name = Arc::clone(&self.settings.borrow().name);
        match failed {
            Some(error) if !self.is_failing => {
                warn!(destination = &*name, %error, "the spool fails; what it does not take is dropped and counted");
                self.is_failing = true;
            }
            None if self.is_failing => {
                info!(destination = &*name, "the spool works again");
                self.is_failing = false;
            }
            Some(_) | None => {}
        }
    }

    // Half of the sync interval: lines wait for it in memory, and then for the next time that it comes round.
    fn period(&self) -> Duration {
        let destination = self.settings.borrow();
        let spool = destination.spool.as_ref();
        spool.map_or(Duration::from_secs(1), |spool| spool.sync_interval / 2)
    }
}

/// The directory of a destination's spool, by the destination's id: what may not stand in a file name is written as `%` and two
/// digits.
pub(crate) fn directory_name(id: &str) -> String {
    let mut name = String::new();
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn settle(spool: &mut Spool, handed_over: Option<Position>) {
    if let Some(end) = handed_over {
        spool.acknowledge(end);
    }
}

fn limits(destination: &relay_engine::Destination) -> Limits {
    let spool = destination.spool.as_ref();
    Limits {
        // One that takes no more lines keeps those that it has.
        bytes_max: spool.map_or(0, |spool| spool.bytes_max),
        age_max: spool.and_then(|spool| spool.age_max),
        segment_bytes: Limits::SEGMENT_BYTES,
        when_full: WhenFull::DropNewest,
    }
}

fn now() -> UnixSeconds {
    UnixSeconds(clock::now().0)
}

// A place for a batch, when there is one and somebody takes batches.
async fn reserve(
    batches: Option<mpsc::Sender<Chunk>>,
) -> Result<mpsc::OwnedPermit<Chunk>, mpsc::error::SendError<()>> {
    match batches {
        Some(batches) => batches.reserve_owned().await,
        None => std::future::pending().await,
    }
}

// Does something that may block with a spool, on a thread that may.
async fn blocking<T: Send + 'static>(
    mut spool: Spool,
    work: impl FnOnce(&mut Spool) -> T + Send + 'static,
) -> (Spool, T) {
    let done = spawn_blocking(move || {
        let result = work(&mut spool);
        (spool, result)
    });
    match done.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_by_ids() {
        assert_eq!(directory_name("default/a.b"), "default%2Fa.b");
        assert_eq!(directory_name(".."), "%2E.");
        assert_eq!(
            directory_name("6f1c1f1e-0000-4000-8000-000000000000"),
            "6f1c1f1e-0000-4000-8000-000000000000"
        );
    }
}
