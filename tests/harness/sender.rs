//! Programs that send lines.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{DEADLINE, eventually};

/// The line of a series whose values count up from zero, so that order and loss can be seen where it arrives.
pub fn numbered_line(name: &str, number: u64) -> String {
    let mut line = String::new();
    push_line(&mut line, name, number);
    line
}

fn push_line(lines: &mut String, name: &str, number: u64) {
    let time = 1_700_000_000 + number;
    writeln!(lines, "{name} {number} {time}").expect("a string takes everything");
}

fn numbered_lines(name: &str, first: u64, end: u64) -> String {
    (first..end)
        .map(|number| numbered_line(name, number))
        .collect()
}

/// A connection to a relay.
#[derive(Debug)]
pub struct Sender(TcpStream);

/// How far a sender came before its peer stopped taking bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// How many lines were begun.
    pub begun: u64,
    /// What is still to be sent of the last of them.
    pub rest: String,
}

impl Sender {
    /// Connects.
    ///
    /// # Panics
    /// If nobody listens there.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE);
        Self::of(stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")))
    }

    /// Connects from another address of this machine.
    ///
    /// # Panics
    /// If nobody listens there, or the address is not this machine's.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect_timeout(&address.into(), DEADLINE)?;
            io::Result::Ok(socket)
        };
        let socket = connect();
        let socket = socket.unwrap_or_else(|error| panic!("{source} to {address}: {error}"));
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP has this option");
        let sender = Self(stream);
        sender.patience(DEADLINE);
        sender
    }

    /// Connects, sends these bytes, and closes: when this returns, the peer has read everything.
    ///
    /// # Panics
    /// If the peer does not take it.
    pub fn deliver(address: SocketAddr, bytes: impl AsRef<[u8]>) {
        let mut sender = Self::connect(address);
        sender.send(bytes);
        sender.close();
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// If the peer is gone, or does not take them in time.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0
            .write_all(bytes.as_ref())
            .expect("the peer takes what is sent");
    }

    /// Sends the lines of a series from `first` to the one before `end`.
    ///
    /// # Panics
    /// If the peer is gone, or does not take them in time.
    pub fn send_numbers(&mut self, name: &str, first: u64, end: u64) {
        self.send(numbered_lines(name, first, end));
    }

    /// Sends a series until the peer has not taken a byte for a second.
    ///
    /// # Panics
    /// If the peer takes `bytes_max` without making the sender wait.
    #[expect(
        clippy::disallowed_methods,
        reason = "a peer that stalls may take part of a line, and the test must know which part"
    )]
    pub fn send_until_stalled(&mut self, name: &str, bytes_max: usize) -> Stalled {
        self.patience(Duration::from_secs(1));
        let mut taken = 0;
        for first in (0..).step_by(BATCH as usize) {
            let lines = numbered_lines(name, first, first + BATCH);
            let mut rest = lines.as_str();
            while !rest.is_empty() {
                match self.0.write(rest.as_bytes()) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.patience(DEADLINE);
                        let whole = rest.lines().count() as u64;
                        let sent = &lines[..lines.len() - rest.len()];
                        let is_cut = !sent.is_empty() && !sent.ends_with('\n');
                        let begun = first + BATCH - whole + u64::from(is_cut);
                        let end = if is_cut {
                            rest.find('\n').map_or(0, |end| end + 1)
                        } else {
                            0
                        };
                        return Stalled {
                            begun,
                            rest: rest[..end].to_owned(),
                        };
                    }
                    Err(error) => panic!("the peer is gone: {error}"),
                }
            }
            taken += lines.len();
            assert!(
                taken < bytes_max,
                "{taken} bytes were taken without making the sender wait"
            );
        }
        unreachable!("there is always another number")
    }

    /// Says that no more will come, and waits until the peer has closed too: by then it has read everything.
    ///
    /// # Panics
    /// If it does not close in time.
    pub fn close(mut self) {
        self.0
            .shutdown(Shutdown::Write)
            .expect("an open connection can be shut down");
        self.wait_until_closed();
    }

    /// Goes away with a reset, as the kernel of a program that crashed may do.
    pub fn reset(self) {
        let socket = SockRef::from(&self.0);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("sockets have this option");
    }

    /// Waits until the peer has closed the connection.
    ///
    /// # Panics
    /// If it does not, or sends something.
    pub fn wait_until_closed(&mut self) {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => {}
            Ok(_) => panic!("carbon's protocol has no answers"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the peer did not close the connection: {error}"),
        }
    }

    /// Sends these bytes after a pause, as a slow sender does. The peer may be gone.
    pub fn trickle(&mut self, bytes: impl AsRef<[u8]>) {
        std::thread::sleep(Duration::from_millis(20));
        drop(self.0.write_all(bytes.as_ref()));
    }

    /// Whether the peer has closed the connection, at this moment.
    ///
    /// # Panics
    /// If it sent something.
    pub fn is_closed(&mut self) -> bool {
        self.0
            .set_nonblocking(true)
            .expect("sockets have this option");
        let read = self.0.read(&mut [0; 64]);
        self.0
            .set_nonblocking(false)
            .expect("sockets have this option");
        match read {
            Ok(0) => true,
            Ok(_) => panic!("carbon's protocol has no answers"),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn patience(&self, patience: Duration) {
        self.0
            .set_write_timeout(Some(patience))
            .expect("sockets have this option");
        self.0
            .set_read_timeout(Some(patience))
            .expect("sockets have this option");
    }
}

/// A sender at full speed: one series, numbered, in the background.
#[derive(Debug)]
pub struct Flood {
    progress: Arc<Progress>,
    sender: JoinHandle<io::Result<Sender>>,
}

#[derive(Debug, Default)]
struct Progress {
    enough: AtomicBool,
    sent: AtomicU64,
}

// Lines in a write: some 3 KiB, as a busy collector writes.
const BATCH: u64 = 100;

impl Flood {
    /// Begins to send the series `name`, as fast as the peer takes it.
    pub fn start(address: SocketAddr, name: &str) -> Self {
        Self::paced(address, name, u64::MAX)
    }

    /// Begins to send the series `name`, this many lines a second at most.
    pub fn paced(address: SocketAddr, name: &str, lines_per_second: u64) -> Self {
        let progress = Arc::new(Progress::default());
        let (name, shared) = (name.to_owned(), Arc::clone(&progress));
        let mut sender = Sender::connect(address);
        let sender = thread::spawn(move || {
            let began = Instant::now();
            let mut sent = 0;
            let mut lines = String::new();
            while !shared.enough.load(Ordering::Relaxed) {
                lines.clear();
                for number in sent..sent + BATCH {
                    push_line(&mut lines, &name, number);
                }
                sender.0.write_all(lines.as_bytes())?;
                sent += BATCH;
                shared.sent.store(sent, Ordering::Relaxed);
                let due = began + Duration::from_secs_f64(sent as f64 / lines_per_second as f64);
                let early = due.saturating_duration_since(Instant::now());
                // Naps that are too short cost more than they save.
                if early > Duration::from_millis(1) {
                    thread::sleep(early);
                }
            }
            Ok(sender)
        });
        Self { progress, sender }
    }

    /// How many lines were handed over so far.
    pub fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many more lines were sent.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_more(&self, lines: u64) {
        let goal = self.sent() + lines;
        eventually(
            DEADLINE,
            &format!("{lines} more lines to be sent"),
            || match self.sent() {
                sent if sent >= goal => Ok(()),
                sent => Err(format!("{sent} of {goal} were")),
            },
        );
    }

    /// Stops, closes cleanly, and returns how many lines were sent.
    ///
    /// # Panics
    /// If the connection was lost.
    pub fn finish(self) -> u64 {
        self.progress.enough.store(true, Ordering::Relaxed);
        let sender = self.sender.join().expect("sending does not panic");
        sender.expect("the connection holds to the end").close();
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Waits until the peer has ended the connection; what was being sent then is lost.
    ///
    /// # Panics
    /// If the peer does not end it.
    pub fn wait_until_cut(self) {
        eventually(DEADLINE, "the peer to end the connection", || {
            match self.sender.is_finished() {
                true => Ok(()),
                false => {
                    let sent = self.progress.sent.load(Ordering::Relaxed);
                    Err(format!("{sent} lines were sent and it goes on"))
                }
            }
        });
        self.sender
            .join()
            .expect("sending does not panic")
            .expect_err("the peer ends this");
    }
}

/// Senders that connect anew for every few lines, in the background, and panic if they are refused or reset.
#[derive(Debug)]
pub struct Callers {
    enough: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

/// Lines that a caller sends before it closes.
const LINES_PER_CALL: u64 = 10;

impl Callers {
    /// Begins to call with `count` callers. `line` makes the line of a caller with a number.
    pub fn start(address: SocketAddr, count: usize, line: fn(usize, u64) -> String) -> Self {
        let (enough, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..count).map(|caller| {
            let (enough, calls) = (Arc::clone(&enough), Arc::clone(&calls));
            thread::spawn(move || {
                let mut sent = 0;
                while !enough.load(Ordering::Relaxed) {
                    let end = sent + LINES_PER_CALL;
                    let lines: String = (sent..end).map(|number| line(caller, number)).collect();
                    Sender::deliver(address, lines);
                    sent = end;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                sent
            })
        });
        Self {
            threads: threads.collect(),
            enough,
            calls,
        }
    }

    /// Waits until this many more calls were made.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_more(&self, calls: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        eventually(DEADLINE, "more calls", || {
            match self.calls.load(Ordering::Relaxed) {
                calls if calls >= goal => Ok(()),
                calls => Err(format!("{calls} of {goal}")),
            }
        });
    }

    /// Stops, and returns how many lines each caller has sent.
    ///
    /// # Panics
    /// If one was refused or reset.
    pub fn finish(self) -> Vec<u64> {
        self.enough.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads
            .map(|thread| thread.join().expect("nobody is refused"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sink;

    #[test]
    fn a_flood_counts_what_it_sent() {
        let sink = Sink::open();
        let flood = Flood::start(sink.address(), "load.a");
        flood.wait_for_more(1_000);
        let sent = flood.finish();
        assert_eq!(sink.values()["load.a"], (0..sent).collect::<Vec<_>>());
    }

    #[test]
    fn a_stalled_sender_knows_what_is_left_of_its_line() {
        let sink = Sink::stuck();
        let mut sender = Sender::connect(sink.address());
        let stalled = sender.send_until_stalled("load.a", 64 << 20);
        sink.resume();
        sender.send(&stalled.rest);
        sender.send_numbers("load.a", stalled.begun, stalled.begun + 3);
        sink.wait_for_lines(stalled.begun as usize + 3);
        assert_eq!(
            sink.values()["load.a"],
            (0..stalled.begun + 3).collect::<Vec<_>>()
        );
    }

    #[test]
    #[should_panic(expected = "without making the sender wait")]
    fn a_sender_that_is_never_stalled_gives_up() {
        let sink = Sink::open();
        Sender::connect(sink.address()).send_until_stalled("load.a", 100_000);
    }

    #[test]
    fn a_closed_connection_is_noticed() {
        let mut sink = Sink::open();
        let mut sender = Sender::connect(sink.address());
        sink.wait_for_connections(1);
        assert!(!sender.is_closed());
        sink.close();
        sender.wait_until_closed();
        assert!(sender.is_closed());
    }
}
