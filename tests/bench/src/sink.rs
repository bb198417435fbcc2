//! What comes out: destinations that count.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    ops::{AddAssign, Mul, Sub},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context as _, Result};

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
    let mut buffer = vec![0; 256 << 10];
    // A relay that is killed resets the connection: the end, like any other.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let tally = Tally::of(&buffer[..length]);
        counters.bytes.fetch_add(tally.bytes, Relaxed);
        counters.byte_sum.fetch_add(tally.byte_sum, Relaxed);
        counters.lines.fetch_add(tally.lines, Relaxed);
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
