//! What goes in: lines of about 60 bytes, over a few connections at once, as fast as the relay takes them or at a pace.

use std::{
    io::Write as _,
    net::{SocketAddrV4, TcpStream, UdpSocket},
    ops::Range,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use relay_wire::pickle;

use crate::{
    cases::{Case, Input},
    sink::Tally,
};

const SERIES: u64 = 100_000;
const CONNECTIONS: u64 = 4;
// A relay may push back, but one that takes nothing for this long hangs.
const STALL: Duration = Duration::from_secs(60);
// What fits into an Ethernet frame, with its headers.
const DATAGRAM_BYTES_MAX: usize = 1432;
// At a pace, what is due is sent once in this time.
const SLICE: Duration = Duration::from_millis(1);

/// How lines are sent, and what changes in them from one pass over the series to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// As fast as the relay takes them; every pass has the same names.
    Flood,
    /// As fast as the relay takes them; every pass has names that no pass before it had.
    FloodOfNewNames,
    /// As fast as the relay takes them, every pass measured when it is sent.
    FloodOfNow,
    /// A thousand times a second, on every connection, so many lines. Their value is when they were due: see [`Stamp`].
    Paced { lines_per_slice: usize },
}

/// A value that says when its line was due: microseconds since a moment that sender and sink know, as a number of fixed
/// width just before the timestamp.
pub(crate) struct Stamp;

impl Stamp {
    pub(crate) const WIDTH: usize = 12;
    /// A space, the timestamp, the newline.
    pub(crate) const AFTER: usize = 12;

    fn write(field: &mut [u8], since_epoch: Duration) {
        field.copy_from_slice(format!("{:012}", since_epoch.as_micros()).as_bytes());
    }

    pub(crate) fn read(field: &[u8]) -> Option<Duration> {
        let micros = str::from_utf8(field).ok()?.parse().ok()?;
        Some(Duration::from_micros(micros))
    }
}

/// Sends whole passes over the series, about `lines` in all, and says what was sent. Stamps count from `epoch`.
///
/// # Errors
/// The relay refused or closed a connection, or stopped reading.
pub(crate) fn send(to: SocketAddrV4, case: &Case, lines: u64, epoch: Instant) -> Result<Tally> {
    let (load, input) = (case.load, case.input);
    let passes = lines.div_ceil(SERIES);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn(move || {
                    let stream = Stream::open(to, input)?;
                    let share = Share::new(connection);
                    match load {
                        Load::Flood | Load::FloodOfNewNames | Load::FloodOfNow => {
                            flood(stream, share, load, passes)
                        }
                        Load::Paced { lines_per_slice } => {
                            pace(stream, share, lines_per_slice, passes, epoch)
                        }
                    }
                })
            })
            .collect();
        let mut sent = Tally::default();
        for sender in senders {
            sent += sender.join().expect("a sender does not panic")?;
        }
        Ok(sent)
    })
}

fn flood(mut stream: Stream, mut share: Share, load: Load, passes: u64) -> Result<Tally> {
    let mut sent = Tally::default();
    let mut tally = Tally::of(&share.text);
    for pass in 0..passes {
        match load {
            Load::FloodOfNewNames => share.rename(pass),
            Load::FloodOfNow => share.date(now())?,
            Load::Flood | Load::Paced { .. } => {}
        }
        if load != Load::Flood {
            tally = Tally::of(&share.text);
        }
        stream.send(&share.text)?;
        sent += tally;
    }
    Ok(sent)
}

// A slice is stamped with when it was due, not with when it was written: a relay that pushes back pays for that.
fn pace(
    mut stream: Stream,
    mut share: Share,
    lines_per_slice: usize,
    passes: u64,
    epoch: Instant,
) -> Result<Tally> {
    let mut sent = Tally::default();
    let mut due = Instant::now();
    for _ in 0..passes {
        for first in (0..share.lines.len()).step_by(lines_per_slice) {
            let slice = first..share.lines.len().min(first + lines_per_slice);
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                thread::sleep(early);
            }
            let text = share.stamped(slice, due - epoch);
            stream.send(text)?;
            sent += Tally::of(text);
            due += SLICE;
        }
    }
    Ok(sent)
}

/// A way into the relay.
pub(crate) enum Stream {
    Lines(TcpStream),
    // With what of the last frames there is memory for.
    Pickle(TcpStream, Vec<u8>),
    Datagrams(UdpSocket),
}

impl Stream {
    pub(crate) fn open(to: SocketAddrV4, input: Input) -> Result<Self> {
        if input == Input::Datagrams {
            let socket = UdpSocket::bind((*to.ip(), 0))?;
            socket.connect(to)?;
            return Ok(Self::Datagrams(socket));
        }
        let stream = TcpStream::connect(to).context("cannot connect to the relay")?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        Ok(match input {
            Input::Pickle => Self::Pickle(stream, Vec::new()),
            Input::Lines | Input::Datagrams => Self::Lines(stream),
        })
    }

    /// Sends whole lines.
    pub(crate) fn send(&mut self, mut lines: &[u8]) -> Result<()> {
        let sent = match self {
            Self::Lines(stream) => stream.write_all(lines),
            Self::Pickle(stream, frames) => {
                frames.clear();
                while !lines.is_empty() {
                    let taken = pickle::encode(lines, frames);
                    lines = &lines[taken..];
                }
                stream.write_all(frames)
            }
            Self::Datagrams(socket) => loop {
                let fits = &lines[..lines.len().min(DATAGRAM_BYTES_MAX)];
                let Some(end) = fits.iter().rposition(|byte| *byte == b'\n') else {
                    break Ok(());
                };
                let (datagram, rest) = lines.split_at(end + 1);
                lines = rest;
                // Nobody there is for the relay's account to say.
                drop(socket.send(datagram));
            },
        };
        sent.context("the relay stopped reading")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place here that asks the time of day"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// One pass over one connection's part of the series.
struct Share {
    text: Vec<u8>,
    /// Where each line is in `text`.
    lines: Vec<Range<usize>>,
}

impl Share {
    // Where the part of a name starts that differs from pass to pass.
    const PASS: usize = "servers.".len();

    fn new(connection: u64) -> Self {
        const ROLES: [&str; 5] = ["web", "db", "cache", "queue", "edge"];
        const LEAVES: [&str; 6] = [
            "cpu.user",
            "cpu.system",
            "mem.used",
            "eth0.rx",
            "sda.await",
            "http.p99",
        ];
        let mut text = Vec::new();
        let mut lines = Vec::new();
        for series in (connection..SERIES).step_by(CONNECTIONS as usize) {
            let leaf = LEAVES[(series % 6) as usize];
            let host = series / 6;
            let role = ROLES[(host % 5) as usize];
            let datacentre = host % 4;
            let value = format!("{}.{:02}", series % 1000, series % 100);
            let line = format!(
                "servers.p000000.dc{datacentre}.{role}-{host:05}.{leaf} {value:0>12} 1700000000\n"
            );
            lines.push(text.len()..text.len() + line.len());
            text.extend_from_slice(line.as_bytes());
        }
        Self { text, lines }
    }

    fn rename(&mut self, pass: u64) {
        let field = format!("p{pass:06}");
        for line in &self.lines {
            let start = line.start + Self::PASS;
            self.text[start..start + field.len()].copy_from_slice(field.as_bytes());
        }
    }

    fn date(&mut self, now: SystemTime) -> Result<()> {
        let seconds = now.duration_since(UNIX_EPOCH)?.as_secs().to_string();
        for line in &self.lines {
            let end = line.end - 1;
            self.text[end - seconds.len()..end].copy_from_slice(seconds.as_bytes());
        }
        Ok(())
    }

    fn stamped(&mut self, lines: Range<usize>, since_epoch: Duration) -> &[u8] {
        let lines = &self.lines[lines];
        for line in lines {
            let end = line.end - Stamp::AFTER;
            Stamp::write(&mut self.text[end - Stamp::WIDTH..end], since_epoch);
        }
        match lines {
            [first, .., last] => &self.text[first.start..last.end],
            [only] => &self.text[only.clone()],
            [] => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_one_pass_over_the_series() {
        let mut names: Vec<String> = (0..CONNECTIONS)
            .flat_map(|connection| {
                let text = String::from_utf8(Share::new(connection).text).unwrap();
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
    fn renamed_pass_differs_in_names_only() {
        let mut share = Share::new(0);
        share.rename(17);
        let line = String::from_utf8_lossy(&share.text[share.lines[0].clone()]).into_owned();
        assert_eq!(
            line,
            "servers.p000017.dc0.web-00000.cpu.user 000000000.00 1700000000\n"
        );
    }

    #[test]
    fn dated_pass_says_when_it_was_sent() {
        let mut share = Share::new(0);
        share
            .date(UNIX_EPOCH + Duration::from_secs(1_800_000_001))
            .unwrap();
        let line = String::from_utf8_lossy(&share.text[share.lines[0].clone()]).into_owned();
        assert_eq!(
            line,
            "servers.p000000.dc0.web-00000.cpu.user 000000000.00 1800000001\n"
        );
    }

    #[test]
    fn slice_says_when_it_was_due() {
        let mut share = Share::new(0);
        let text = share.stamped(0..2, Duration::from_micros(1234)).to_vec();
        let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 2);
        for line in lines {
            let end = line.len() - Stamp::AFTER;
            assert_eq!(
                Stamp::read(&line[end - Stamp::WIDTH..end]),
                Some(Duration::from_micros(1234))
            );
        }
    }
}
