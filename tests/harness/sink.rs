//! A carbon server that keeps what it gets, byte for byte.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{DEADLINE, eventually, own_address};

/// A plain TCP server on an address of its own, port 2003. It can stop reading, go away and come back.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    receive_buffer: Option<usize>,
    shared: Arc<Shared>,
    server: Option<Server>,
}

/// What came over one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// Whether the peer closed it, and cleanly.
    pub closed: bool,
}

#[derive(Debug)]
struct Server {
    listener: Arc<TcpListener>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    connections: Vec<Connection>,
    // Newlines in all connections: what is asked for again and again while waiting.
    lines: usize,
    open: Vec<(Arc<TcpStream>, JoinHandle<()>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    // Reads this many more bytes, then stops reading.
    Open(usize),
    // Reads nothing, and lets go of every connection.
    Closing,
}

impl Sink {
    /// A sink that listens.
    pub fn open() -> Self {
        let mut sink = Self::absent();
        sink.reopen();
        sink
    }

    /// A sink that nobody can reach yet.
    pub fn absent() -> Self {
        let state = State {
            gate: Gate::Open(usize::MAX),
            connections: Vec::new(),
            lines: 0,
            open: Vec::new(),
        };
        Self {
            address: (own_address(), 2003).into(),
            receive_buffer: None,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            server: None,
        }
    }

    /// A sink that listens and reads nothing, and whose kernel takes little for it.
    pub fn stuck() -> Self {
        let mut sink = Self::absent();
        sink.receive_buffer = Some(4096);
        sink.pause_after(0);
        sink.reopen();
        sink
    }

    /// Where it listens, or will.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens, after [`Sink::close`] on the same port.
    ///
    /// # Panics
    /// If it listens already.
    pub fn reopen(&mut self) {
        assert!(self.server.is_none(), "the sink is open already");
        let listener = Arc::new(self.listen());
        let mut state = self.shared.lock();
        if state.gate == Gate::Closing {
            state.gate = Gate::Open(usize::MAX);
        }
        drop(state);
        let (shared, accepting) = (Arc::clone(&self.shared), Arc::clone(&listener));
        let acceptor = thread::spawn(move || accept(&shared, &accepting));
        self.server = Some(Server { listener, acceptor });
    }

    fn listen(&self) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        socket
            .set_reuse_address(true)
            .expect("sockets have this option");
        if let Some(bytes) = self.receive_buffer {
            socket
                .set_recv_buffer_size(bytes)
                .expect("sockets have this option");
        }
        let address = self.address;
        let bound = socket.bind(&address.into());
        bound.unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
        socket.listen(128).expect("a bound socket can listen");
        socket.into()
    }

    /// Goes away: no more connections, and those there are end. What they had sent and nobody read makes that a reset.
    pub fn close(&mut self) {
        let Some(Server { listener, acceptor }) = self.server.take() else {
            return;
        };
        // wakes up the thread in accept()
        SockRef::from(&*listener)
            .shutdown(Shutdown::Both)
            .expect("a listener can be shut down");
        acceptor.join().expect("accepting does not panic");
        drop(listener);
        let open = {
            let mut state = self.shared.lock();
            state.gate = Gate::Closing;
            std::mem::take(&mut state.open)
        };
        self.shared.changed.notify_all();
        for (stream, reader) in open {
            // wakes up the thread in peek(), without telling the peer; an error means that the peer has gone first
            stream.shutdown(Shutdown::Read).ok();
            reader.join().expect("reading does not panic");
        }
    }

    /// Reads this many more bytes, then none.
    pub fn pause_after(&self, bytes: usize) {
        self.shared.lock().gate = Gate::Open(bytes);
        self.shared.changed.notify_all();
    }

    /// Reads again.
    pub fn resume(&self) {
        self.pause_after(usize::MAX);
    }

    /// Every connection there was, in the order of their beginning.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.lock().connections.clone()
    }

    /// Everything that came, one connection after the other.
    pub fn text(&self) -> String {
        let state = self.shared.lock();
        let bytes: Vec<u8> = state
            .connections
            .iter()
            .flat_map(|c| &c.bytes)
            .copied()
            .collect();
        String::from_utf8(bytes).expect("only ASCII is forwarded")
    }

    /// The lines that came, one connection after the other.
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// How many lines came.
    pub fn line_count(&self) -> usize {
        self.shared.lock().lines
    }

    /// The values of each series, in the order in which they came.
    ///
    /// # Panics
    /// If a line is not a whole one of [`crate::numbered_line`].
    pub fn values(&self) -> BTreeMap<String, Vec<u64>> {
        let text = self.text();
        let mut values: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let (name, number) = numbered(line).unwrap_or_else(|| panic!("a torn line: '{line}'"));
            values.entry(name).or_default().push(number);
        }
        let owned = values
            .into_iter()
            .map(|(name, values)| (name.to_owned(), values));
        owned.collect()
    }

    /// Waits until the peer has closed every connection, cleanly: nothing more will come over them.
    ///
    /// # Panics
    /// If it has not in time.
    pub fn wait_until_closed(&self) {
        let what = format!(
            "every connection to the sink on {} to be closed",
            self.address
        );
        eventually(DEADLINE, &what, || {
            match self
                .shared
                .lock()
                .connections
                .iter()
                .filter(|c| !c.closed)
                .count()
            {
                0 => Ok(()),
                open => Err(format!("{open} are not")),
            }
        });
    }

    /// Waits until this many connections have been made.
    ///
    /// # Panics
    /// If there are fewer in time.
    pub fn wait_for_connections(&self, count: usize) {
        let what = format!("{count} connections to the sink on {}", self.address);
        eventually(DEADLINE, &what, || {
            match self.shared.lock().connections.len() {
                found if found >= count => Ok(()),
                found => Err(format!("{found} were made")),
            }
        });
    }

    /// Waits until this many lines have come, and returns all that have.
    ///
    /// # Panics
    /// If there are fewer in time, or more.
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        let what = format!("{count} lines at the sink on {}", self.address);
        eventually(DEADLINE, &what, || match self.line_count() {
            found if found >= count => Ok(()),
            found => Err(format!("{found} came")),
        });
        let lines = self.lines();
        assert_eq!(lines.len(), count, "more lines than that came: {lines:?}");
        lines
    }
}

// The series and the number of a line of `numbered_line`.
fn numbered(line: &str) -> Option<(&str, u64)> {
    let mut fields = line.split(' ');
    let (name, number, time) = (fields.next()?, fields.next()?, fields.next()?);
    let (number, time): (u64, u64) = (number.parse().ok()?, time.parse().ok()?);
    let is_whole = time == 1_700_000_000 + number && fields.next().is_none();
    is_whole.then_some((name, number))
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Waits until bytes may be read; with how many. `None`: let go.
    fn pass(&self) -> (MutexGuard<'_, State>, Option<usize>) {
        let state = self.lock();
        let waiting = |state: &mut State| state.gate == Gate::Open(0);
        let state = self.changed.wait_while(state, waiting);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let budget = match state.gate {
            Gate::Open(bytes) => Some(bytes),
            Gate::Closing => None,
        };
        (state, budget)
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    // an error means that the listener was shut down
    while let Ok((stream, _)) = listener.accept() {
        let stream = Arc::new(stream);
        let mut state = shared.lock();
        let index = state.connections.len();
        state.connections.push(Connection::default());
        let (reading, into) = (Arc::clone(&stream), Arc::clone(shared));
        let reader = thread::spawn(move || into.record(index, &reading));
        state.open.push((stream, reader));
    }
}

impl Shared {
    // Takes bytes out of the kernel only while holding the lock, so that nothing is read once the gate is shut.
    fn record(&self, index: usize, mut stream: &TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let end = stream.peek(&mut [0]);
            let (mut state, budget) = self.pass();
            let Some(budget) = budget else { return };
            let closed = match end {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if closed {
                state.connections[index].closed = true;
                // as a real server: its side ends too; an error means that the peer has gone for good meanwhile
                stream.shutdown(Shutdown::Write).ok();
                return;
            }
            let room = budget.min(buffer.len());
            let Ok(read) = stream.read(&mut buffer[..room]) else {
                return;
            };
            let bytes = &buffer[..read];
            state.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
            state.connections[index].bytes.extend_from_slice(bytes);
            if budget < usize::MAX {
                state.gate = Gate::Open(budget - read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sender;

    #[test]
    fn bytes_are_kept_by_connection() {
        let sink = Sink::open();
        Sender::deliver(sink.address(), "a 1 1\nb");
        let mut sender = Sender::connect(sink.address());
        sender.send("c 1 1\n");
        assert_eq!(sink.wait_for_lines(2), ["a 1 1", "bc 1 1"]);
        sender.reset();
        let of = |bytes: &str, closed| Connection {
            bytes: bytes.into(),
            closed,
        };
        assert_eq!(
            sink.connections(),
            [of("a 1 1\nb", true), of("c 1 1\n", false)]
        );
    }

    #[test]
    fn reading_stops_where_it_is_told_to() {
        let sink = Sink::open();
        sink.pause_after(8);
        let mut sender = Sender::connect(sink.address());
        sender.send("a 1 1\nb 1 1\n");
        eventually(DEADLINE, "eight bytes", || match sink.text().as_str() {
            "a 1 1\nb " => Ok(()),
            text => Err(text.into()),
        });
        sink.resume();
        assert_eq!(sink.wait_for_lines(2), ["a 1 1", "b 1 1"]);
    }

    #[test]
    fn a_sink_that_goes_away_comes_back_on_its_port() {
        let mut sink = Sink::stuck();
        let mut sender = Sender::connect(sink.address());
        sender.send("a 1 1\n");
        sink.close();
        sender.wait_until_closed();
        assert_eq!(sink.line_count(), 0);
        let refused = TcpStream::connect(sink.address()).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        sink.reopen();
        Sender::connect(sink.address()).send("b 1 1\n");
        assert_eq!(sink.wait_for_lines(1), ["b 1 1"]);
    }
}
