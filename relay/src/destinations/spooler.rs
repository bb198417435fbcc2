//! What waits on disk for one destination: keeps its spool, on a thread that may block, beside the sender.
//!
//! ```text
//! queue ── too old, or too much ──▶ spool ── batches, while connected ──▶ sender
//!                                     ▲                                     │
//!                                     └── what was handed over, what must go again ┘
//! ```
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
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::queue::{Chunk, Queue};
use crate::clock;

/// What is read from the spool at a time, in bytes: enough that reading does not count, little enough to go beside what
/// comes in without being noticed.
const BATCH_BYTES: usize = 256 << 10;

/// Batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// Requests that may wait for the disk.
const REQUESTS_MAX: usize = 4;

/// How long until a spool that cannot be opened is tried again: another process may be about to let go of it.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// The sender's end.
#[derive(Debug)]
pub(crate) struct SpoolHandle {
    requests: mpsc::Sender<Request>,
    batches: mpsc::Receiver<Batch>,
    handed_over: HandedOver,
    // Batches of earlier ones are void.
    generation: u64,
}

/// The end of what was handed over and is not yet acknowledged to the spool.
type HandedOver = Arc<Mutex<Option<Position>>>;

/// Lines from the spool.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) chunk: Chunk,
    generation: u64,
}

#[derive(Debug)]
enum Request {
    /// There is a connection. Batches are sent from what is not acknowledged on, as this generation.
    Connected(u64),
    Disconnected,
    /// Keep lines that were handed over once and may not have arrived.
    Resend(VecDeque<Chunk>),
    /// Keep these lines, which still count as queued, and all that the queue has.
    Finish(VecDeque<Chunk>, oneshot::Sender<()>),
}

/// One destination's spool, and what it works with.
#[derive(Debug)]
pub(crate) struct Spooler {
    queue: Arc<Queue>,
    settings: watch::Receiver<relay_engine::Destination>,
    directory: PathBuf,
    requests: mpsc::Receiver<Request>,
    batches: mpsc::Sender<Batch>,
    handed_over: HandedOver,
    // Of the connection that there is.
    generation: Option<u64>,
    // Reading may find something.
    has_more: bool,
    // The disk failed, and that was said.
    is_failing: bool,
}

impl SpoolHandle {
    /// The two ends of what waits on disk for a destination, in a directory of its own within `directory`.
    pub(crate) fn new(
        queue: &Arc<Queue>,
        settings: &watch::Receiver<relay_engine::Destination>,
        directory: &Path,
    ) -> (Self, Spooler) {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (batches_out, batches) = mpsc::channel(BATCHES_AHEAD);
        let handed_over = HandedOver::default();
        let name = directory_name(&settings.borrow().id);
        let spooler = Spooler {
            queue: Arc::clone(queue),
            settings: settings.clone(),
            directory: directory.join(name),
            requests: inbox,
            batches: batches_out,
            handed_over: Arc::clone(&handed_over),
            generation: None,
            has_more: false,
            is_failing: false,
        };
        let handle = Self {
            requests,
            batches,
            handed_over,
            generation: 0,
        };
        (handle, spooler)
    }

    /// Asks for batches from now on.
    pub(crate) async fn connected(&mut self) {
        self.generation += 1;
        self.ask(Request::Connected(self.generation)).await;
    }

    /// Asks for no more batches. Those that were not handed over come again on the next connection.
    pub(crate) async fn disconnected(&mut self) {
        self.ask(Request::Disconnected).await;
    }

    /// The next batch; waits for it.
    pub(crate) async fn next(&mut self) -> Batch {
        loop {
            match self.batches.recv().await {
                Some(batch) if batch.generation == self.generation => return batch,
                Some(_) => {}
                // The spooler ends after the sender only.
                None => std::future::pending().await,
            }
        }
    }

    /// The next batch, if it is there.
    pub(crate) fn try_next(&mut self) -> Option<Batch> {
        let batch = self.batches.try_recv().ok()?;
        (batch.generation == self.generation).then_some(batch)
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

    /// Keeps `chunks` and all that the queue has, and resolves when they outlive a crash.
    pub(crate) async fn finish(&self, chunks: VecDeque<Chunk>) {
        let (done, finished) = oneshot::channel();
        self.ask(Request::Finish(chunks, done)).await;
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
    /// Works until the sender is done.
    pub(crate) async fn run(mut self) {
        let Some(mut spool) = self.open().await else {
            return;
        };
        let mut period = self.period();
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wants_batches = self.generation.is_some() && self.has_more;
            spool = tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Request::Finish(chunks, done)) => {
                        spool = self.keep_all(spool, chunks).await;
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
                () = self.queue.crowded() => self.move_overdue(spool).await,
                _ = ticks.tick() => {
                    if period != self.period() {
                        period = self.period();
                        ticks = interval(period);
                    }
                    let spool = self.move_overdue(spool).await;
                    self.sync(spool).await
                }
                permit = self.batches.clone().reserve_owned(), if wants_batches => match permit {
                    Ok(permit) => {
                        let (spool, batch) = self.read(spool).await;
                        if let Some(batch) = batch {
                            permit.send(batch);
                        }
                        spool
                    }
                    Err(_) => return,
                },
            };
        }
    }

    // Opens the spool when there is to be one. `None`: the sender is done. Until it is open, requests are answered as if
    // there were none, and the queue drops what has no room in it.
    async fn open(&mut self) -> Option<Spool> {
        let mut is_said = false;
        loop {
            let destination = self.settings.borrow_and_update().clone();
            let wanted = destination.spool.is_some() || self.directory.exists();
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
                        let figures = spool.figures();
                        if figures.recovered > 0 {
                            info!(
                                destination = &*destination.name,
                                lines = figures.recovered,
                                "lines wait on disk"
                            );
                        }
                        self.has_more = figures.waiting > 0;
                        self.queue.set_spooled(figures);
                        self.queue.set_spools(true);
                        return Some(spool);
                    }
                    Ok(Err(error)) if !is_said => {
                        is_said = true;
                        warn!(destination = &*destination.name, %error, "the spool cannot be used; what has no room in memory is dropped until it can");
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return None,
                }
            }
            tokio::select! {
                request = self.requests.recv() => match request? {
                    Request::Connected(generation) => self.generation = Some(generation),
                    Request::Disconnected => self.generation = None,
                    Request::Resend(chunks) => self.queue.resend(chunks),
                    Request::Finish(mut chunks, done) => {
                        self.queue.give_up(&mut chunks, super::queue::Loss::Shutdown);
                        if done.send(()).is_err() {
                            return None;
                        }
                    }
                },
                changed = self.settings.changed(), if !wanted => if changed.is_err() {
                    // No more changes: only the sender's end counts now.
                    sleep(OPEN_AGAIN).await;
                },
                () = sleep(OPEN_AGAIN), if wanted => {}
            }
        }
    }

    async fn answer(&mut self, spool: Spool, request: Request) -> Spool {
        match request {
            Request::Connected(generation) => {
                self.generation = Some(generation);
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
            Request::Disconnected => {
                self.generation = None;
                spool
            }
            Request::Resend(chunks) => {
                let lines = chunks.iter().map(|chunk| chunk.lines).sum();
                let (spool, _) = self.append(spool, chunks).await;
                self.queue.resent_to_spool(lines, spool.figures());
                spool
            }
            Request::Finish(..) => spool,
        }
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
        let mut chunks = VecDeque::new();
        self.queue.take_overdue(self.period(), &mut chunks);
        self.keep(spool, chunks).await
    }

    async fn keep_all(&mut self, spool: Spool, chunks: VecDeque<Chunk>) -> Spool {
        let mut spool = self.keep(spool, chunks).await;
        let mut rest = VecDeque::new();
        self.queue.take_overdue(Duration::ZERO, &mut rest);
        spool = self.keep(spool, rest).await;
        self.sync(spool).await
    }

    // Keeps chunks that still count as queued.
    async fn keep(&mut self, spool: Spool, chunks: VecDeque<Chunk>) -> Spool {
        if chunks.is_empty() {
            return spool;
        }
        let (spool, (bytes, lines)) = self.append(spool, chunks).await;
        self.queue.moved_to_spool(bytes, lines, spool.figures());
        spool
    }

    // What the spool does not take it counts. Returns the bytes and lines of the chunks.
    async fn append(&mut self, spool: Spool, chunks: VecDeque<Chunk>) -> (Spool, (usize, u64)) {
        let (spool, (bytes, lines, failed)) = blocking(spool, move |spool| {
            let (mut bytes, mut lines, mut failed) = (0, 0, None);
            for chunk in chunks {
                bytes += chunk.bytes.len();
                lines += chunk.lines;
                if let Err(error) = spool.append(&chunk.bytes, chunk.lines) {
                    failed = Some(error);
                }
            }
            (bytes, lines, failed)
        })
        .await;
        self.has_more = true;
        self.say(failed);
        (spool, (bytes, lines))
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

    async fn read(&mut self, spool: Spool) -> (Spool, Option<Batch>) {
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
            Ok(Some(batch)) => Some(Batch {
                chunk: Chunk {
                    bytes: Bytes::from(bytes),
                    lines: batch.lines,
                    spooled: Some(batch.end),
                },
                generation: self.generation.unwrap_or_default(),
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
