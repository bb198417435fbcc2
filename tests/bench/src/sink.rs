//! What comes out: destinations that count, and that tell how late a line is if asked to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
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

use relay_wire::pickle::Decoder;
use relay_wire::{FRAME_HEADER_BYTES, Points};

use crate::{cases::Output, kafka::Broker, load::Stamp};

const SINK_HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);
const FIRST_PORT: u16 = 13000;
const BROKER: SocketAddrV4 = SocketAddrV4::new(SINK_HOST, 9092);

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
    // What connections that are made from here on bring.
    form: Mutex<Output>,
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
    // Runs as long as they do.
    _broker: Option<Broker>,
    counters: Arc<Counters>,
}

impl Sinks {
    pub(crate) fn open(count: usize, has_broker: bool) -> Result<Self> {
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
        let broker = has_broker.then(|| Broker::start(BROKER)).transpose()?;
        Ok(Self {
            addresses,
            _broker: broker,
            counters,
        })
    }

    /// Where these are taken.
    pub(crate) fn addresses(&self, form: Output) -> &[SocketAddrV4] {
        match form {
            Output::Lines | Output::Pickle | Output::RemoteWrite => &self.addresses,
            Output::Kafka => &[BROKER],
        }
    }

    /// From here on connections bring this.
    pub(crate) fn expect(&self, form: Output) {
        *lock(&self.counters.form) = form;
    }

    /// What all of them got so far; of what are no lines only how many points.
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
        lock(&self.counters.delays)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> u64 {
        self.counters.connections.load(Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, counters: &Arc<Counters>) {
    for stream in listener.incoming() {
        let stream = stream.expect("a sink can accept");
        counters.connections.fetch_add(1, Relaxed);
        let counters = Arc::clone(counters);
        thread::spawn(move || {
            let form = *lock(&counters.form);
            match form {
                Output::Lines => count(stream, &counters),
                // What ends in a reset ends there.
                Output::Pickle => drop(count_pickles(stream, &counters)),
                Output::RemoteWrite => drop(count_samples(stream, &counters)),
                Output::Kafka => {}
            }
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
        let mut delays = lock(&counters.delays);
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

fn count_pickles(stream: TcpStream, counters: &Counters) -> Result<()> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let (mut decoder, mut points, mut frame) = (Decoder::default(), Points::default(), Vec::new());
    loop {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header)?;
        frame.resize(u32::from_be_bytes(header) as usize, 0);
        stream.read_exact(&mut frame)?;
        decoder.decode(&frame, &mut points)?;
        counters.lines.fetch_add(points.len() as u64, Relaxed);
    }
}

// Requests of Prometheus' remote-write protocol; each is taken.
fn count_samples(stream: TcpStream, counters: &Counters) -> Result<()> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut snappy = snap::raw::Decoder::new();
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.to_ascii_lowercase().trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                None if line == "\r\n" => break,
                Some(_) | None => {}
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
        let samples = series(&snappy.decompress_vec(&body)?).context("not a WriteRequest")?;
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        counters.lines.fetch_add(samples, Relaxed);
    }
}

// How many there are in a WriteRequest, each with one sample: its only field is field 1, of bytes.
fn series(mut request: &[u8]) -> Option<u64> {
    let mut count = 0;
    while let Some(rest) = request.strip_prefix(&[0x0a]) {
        let varint = rest.iter().position(|byte| *byte < 0x80)? + 1;
        let length = rest[..varint]
            .iter()
            .rev()
            .fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        request = rest.get(varint + length..)?;
        count += 1;
    }
    request.is_empty().then_some(count)
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
