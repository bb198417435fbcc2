//! Lines that come in datagrams: read in batches, and processed as one block.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use relay_engine::{Reason, Tally};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::clock;
use crate::drops::dropped;
use crate::handover::Handover;
use crate::listen::{Listening, Untaken};
use crate::refused::RefusedLine;
use crate::reuseport;
use crate::source::Source;
use crate::worker::{Bench, Scratch};

/// The largest datagram, or what the kernel joins of several, in bytes.
const DATAGRAM_BYTES: usize = 64 << 10;

/// How long a socket that is no longer wanted is read: what comes later goes to another process, if there is one.
const LINGER: Duration = Duration::from_millis(250);

/// How often the kernel is asked what it has dropped.
const LOOK: Duration = Duration::from_secs(1);

/// A socket of one data thread.
pub(crate) struct Receiver {
    pub(crate) socket: std::net::UdpSocket,
    pub(crate) listening: Arc<Listening>,
    /// Dropped when the receiver is done.
    pub(crate) _open: mpsc::Sender<()>,
}

// A socket at work.
struct Work<'a> {
    socket: UdpSocket,
    state: UdpSocketState,
    listening: &'a Arc<Listening>,
    bench: &'a Bench,
    buffers: Box<[u8]>,
    batch: [RecvMeta; BATCH_SIZE],
    // Where in the block the lines of a sender end.
    senders: Vec<(usize, SocketAddr)>,
    handover: Handover,
    drops: Drops,
}

// What was counted of what the kernel has dropped.
#[derive(Default)]
struct Drops(u32);

impl Receiver {
    /// Reads until the listener is no longer wanted, and what came until then.
    pub(crate) async fn run(self, bench: &Bench) {
        let Self {
            socket, listening, ..
        } = self;
        let opened = UdpSocket::from_std(socket).and_then(|socket| {
            let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
            Ok((socket, state))
        });
        let (socket, state) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return warn!(listener = %listening.name, %error, "datagrams cannot be read");
            }
        };
        let mut work = Work {
            socket,
            state,
            listening: &listening,
            bench,
            buffers: vec![0; BATCH_SIZE * DATAGRAM_BYTES].into(),
            batch: [RecvMeta::default(); BATCH_SIZE],
            senders: Vec::new(),
            handover: Handover::default(),
            drops: Drops::default(),
        };
        work.run().await;
    }
}

impl Work<'_> {
    async fn run(&mut self) {
        let listening = self.listening;
        self.read_until(listening.stopped()).await;
        let sockets = self.bench.threads;
        if let Err(error) = reuseport::give_way(&self.socket, sockets) {
            info!(listener = %listening.name, %error, "datagrams that come now may be lost");
        }
        self.read_until(sleep(LINGER)).await;
        // What the kernel has is read to its end.
        while let Ok(count) = self.try_receive() {
            self.process(count);
            self.wait_for_room().await;
        }
        self.drops.count(&self.socket, self.listening);
    }

    async fn read_until(&mut self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut look = look();
        loop {
            let ready = tokio::select! {
                biased;
                () = &mut end => return,
                // Before what is always ready while more comes than is read, which is when datagrams are dropped.
                _ = look.tick() => {
                    self.drops.count(&self.socket, self.listening);
                    continue;
                }
                ready = self.socket.readable() => ready,
            };
            match ready.and_then(|()| self.try_receive()) {
                Ok(count) => self.process(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    warn!(listener = %self.listening.name, %error, "cannot read a datagram");
                    sleep(LOOK).await;
                }
            }
            self.wait_for_room().await;
            yield_now().await;
        }
    }

    // The kernel drops what comes meanwhile, once it has no room either.
    async fn wait_for_room(&mut self) {
        let Self {
            socket,
            listening,
            handover,
            drops,
            ..
        } = self;
        let mut look = look();
        let mut room = pin!(handover.wait_for_room(self.bench));
        loop {
            tokio::select! {
                biased;
                () = &mut room => return,
                _ = look.tick() => drops.count(socket, listening),
            }
        }
    }

    fn try_receive(&mut self) -> io::Result<usize> {
        let Self {
            socket,
            state,
            buffers,
            batch,
            ..
        } = self;
        let mut chunks = buffers.chunks_exact_mut(DATAGRAM_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        socket.try_io(Interest::READABLE, || {
            state.recv(UdpSockRef::from(&*socket), &mut slices, batch)
        })
    }

    // Processes the first `count` of the batch.
    fn process(&mut self, count: usize) {
        let scratch = &mut *self.bench.scratch.borrow_mut();
        let Scratch { buffer, mill, .. } = scratch;
        let plan = self.bench.plan.load();
        let line_bytes_max = self.listening.settings().line_bytes_max();
        let mut filled = 0;
        let mut tally = Tally::default();
        let received = self.batch[..count].iter();
        let mut pieces = received
            .zip(self.buffers.chunks_exact(DATAGRAM_BYTES))
            .flat_map(|(meta, buffer)| {
                let joined = &buffer[..meta.len];
                joined
                    .chunks(meta.stride.max(1))
                    .map(|datagram| (datagram, meta.addr))
            })
            .peekable();
        while let Some((datagram, sender)) = pieces.next() {
            let datagram = match self.listening.takes_datagram(sender.ip(), datagram) {
                Ok(()) => datagram,
                Err(Untaken::NotAllowed) => &[],
                Err(Untaken::RateLimited { lines }) => {
                    tally.drop_lines(Reason::RateLimited, lines);
                    &[]
                }
            };
            buffer[filled..filled + datagram.len()].copy_from_slice(datagram);
            filled += datagram.len();
            if datagram.last().is_some_and(|byte| *byte != b'\n') {
                buffer[filled] = b'\n';
                filled += 1;
            }
            self.senders.push((filled, sender));
            // The last line of a datagram needs no newline, so one may be added.
            let next = pieces.peek().map_or(usize::MAX, |(next, _)| next.len() + 1);
            if next > buffer.len() - filled {
                let block = &buffer[..filled];
                let (bench, listening, senders) = (self.bench, self.listening, &self.senders);
                let refused = |reason: Reason, line: std::ops::Range<usize>| {
                    let sender = senders.partition_point(|(end, _)| *end <= line.start);
                    let Some((_, address)) = senders.get(sender) else {
                        return;
                    };
                    let source = Source::Remote(*address);
                    let line =
                        RefusedLine::new(&block[line], &listening.name, source, clock::now());
                    bench.refused.note(reason, line);
                };
                let handover = &mut self.handover;
                tally += &mill.process(&plan, block, line_bytes_max, handover, refused);
                self.senders.clear();
                filled = 0;
            }
        }
        let joined = |meta: &RecvMeta| meta.len.div_ceil(meta.stride.max(1)).max(1) as u64;
        let datagrams = self.batch[..count].iter().map(joined).sum();
        self.listening
            .datagrams
            .fetch_add(datagrams, Ordering::Relaxed);
        self.bench.count(&self.listening.name, &tally);
    }
}

impl Drops {
    fn count(&mut self, socket: &UdpSocket, listening: &Listening) {
        let dropped = dropped(socket);
        let more = dropped.wrapping_sub(self.0);
        self.0 = dropped;
        listening
            .datagrams_dropped
            .fetch_add(more.into(), Ordering::Relaxed);
    }
}

fn look() -> Interval {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}
