//! One connection of a sender: bytes in, whole lines to the engine, what comes out to the queues.
//!
//! A connection owns no buffer but for the line that is not yet whole; it reads into its thread's. So ten thousand idle
//! connections cost next to nothing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use relay_engine::{Moment, Plaintext, Reason, Tally};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::handover::Handover;
use crate::listen::{Listening, Seat};
use crate::partial::{NoRoom, Partial};
use crate::refused::RefusedLine;
use crate::stream::Stream;
use crate::worker::{Bench, LoadGuard, Phase, Scratch};

/// Reads in a row before other connections of the thread have their turn.
const READS_PER_TURN: usize = 4;

/// When the relay stops, a connection on which nothing comes for this long has no more to say.
const QUIET: Duration = Duration::from_millis(100);

/// When the relay stops, a connection is read this far, in bytes: beyond what the kernels at both ends usually hold, so that
/// all that was sent before is read, however long the sender goes on.
const SENT_BYTES_MAX: usize = 16 << 20;

/// A connection on its way to a data thread.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    /// Who connected.
    pub(crate) source: SocketAddr,
    pub(crate) listening: Arc<Listening>,
    /// Its place among the listener's connections.
    pub(crate) seat: Seat,
    pub(crate) load: Option<LoadGuard>,
    /// Dropped when the connection is done.
    pub(crate) open: mpsc::Sender<()>,
}

/// Serves a connection to its end.
pub(crate) async fn serve(accepted: Accepted, bench: &Bench) {
    let Accepted {
        stream,
        source,
        listening,
        seat: _seat,
        load: _load,
        open: _open,
    } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return warn!(%error, "a connection cannot be served"),
    };
    let stream = match listening.tls() {
        None => Stream::Plain(stream),
        Some(tls) => {
            let accepted = tokio::select! {
                accepted = Stream::accept(stream, tls) => accepted,
                () = bench.reached(Phase::HandingOver) => return,
            };
            match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    listening.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                    debug!(listener = %listening.name, %source, %error, "TLS was not agreed on");
                    return;
                }
            }
        }
    };
    let mut connection = Connection {
        stream,
        source,
        listening,
        bench,
        partial: Partial::new(&bench.partial_room),
        skipping: false,
        last_line: Instant::now(),
        handover: Handover::default(),
    };
    let end = connection.read_to_end().await;
    connection.finish(end).await;
}

struct Connection<'a> {
    stream: Stream,
    source: SocketAddr,
    listening: Arc<Listening>,
    bench: &'a Bench,
    // The line that is not yet whole.
    partial: Partial<'a>,
    // Within a line that is too long, or had no room, which was counted already.
    skipping: bool,
    // When a line was last whole.
    last_line: Instant,
    handover: Handover,
}

// How a connection ended.
enum End {
    // The sender closed it, having said everything.
    Clean,
    // No line came for too long.
    Idle,
    // The relay or the listener stops.
    Stopped,
    Failed(io::Error),
}

impl Connection<'_> {
    async fn read_to_end(&mut self) -> End {
        let (bench, listening) = (self.bench, Arc::clone(&self.listening));
        let mut stopping = pin!(async {
            tokio::select! {
                () = bench.reached(Phase::Reading) => {}
                () = listening.stopped() => {}
            }
        });
        let mut idle = pin!(idle_since(self.last_line, &listening));
        let mut reads = 0;
        loop {
            let read = tokio::select! {
                biased;
                () = &mut stopping => return self.read_what_was_sent().await,
                read = self.read_block() => read,
                () = &mut idle => {
                    if is_idle(self.last_line, &listening) {
                        return End::Idle;
                    }
                    idle.set(idle_since(self.last_line, &listening));
                    continue;
                }
            };
            match read {
                Ok(0) => return End::Clean,
                Ok(_) => self.handover.wait_for_room(self.bench).await,
                Err(error) => return End::Failed(error),
            }
            reads += 1;
            if reads % READS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }

    // The relay stops: tells the sender so, and reads until it closes, falls silent, or has been read long enough.
    async fn read_what_was_sent(&mut self) -> End {
        if let Err(error) = self.stream.end().await {
            debug!(%error, "the sender is gone already");
        }
        let bench = self.bench;
        let mut enough = pin!(bench.reached(Phase::HandingOver));
        let mut bytes = 0;
        while bytes < SENT_BYTES_MAX {
            let read = tokio::select! {
                biased;
                () = &mut enough => return End::Stopped,
                read = timeout(QUIET, self.read_block()) => read,
            };
            match read {
                Err(_) => return End::Stopped,
                Ok(Ok(0)) => return End::Clean,
                Ok(Ok(read)) => {
                    bytes += read;
                    self.handover.wait_for_room(self.bench).await;
                }
                Ok(Err(error)) => return End::Failed(error),
            }
        }
        End::Stopped
    }

    // Reads what there is, up to a buffer full, and processes the lines that are whole. Returns the bytes read; 0 at the end.
    async fn read_block(&mut self) -> io::Result<usize> {
        let bench = self.bench;
        poll_fn(|context| {
            let scratch = &mut *bench.scratch.borrow_mut();
            let begun = self.partial.bytes().len();
            scratch.buffer[..begun].copy_from_slice(self.partial.bytes());
            let mut buffer = ReadBuf::new(&mut scratch.buffer[begun..]);
            ready!(self.stream.poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            if read > 0 {
                self.process(scratch, begun + read);
            }
            Poll::Ready(Ok(read))
        })
        .await
    }

    fn process(&mut self, scratch: &mut Scratch, filled: usize) {
        let Plaintext { line_bytes_max, .. } = self.listening.settings().plaintext;
        let Scratch {
            buffer,
            engine,
            outbox,
        } = scratch;
        let bytes = &buffer[..filled];
        let mut tally = Tally::default();
        let end = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
        let (mut block, rest) = bytes.split_at(end);
        if end > 0 {
            self.last_line = Instant::now();
        }
        if self.skipping
            && let Some(newline) = memchr::memchr(b'\n', block)
        {
            block = &block[newline + 1..];
            self.skipping = false;
        }
        if !block.is_empty() {
            let plan = self.bench.plan.load();
            let is_live = |lane| plan.producer(lane).is_live();
            let moment = Moment {
                now: clock::now(),
                stamp: clock::stamp(),
                is_live: &is_live,
            };
            tally = engine.process(&plan.table, block, line_bytes_max, moment, outbox);
            self.handover.hand_over(&plan, outbox);
            for (reason, line) in engine.take_refused() {
                self.note_refused(reason, &block[line]);
            }
        }
        self.keep(rest, line_bytes_max, &mut tally);
        self.bench.count(&self.listening.name, &tally);
    }

    // Keeps the beginning of a line for the next read.
    fn keep(&mut self, rest: &[u8], line_bytes_max: usize, tally: &mut Tally) {
        let beginning = if self.skipping { &[] } else { rest };
        let reason = match beginning.len() > line_bytes_max {
            true => Some(Reason::LineTooLong),
            false => self
                .partial
                .keep(beginning)
                .err()
                .map(|NoRoom| Reason::NoRoom),
        };
        if let Some(reason) = reason {
            tally.drop_line(reason);
            self.note_refused(reason, rest);
            self.skipping = true;
            self.partial.clear();
        }
    }

    fn note_refused(&self, reason: Reason, line: &[u8]) {
        let line = RefusedLine::new(line, &self.listening.name, self.source, clock::now());
        self.bench.refused.note(reason, line);
    }

    async fn finish(&mut self, end: End) {
        match &end {
            End::Clean | End::Stopped => {}
            End::Idle => {
                debug!(listener = %self.listening.name, "closed a connection that was idle")
            }
            End::Failed(error) => {
                debug!(listener = %self.listening.name, %error, "a connection failed")
            }
        }
        self.finish_line(&end).await;
        if let Err(error) = self.stream.close().await {
            debug!(listener = %self.listening.name, %error, "the sender is gone already");
        }
    }

    // A line that ends with its connection counts as a line if the sender closed in good order; otherwise it was cut.
    async fn finish_line(&mut self, end: &End) {
        if self.partial.bytes().is_empty() {
            return;
        }
        if let End::Clean = end {
            let bench = self.bench;
            let scratch = &mut *bench.scratch.borrow_mut();
            let length = self.partial.bytes().len();
            scratch.buffer[..length].copy_from_slice(self.partial.bytes());
            scratch.buffer[length] = b'\n';
            self.process(scratch, length + 1);
        } else {
            let mut tally = Tally::default();
            tally.drop_line(Reason::Truncated);
            self.note_refused(Reason::Truncated, self.partial.bytes());
            self.bench.count(&self.listening.name, &tally);
        }
        self.handover.wait_for_room(self.bench).await;
    }
}

async fn idle_since(last_line: Instant, listening: &Listening) {
    match listening.settings().plaintext.idle_timeout {
        Some(limit) => sleep_until(last_line + limit).await,
        None => std::future::pending().await,
    }
}

fn is_idle(last_line: Instant, listening: &Listening) -> bool {
    listening
        .settings()
        .plaintext
        .idle_timeout
        .is_some_and(|limit| last_line.elapsed() >= limit)
}
