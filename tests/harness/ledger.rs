//! A carbon server for many millions of lines: it keeps of each only that it came.

use std::io::Read as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{DEADLINE, eventually, own_address};

/// What is read at a time, in bytes.
const READ_BYTES: usize = 128 << 10;

/// The series whose lines only say when they came.
const PROBE: &str = "probe.a";

/// A TCP server on an address of its own, port 2003, for lines of [`crate::numbered_line`] of one series. It can be slow, go
/// away and come back.
#[derive(Debug)]
pub struct Ledger {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<(Arc<TcpListener>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Shared {
    // Bytes a second; u64::MAX: as fast as it can.
    pace: AtomicU64,
    closing: AtomicBool,
    book: Mutex<Book>,
    open: Mutex<Vec<Open>>,
}

type Open = (Arc<TcpStream>, JoinHandle<()>);

#[derive(Debug, Default)]
struct Book {
    // A bit for each number.
    seen: Vec<u64>,
    distinct: u64,
    lines: u64,
    // The first line that is none.
    torn: Option<String>,
    // When the probes came, by number.
    probes: Vec<Option<Instant>>,
}

impl Ledger {
    /// One that listens.
    pub fn open() -> Self {
        let mut ledger = Self::absent();
        ledger.reopen();
        ledger
    }

    /// One that nobody can reach yet.
    pub fn absent() -> Self {
        Self::at((own_address(), 2003).into())
    }

    /// One at an address, that nobody can reach yet.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            shared: Arc::new(Shared {
                pace: AtomicU64::new(u64::MAX),
                closing: AtomicBool::new(false),
                book: Mutex::default(),
                open: Mutex::default(),
            }),
            server: None,
        }
    }

    /// Where it listens, or will.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens.
    ///
    /// # Panics
    /// If it cannot.
    pub fn reopen(&mut self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        socket
            .set_reuse_address(true)
            .expect("sockets have this option");
        let address = self.address;
        let bound = socket.bind(&address.into());
        bound.unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
        socket.listen(128).expect("a bound socket can listen");
        let listener = Arc::new(TcpListener::from(socket));
        self.shared.closing.store(false, Ordering::Relaxed);
        let (shared, accepting) = (Arc::clone(&self.shared), Arc::clone(&listener));
        let acceptor = thread::spawn(move || accept(&shared, &accepting));
        self.server = Some((listener, acceptor));
    }

    /// Goes away as a process does that is killed: what was not read is lost.
    ///
    /// # Panics
    /// If one of its threads has.
    pub fn close(&mut self) {
        let Some((listener, acceptor)) = self.server.take() else {
            return;
        };
        // wakes up the thread in accept()
        SockRef::from(&*listener)
            .shutdown(Shutdown::Both)
            .expect("a listener can be shut down");
        acceptor.join().expect("accepting does not panic");
        self.shared.closing.store(true, Ordering::Relaxed);
        let open = std::mem::take(&mut *lock(&self.shared.open));
        for (stream, reader) in open {
            // wakes up the thread in read(); an error means that the peer has gone first
            stream.shutdown(Shutdown::Read).ok();
            reader.join().expect("reading does not panic");
        }
    }

    /// Reads at most this many bytes a second from now on, over each connection; `None`: as fast as it can.
    pub fn set_pace(&self, bytes_per_second: Option<u64>) {
        let pace = bytes_per_second.unwrap_or(u64::MAX);
        self.shared.pace.store(pace, Ordering::Relaxed);
    }

    /// Waits until every connection has ended and all that came over them was read.
    ///
    /// # Panics
    /// If one has not in time.
    pub fn wait_until_left(&self) {
        eventually(DEADLINE, "every connection to end", || {
            let open = lock(&self.shared.open);
            match open
                .iter()
                .filter(|(_, reader)| !reader.is_finished())
                .count()
            {
                0 => Ok(()),
                open => Err(format!("{open} have not")),
            }
        });
    }

    /// How many different numbers came.
    pub fn distinct(&self) -> u64 {
        self.book().distinct
    }

    /// How many lines came that had come before.
    pub fn twice(&self) -> u64 {
        let book = self.book();
        book.lines - book.distinct
    }

    /// The first number below `end` that did not come.
    ///
    /// # Panics
    /// If a line came that was torn or merged.
    pub fn first_missing(&self, end: u64) -> Option<u64> {
        let book = self.book();
        assert_eq!(book.torn, None, "a line that was never sent");
        (0..end).find(|number| !book.has(*number))
    }

    /// Waits until every number below `end` has come.
    ///
    /// # Panics
    /// If they have not in time, or a line came that was torn or merged.
    pub fn wait_for_all(&self, end: u64, deadline: Duration) {
        eventually(deadline, &format!("all of {end} lines"), || {
            let distinct = self.distinct();
            if distinct < end {
                return Err(format!("{distinct} came"));
            }
            match self.first_missing(end) {
                None => Ok(()),
                Some(first) => Err(format!("{distinct} came, {first} did not")),
            }
        });
    }

    /// Waits until all but `missing` numbers below `end` have come.
    ///
    /// # Panics
    /// If they have not in time, or more came than that, or a line that was torn or merged.
    pub fn wait_for_all_but(&self, end: u64, missing: u64, deadline: Duration) {
        let what = format!("all but {missing} of {end} lines");
        eventually(deadline, &what, || match self.distinct() {
            distinct if distinct >= end - missing => Ok(()),
            distinct => Err(format!("{distinct} came")),
        });
        assert_eq!(self.missing(end).len() as u64, missing);
    }

    /// The numbers below `end` that did not come.
    ///
    /// # Panics
    /// If a line came that was torn or merged.
    pub fn missing(&self, end: u64) -> Vec<u64> {
        let book = self.book();
        assert_eq!(book.torn, None, "a line that was never sent");
        (0..end).filter(|number| !book.has(*number)).collect()
    }

    /// When a probe came.
    pub fn probe(&self, number: usize) -> Option<Instant> {
        self.book().probes.get(number).copied().flatten()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    // an error means that the listener was shut down
    while let Ok((stream, _)) = listener.accept() {
        let stream = Arc::new(stream);
        let (reading, into) = (Arc::clone(&stream), Arc::clone(shared));
        let reader = thread::spawn(move || into.keep_book(&reading));
        lock(&shared.open).push((stream, reader));
    }
}

impl Shared {
    fn keep_book(&self, mut stream: &TcpStream) {
        let mut buffer = vec![0; READ_BYTES];
        let mut filled: usize = 0;
        loop {
            let pace = self.pace.load(Ordering::Relaxed);
            let most = usize::try_from(pace / 10).unwrap_or(usize::MAX).max(1);
            let end = buffer.len().min(filled.saturating_add(most));
            let Ok(read) = stream.read(&mut buffer[filled..end]) else {
                return;
            };
            if read == 0 || self.closing.load(Ordering::Relaxed) {
                // What is cut is no line.
                stream.shutdown(Shutdown::Both).ok();
                return;
            }
            filled += read;
            let whole = buffer[..filled].iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |newline| newline + 1);
            lock(&self.book).enter(&buffer[..whole]);
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
            if pace < u64::MAX {
                thread::sleep(Duration::from_secs_f64(read as f64 / pace as f64));
            }
        }
    }
}

impl Book {
    fn enter(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            match parsed(line) {
                Some((b"load.a", number)) => self.see(number),
                Some((name, number)) if name == PROBE.as_bytes() => {
                    let number = number as usize;
                    if self.probes.len() <= number {
                        self.probes.resize(number + 1, None);
                    }
                    self.probes[number].get_or_insert_with(Instant::now);
                }
                _ => {
                    let line = || String::from_utf8_lossy(line).into_owned();
                    self.torn.get_or_insert_with(line);
                }
            }
        }
    }

    fn see(&mut self, number: u64) {
        let (place, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= place {
            self.seen.resize(place + 1, 0);
        }
        self.lines += 1;
        self.distinct += u64::from(self.seen[place] & bit == 0);
        self.seen[place] |= bit;
    }

    fn has(&self, number: u64) -> bool {
        let word = self.seen.get((number / 64) as usize);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

// The name and the number of a line of `numbered_line`.
fn parsed(line: &[u8]) -> Option<(&[u8], u64)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (name, number, time) = (fields.next()?, fields.next()?, fields.next()?);
    let (number, time) = (decimal(number)?, decimal(time)?);
    (time == 1_700_000_000 + number && fields.next().is_none()).then_some((name, number))
}

fn decimal(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sender;

    #[test]
    fn it_knows_what_came_how_often_and_what_did_not() {
        let ledger = Ledger::open();
        let mut sender = Sender::connect(ledger.address());
        sender.send_numbers("load.a", 0, 100);
        sender.send_numbers("load.a", 90, 110);
        sender.send_numbers("load.a", 111, 112);
        sender.send_numbers("probe.a", 3, 4);
        eventually(DEADLINE, "the probe", || {
            ledger.probe(3).ok_or_else(|| "not there".to_owned())
        });
        assert_eq!((ledger.distinct(), ledger.twice()), (111, 10));
        assert_eq!(ledger.first_missing(110), None);
        assert_eq!(ledger.first_missing(112), Some(110));
        assert_eq!(ledger.probe(0), None);
    }

    #[test]
    #[should_panic(expected = "a line that was never sent")]
    fn a_merged_line_is_noticed() {
        let ledger = Ledger::open();
        Sender::deliver(ledger.address(), "load.a 1 17load.a 2 1700000002\n");
        Sender::deliver(ledger.address(), "load.a 0 1700000000\n");
        ledger.wait_for_all(1, DEADLINE);
    }
}
