//! What comes out: destinations that count, and that tell how late a line is if asked to.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    ops::{AddAssign, Mul, Sub},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::load::Stamp;

const SINK_HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);
const FIRST_PORT: u16 = 13000;

/// What a stream of lines amounts to, in whatever order and pieces it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub lines: u64,
    pub bytes: u64,
    /// All bytes added up: differs when one was changed.
    pub byte_sum: u64,
}

impl Tally {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut tally = Self {
            bytes: bytes.len() as u64,
            ..Self::default()
        };
        // Sums of at most 255 bytes fit small integers, which is what makes this a matter of a few vector instructions.
        for chunk in bytes.chunks(255) {
            tally.lines += u64::from(
                chunk
                    .iter()
                    .map(|byte| u8::from(*byte == b'\n'))
                    .sum::<u8>(),
            );
            tally.byte_sum += u64::from(chunk.iter().map(|byte| u32::from(*byte)).sum::<u32>());
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.byte_sum += other.byte_sum;
    }
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            lines: self.lines - other.lines,
            bytes: self.bytes - other.bytes,
            byte_sum: self.byte_sum - other.byte_sum,
        }
    }
}

impl Mul<u64> for Tally {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self {
            lines: self.lines * times,
            bytes: self.bytes * times,
            byte_sum: self.byte_sum * times,
        }
    }
}

#[derive(Default)]
struct Counters {
    lines: AtomicU64,
    bytes: AtomicU64,
    byte_sum: AtomicU64,
    connections: AtomicU64,
    delays: Mutex<Option<Delays>>,
}

/// How late lines were, in microseconds, each as often as it occurred.
struct Delays {
    epoch: Instant,
    counts: Vec<u64>,
}

/// What the delays amount to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Delays {
    // Later than this is as bad as this.
    const LONGEST: Duration = Duration::from_secs(10);

    fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            counts: vec![0; Self::LONGEST.as_micros() as usize + 1],
        }
    }

    fn add(&mut self, delay: Duration) {
        self.counts[delay.min(Self::LONGEST).as_micros() as usize] += 1;
    }

    fn latency(&self) -> Latency {
        let total: u64 = self.counts.iter().sum();
        let within = |rank: u64| {
            let mut seen = 0;
            let micros = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            micros.unwrap_or(0) as f64 / 1000.0
        };
        Latency {
            p50_ms: within(total.div_ceil(2)),
            p99_ms: within((total * 99).div_ceil(100)),
            max_ms: within(total),
        }
    }
}

/// The sinks, until this program ends.
pub(crate) struct Sinks {
    addresses: Vec<SocketAddrV4>,
    counters: Arc<Counters>,
}

impl Sinks {
    pub(crate) fn open(count: usize) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let mut addresses = Vec::new();
        for (port, _) in (FIRST_PORT..).zip(0..count) {
            let address = SocketAddrV4::new(SINK_HOST, port);
            let listener = TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            let counters = Arc::clone(&counters);
            thread::spawn(move || accept(&listener, &counters));
            addresses.push(address);
        }
        Ok(Self {
            addresses,
            counters,
        })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddrV4] {
        &self.addresses
    }

    /// What all of them got so far.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            lines: self.counters.lines.load(Relaxed),
            bytes: self.counters.bytes.load(Relaxed),
            byte_sum: self.counters.byte_sum.load(Relaxed),
        }
    }

    /// From here on every line has a stamp of its time since `epoch`.
    pub(crate) fn read_stamps(&self, epoch: Instant) {
        *self.delays() = Some(Delays::new(epoch));
    }

    /// What the stamps said, if they were read; they no longer are.
    pub(crate) fn latency(&self) -> Option<Latency> {
        self.delays().take().map(|delays| delays.latency())
    }

    fn delays(&self) -> MutexGuard<'_, Option<Delays>> {
        self.counters
            .delays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> u64 {
        self.counters.connections.load(Relaxed)
    }
}

fn accept(listener: &TcpListener, counters: &Arc<Counters>) {
    for stream in listener.incoming() {
        let stream = stream.expect("a sink can accept");
        counters.connections.fetch_add(1, Relaxed);
        let counters = Arc::clone(counters);
        thread::spawn(move || {
            count(stream, &counters);
            counters.connections.fetch_sub(1, Relaxed);
        });
    }
}

fn count(mut stream: TcpStream, counters: &Counters) {
    // In front of what is read, the end of what was read before: a stamp may be cut in two.
    const TAIL: usize = Stamp::WIDTH + Stamp::AFTER;
    let mut buffer = vec![0; TAIL + (256 << 10)];
    // A relay that is killed resets the connection: the end, like any other.
    while let Ok(length @ 1..) = stream.read(&mut buffer[TAIL..]) {
        let read = &buffer[TAIL..TAIL + length];
        let tally = Tally::of(read);
        let mut delays = counters
            .delays
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(delays) = delays.as_mut() {
            let now = delays.epoch.elapsed();
            let newlines = read.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (at, _) in newlines {
                // `at` counts from behind the tail, so that the stamp of this line starts this far into the buffer.
                let start = at + 1;
                let stamp = Stamp::read(&buffer[start..start + Stamp::WIDTH]);
                delays.add(stamp.map_or(Delays::LONGEST, |due| now.saturating_sub(due)));
            }
        }
        drop(delays);
        counters.bytes.fetch_add(tally.bytes, Relaxed);
        counters.byte_sum.fetch_add(tally.byte_sum, Relaxed);
        counters.lines.fetch_add(tally.lines, Relaxed);
        buffer.copy_within(length..TAIL + length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_does_not_depend_on_how_the_bytes_were_cut() {
        let text = "a.b 1 2\n".repeat(1000) + "rest";
        let whole = Tally::of(text.as_bytes());
        let mut cut = Tally::default();
        text.as_bytes()
            .chunks(7)
            .for_each(|chunk| cut += Tally::of(chunk));
        assert_eq!(cut, whole);
        assert_eq!((whole.lines, whole.bytes), (1000, 8004));
        assert_eq!(whole.byte_sum, text.bytes().map(u64::from).sum::<u64>());
    }
}
