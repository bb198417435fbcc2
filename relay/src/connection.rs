//! One connection of a sender: bytes in, whole lines to the engine, what comes out to the queues.
//!
//! ```text
//! stream ─▶ lines ─────────────────────▶ the engine ─▶ queues
//!       └─▶ frames ─▶ points ─▶ lines ─▶
//! ```
//!
//! A connection owns no buffer but for what is not yet whole; it reads into its thread's. So ten thousand idle connections
//! cost next to nothing.

mod frames;
mod lines;

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_engine::{Protocol, Reason, Tally};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::handover::Handover;
use crate::listen::{Listening, Seat, Socket, SourceSeat};
use crate::refused::RefusedLine;
use crate::source::Source;
use crate::stream::{Stream, Transport};
use crate::worker::{Bench, LoadGuard, Phase};
use frames::Frames;
use lines::Lines;

/// Reads in a row before other connections of the thread have their turn.
const READS_PER_TURN: usize = 4;

/// When the relay stops, a connection on which nothing comes for this long has no more to say.
const QUIET: Duration = Duration::from_millis(100);

/// When the relay stops, a connection is read this far, in bytes: beyond what the kernels at both ends usually hold, so that
/// all that was sent before is read, however long the sender goes on.
const SENT_BYTES_MAX: usize = 16 << 20;

/// A connection on its way to a data thread.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// Who connected.
    pub(crate) source: Source,
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
        socket,
        source,
        listening,
        seat: _seat,
        load: _load,
        open: _open,
    } = accepted;
    let opened = tokio::select! {
        opened = Opened::of(socket, source, &listening) => opened,
        () = bench.reached(Phase::HandingOver) => return,
    };
    let Opened {
        stream,
        source,
        seat: source_seat,
    } = match opened {
        Ok(opened) => opened,
        Err(error) => return error.tell(source, &listening),
    };
    let framing = match listening.settings().protocol {
        Protocol::Plaintext(_) => Framing::Lines(Lines::new(&bench.partial_room)),
        Protocol::Framed(format, _) => Framing::Frames(Frames::new(format)),
    };
    let origin = Origin {
        source,
        listening,
        bench,
        unpaced: Cell::new(0),
    };
    let peer = Peer {
        stream,
        source_seat,
        origin,
        last_whole: Instant::now(),
        handover: Handover::default(),
    };
    let mut connection = Connection { peer, framing };
    let end = connection.read_to_end().await;
    connection.finish(end).await;
}

// A connection that can be read.
struct Opened {
    stream: Stream,
    source: Source,
    // `None`: it is from this machine.
    seat: Option<SourceSeat>,
}

// Why a connection is not read.
enum NotOpened {
    Unusable(io::Error),
    ProxyHeader(io::Error),
    NotAdmitted,
    Tls(io::Error),
}

impl Opened {
    // Where it comes from, then who it is, then how it is compressed.
    async fn of(socket: Socket, source: Source, listening: &Listening) -> Result<Self, NotOpened> {
        let has_header = listening.settings().has_proxy_header;
        let transport = match socket {
            Socket::Remote(stream) => {
                Transport::Plain(TcpStream::from_std(stream).map_err(NotOpened::Unusable)?)
            }
            Socket::Local(stream) => {
                Transport::Local(UnixStream::from_std(stream).map_err(NotOpened::Unusable)?)
            }
        };
        let (transport, told) = match has_header {
            true => transport
                .read_proxy_header()
                .await
                .map_err(NotOpened::ProxyHeader)?,
            false => (transport, None),
        };
        let source = told.map_or(source, Source::Remote);
        let seat = match source {
            Source::Local | Source::Broker => None,
            Source::Remote(address) => {
                let seat = listening.admit(address.ip());
                Some(seat.ok_or(NotOpened::NotAdmitted)?)
            }
        };
        let transport = match listening.tls() {
            None => transport,
            Some(tls) => transport.accept(tls).await.map_err(NotOpened::Tls)?,
        };
        let compression = listening.settings().compression;
        let stream = Stream::new(transport, compression).map_err(NotOpened::Unusable)?;
        Ok(Self {
            stream,
            source,
            seat,
        })
    }
}

impl NotOpened {
    fn tell(self, source: Source, listening: &Listening) {
        let listener = &listening.name;
        match self {
            Self::Unusable(error) => warn!(%error, "a connection cannot be served"),
            Self::ProxyHeader(error) => {
                let count = &listening.proxy_headers_invalid;
                count.fetch_add(1, Ordering::Relaxed);
                debug!(%listener, %source, %error, "a connection has no PROXY header");
            }
            Self::NotAdmitted => debug!(%listener, %source, "a source may not connect"),
            Self::Tls(error) => {
                listening.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                debug!(%listener, %source, %error, "TLS was not agreed on");
            }
        }
    }
}

struct Connection<'a> {
    peer: Peer<'a>,
    framing: Framing<'a>,
}

/// Whom a connection is to, and what becomes of what is read.
struct Peer<'a> {
    stream: Stream,
    source_seat: Option<SourceSeat>,
    origin: Origin<'a>,
    // When a line or a frame was last whole.
    last_whole: Instant,
    handover: Handover,
}

/// Where what is read comes from, and the thread that has it.
struct Origin<'a> {
    source: Source,
    listening: Arc<Listening>,
    bench: &'a Bench,
    // Lines that came and have yet to count against what the source may send.
    unpaced: Cell<u64>,
}

/// What is whole in a stream.
enum Framing<'a> {
    Lines(Lines<'a>),
    Frames(Frames),
}

/// How a connection ended.
enum End {
    // The sender closed it, having said everything.
    Clean,
    // Nothing was finished for too long.
    Idle,
    // The relay or the listener stops.
    Stopped,
    Failed(io::Error),
}

impl Connection<'_> {
    async fn read_to_end(&mut self) -> End {
        let (bench, listening) = (
            self.peer.origin.bench,
            Arc::clone(&self.peer.origin.listening),
        );
        let mut stopping = pin!(async {
            tokio::select! {
                () = bench.reached(Phase::Reading) => {}
                () = listening.stopped() => {}
            }
        });
        let mut idle = pin!(idle_since(self.peer.last_whole, &listening));
        let mut reads = 0;
        loop {
            let read = tokio::select! {
                biased;
                () = &mut stopping => return self.read_what_was_sent().await,
                read = self.read() => read,
                () = &mut idle => {
                    if self.waits_for_room() {
                        // The sender can do nothing about that.
                        self.peer.last_whole = Instant::now();
                    }
                    if is_idle(self.peer.last_whole, &listening) {
                        return End::Idle;
                    }
                    idle.set(idle_since(self.peer.last_whole, &listening));
                    continue;
                }
            };
            let settled = match read {
                Ok(0) => return End::Clean,
                Ok(_) => self.settle().await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                return End::Failed(error);
            }
            reads += 1;
            if reads % READS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }

    // The relay stops: tells the sender so, and reads until it closes, falls silent, or has been read long enough.
    async fn read_what_was_sent(&mut self) -> End {
        if let Err(error) = self.peer.stream.end().await {
            debug!(%error, "the sender is gone already");
        }
        let bench = self.peer.origin.bench;
        let mut enough = pin!(bench.reached(Phase::HandingOver));
        let mut bytes = 0;
        while bytes < SENT_BYTES_MAX {
            let read = tokio::select! {
                biased;
                () = &mut enough => return End::Stopped,
                read = timeout(QUIET, self.read()) => read,
            };
            let settled = match read {
                Err(_) => return End::Stopped,
                Ok(Ok(0)) => return End::Clean,
                Ok(Ok(read)) => {
                    bytes += read;
                    self.settle().await
                }
                Ok(Err(error)) => Err(error),
            };
            if let Err(error) = settled {
                return End::Failed(error);
            }
        }
        End::Stopped
    }

    // Reads what there is. Returns the bytes read; 0 at the end. Nothing is lost when this is dropped before it resolves.
    async fn read(&mut self) -> io::Result<usize> {
        match &mut self.framing {
            Framing::Lines(lines) => lines.read(&mut self.peer).await,
            Framing::Frames(frames) => frames.read(&mut self.peer).await,
        }
    }

    fn waits_for_room(&self) -> bool {
        match &self.framing {
            Framing::Lines(_) => false,
            Framing::Frames(frames) => frames.wants_room(),
        }
    }

    // Processes what was read, as far as it is whole, and waits until queues have it.
    async fn settle(&mut self) -> io::Result<()> {
        match &mut self.framing {
            Framing::Lines(_) => {}
            Framing::Frames(frames) => frames.process(&mut self.peer).await?,
        }
        self.peer
            .handover
            .wait_for_room(self.peer.origin.bench)
            .await;
        self.peer.slow_down().await;
        Ok(())
    }

    async fn finish(&mut self, end: End) {
        let listener = &self.peer.origin.listening.name;
        match &end {
            End::Clean | End::Stopped => {}
            End::Idle => debug!(%listener, "closed a connection that was idle"),
            End::Failed(error) => debug!(%listener, %error, "a connection failed"),
        }
        match &mut self.framing {
            Framing::Lines(lines) => lines.finish(&end, &mut self.peer),
            Framing::Frames(frames) => frames.finish(&mut self.peer),
        }
        if self.peer.stream.has_rest() {
            let mut tally = Tally::default();
            tally.drop_line(Reason::FrameInvalid);
            self.peer.origin.note_refused(Reason::FrameInvalid, b"");
            self.peer.origin.count(&tally);
        }
        self.peer
            .handover
            .wait_for_room(self.peer.origin.bench)
            .await;
        if let Err(error) = self.peer.stream.close().await {
            debug!(listener = %self.peer.origin.listening.name, %error, "the sender is gone already");
        }
    }
}

impl Peer<'_> {
    // Waits until the source may send more, unless the relay stops: what was sent is read then.
    async fn slow_down(&mut self) {
        let lines = self.origin.unpaced.replace(0);
        let Origin {
            listening, bench, ..
        } = &self.origin;
        let limit = listening.settings().lines_per_second_per_source;
        let (Some(limit), Some(seat)) = (limit, &self.source_seat) else {
            return;
        };
        let wait = seat.take(lines, limit);
        if wait.is_zero() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => self.last_whole = Instant::now(),
            () = bench.reached(Phase::Reading) => {}
            () = listening.stopped() => {}
        }
    }
}

impl Origin<'_> {
    fn note_refused(&self, reason: Reason, line: &[u8]) {
        let line = RefusedLine::new(line, &self.listening.name, self.source, clock::now());
        self.bench.refused.note(reason, line);
    }

    fn count(&self, tally: &Tally) {
        self.unpaced.set(self.unpaced.get() + tally.received);
        self.bench.count(&self.listening.name, tally);
    }
}

async fn idle_since(last_whole: Instant, listening: &Listening) {
    match listening.settings().idle_timeout() {
        Some(limit) => sleep_until(last_whole + limit).await,
        None => std::future::pending().await,
    }
}

fn is_idle(last_whole: Instant, listening: &Listening) -> bool {
    let limit = listening.settings().idle_timeout();
    limit.is_some_and(|limit| last_whole.elapsed() >= limit)
}
