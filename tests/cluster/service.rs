//! What stands between processes in a cluster: the Service of the operator, and the way to the API server.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use harness::{DEADLINE, Process, Signal, own_address};

use crate::installation::operator_count;

/// What the Service of the operator is in a cluster: connections go to one that listens, which is the one that leads.
pub(crate) struct Service {
    address: Ipv4Addr,
    operators: Arc<Mutex<Vec<(Ipv4Addr, Process)>>>,
}

impl Service {
    pub(crate) fn open() -> Self {
        let address = own_address();
        let operators = Arc::<Mutex<Vec<(Ipv4Addr, Process)>>>::default();
        let known = Arc::clone(&operators);
        let servers = move || {
            let known = known.lock().unwrap();
            let addresses = known.iter().map(|(address, _)| *address);
            addresses.map(|address| (address, 8090).into()).collect()
        };
        forward((address, 8090).into(), servers, Connections::default());
        Self { address, operators }
    }

    /// What relays call it.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Has connections go to one more operator.
    pub(crate) fn route_to(&self, operator: (Ipv4Addr, Process)) {
        self.operators.lock().unwrap().push(operator);
    }

    fn leads(address: Ipv4Addr) -> bool {
        operator_count(address, "carbonway_operator_leading", &[]) == 1
    }

    /// How many say that they lead.
    pub(crate) fn leaders(&self) -> usize {
        let operators = self.operators.lock().unwrap();
        operators
            .iter()
            .filter(|(address, _)| Self::leads(*address))
            .count()
    }

    /// Kills the one that leads, or tells it to stop.
    pub(crate) fn remove_the_leader(&self, is_killed: bool) {
        let mut operators = self.operators.lock().unwrap();
        let leader = operators
            .iter()
            .position(|(address, _)| Self::leads(*address));
        let (_, mut leader) = operators.remove(leader.expect("one leads"));
        if is_killed {
            leader.kill();
        } else {
            leader.signal(Signal::TERM);
            assert_eq!(leader.wait(DEADLINE).code(), Some(0));
        }
    }

    /// Removes those that ended by themselves, and says how many.
    pub(crate) fn remove_the_dead(&self) -> usize {
        let mut operators = self.operators.lock().unwrap();
        let before = operators.len();
        operators.retain_mut(|(_, operator)| operator.exited().is_none());
        before - operators.len()
    }

    /// Kills all of them.
    pub(crate) fn clear(&self) {
        self.operators.lock().unwrap().clear();
    }
}

impl Drop for Service {
    // What hands connections on has them, too.
    fn drop(&mut self) {
        self.clear();
    }
}

/// A way to a server that can be cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    connections: Connections,
}

type Connections = Arc<Mutex<Vec<TcpStream>>>;

impl Way {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let address = (own_address(), 6443).into();
        let connections = Connections::default();
        forward(address, move || vec![server], Arc::clone(&connections));
        Self {
            address,
            connections,
        }
    }

    /// Ends all connections that there are.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

// Hands each connection to the first server that takes it.
fn forward(
    address: SocketAddr,
    servers: impl Fn() -> Vec<SocketAddr> + Send + 'static,
    connections: Connections,
) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut servers = servers().into_iter();
            if let Some(server) = servers.find_map(|server| TcpStream::connect(server).ok()) {
                let known = client.try_clone().unwrap();
                connections.lock().unwrap().push(known);
                copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                copy(server, client);
            }
        }
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // However it ends, both ends hear of it.
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    });
}
