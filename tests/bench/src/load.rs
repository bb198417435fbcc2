//! What goes in: lines of about 60 bytes, over a few connections at once, as fast as the relay takes them.

use std::{
    io::Write as _,
    net::{SocketAddrV4, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::sink::Tally;

const SERIES: u64 = 100_000;
const CONNECTIONS: u64 = 4;
// A relay may push back, but one that takes nothing for this long hangs.
const STALL: Duration = Duration::from_secs(60);

/// Whether the relay has seen a line's name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Each pass over the series has the same names.
    Repeat,
    /// Each pass has names that no pass before it had.
    New,
}

/// Sends whole passes over the series, about `lines` in all, and says what was sent.
///
/// # Errors
/// The relay refused or closed a connection, or stopped reading.
pub(crate) fn send(to: SocketAddrV4, names: Names, lines: u64) -> Result<Tally> {
    let passes = lines.div_ceil(SERIES);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| scope.spawn(move || send_share(to, names, passes, connection)))
            .collect();
        let mut sent = Tally::default();
        for sender in senders {
            sent += sender.join().expect("a sender does not panic")?;
        }
        Ok(sent)
    })
}

fn send_share(to: SocketAddrV4, names: Names, passes: u64, connection: u64) -> Result<Tally> {
    let mut share = Share::new(connection);
    let mut stream = TcpStream::connect(to).context("cannot connect to the relay")?;
    stream.set_write_timeout(Some(STALL))?;
    let mut sent = Tally::default();
    for pass in 0..passes {
        if names == Names::New {
            share.rename(pass);
        }
        stream
            .write_all(&share.lines)
            .context("the relay stopped reading")?;
        sent += share.tally;
    }
    Ok(sent)
}

/// One pass over one connection's part of the series.
struct Share {
    lines: Vec<u8>,
    /// Where in `lines` the part of each name starts that changes with the pass.
    pass_fields: Vec<usize>,
    tally: Tally,
}

impl Share {
    fn new(connection: u64) -> Self {
        const ROLES: [&str; 5] = ["web", "db", "cache", "queue", "edge"];
        const LEAVES: [&str; 6] = [
            "cpu.user",
            "cpu.system",
            "mem.used",
            "net.eth0.rx_bytes",
            "disk.sda.await",
            "http.p99",
        ];
        let mut lines = Vec::new();
        let mut pass_fields = Vec::new();
        for series in (connection..SERIES).step_by(CONNECTIONS as usize) {
            let leaf = LEAVES[(series % 6) as usize];
            let host = series / 6;
            let role = ROLES[(host % 5) as usize];
            let datacentre = host % 4;
            lines.extend_from_slice(b"servers.");
            pass_fields.push(lines.len());
            let rest = format!(
                "p000000.dc{datacentre}.{role}-{host:05}.{leaf} {}.{:02} 1700000000\n",
                series % 1000,
                series % 100
            );
            lines.extend_from_slice(rest.as_bytes());
        }
        let tally = Tally::of(&lines);
        Self {
            lines,
            pass_fields,
            tally,
        }
    }

    fn rename(&mut self, pass: u64) {
        let digits = format!("p{pass:06}");
        for at in &self.pass_fields {
            self.lines[*at..at + digits.len()].copy_from_slice(digits.as_bytes());
        }
        self.tally = Tally::of(&self.lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_one_pass_over_the_series() {
        let mut names: Vec<String> = (0..CONNECTIONS)
            .flat_map(|connection| {
                let text = String::from_utf8(Share::new(connection).lines).unwrap();
                text.lines()
                    .map(|line| line.split(' ').next().unwrap().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len() as u64, SERIES);
    }

    #[test]
    fn renamed_pass_has_other_names_and_its_own_tally() {
        let (first, mut second) = (Share::new(0), Share::new(0));
        second.rename(1);
        let line = |share: &Share| String::from_utf8_lossy(&share.lines[..60]).into_owned();
        assert!(line(&first).starts_with("servers.p000000.dc0."));
        assert!(line(&second).starts_with("servers.p000001.dc0."));
        assert_eq!(second.tally.lines, first.tally.lines);
        assert_eq!(
            second.tally.byte_sum,
            first.tally.byte_sum + first.tally.lines
        );
    }
}
