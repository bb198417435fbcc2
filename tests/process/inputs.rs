//! What comes in otherwise than as lines over TCP.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::{
    DEADLINE, Directory, PythonCarbon, RelayProcess, Sender, Signal, Sink, carbon, eventually,
    numbered_line, object, route,
};
use tempfile::TempDir;

use crate::counts;

// The Relay that everything attaches to, with these listeners.
fn listeners(listeners: &str) -> String {
    let relay = object("Relay", "edge", &format!("listeners: [{listeners}]"));
    let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
    relay.replace("{name: edge}", labels)
}

fn directory_to(sink: &Sink, listener: &str, queue: &str) -> Directory {
    Directory::of([
        listeners(listener),
        carbon("a", sink.address(), queue),
        route("all", "destinations: [{name: a}]"),
    ])
}

fn port(relay: &RelayProcess, port: u16) -> SocketAddr {
    (relay.address().ip(), port).into()
}

fn count_of(relay: &RelayProcess, name: &str, listener: &str) -> u64 {
    let count = relay.metrics().get(name, &[("listener", listener)]);
    count.unwrap_or_default() as u64
}

#[test]
fn a_datagram_holds_lines_and_its_last_needs_no_newline() {
    let sink = Sink::open();
    let listener = "{name: both, port: 2003, plaintext: {transport: TcpAndUdp, maxLineBytes: 64}}";
    let directory = directory_to(&sink, listener, "");
    let relay = RelayProcess::run(&directory);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let long = "x".repeat(70);
    for datagram in [
        "a 1 1\nb 2 2",
        "c 3 3\n",
        &format!("{long} 1 1\nd 4 4\nbad\n"),
        "",
        "\n",
    ] {
        sender
            .send_to(datagram.as_bytes(), relay.address())
            .unwrap();
    }
    // one sender's datagrams stay in order
    assert_eq!(sink.wait_for_lines(4), ["a 1 1", "b 2 2", "c 3 3", "d 4 4"]);
    let expected = counts([("blank", 1), ("field_count", 1), ("line_too_long", 1)]);
    assert_eq!(relay.dropped(7), expected);
    let refused = &relay.json("/refused")["field_count"][0];
    let source = sender.local_addr().unwrap().to_string();
    assert_eq!(
        (refused["line"].as_str(), refused["source"].as_str()),
        (Some("bad"), Some(&*source))
    );
    assert_eq!(
        count_of(
            &relay,
            "carbonway_listener_datagrams_received_total",
            "both"
        ),
        5
    );
    // and the other kind of transport is there too
    Sender::deliver(relay.address(), "e 5 5\n");
    sink.wait_for_lines(5);
}

#[test]
fn datagrams_that_the_kernel_drops_are_counted() {
    const DATAGRAM_BYTES: usize = 1000;
    let mut sink = Sink::absent();
    let queue = "queue: {maxBytes: 64Ki, whenFull: Block},";
    let listener = "{name: udp, port: 2003, plaintext: {transport: Udp}}";
    let directory = directory_to(&sink, listener, queue);
    let relay = RelayProcess::run(&directory);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dropped = || count_of(&relay, "carbonway_listener_datagrams_dropped_total", "udp");
    let mut sent = 0;
    // The relay reads no more once the queue is full; the kernel keeps some, and then drops.
    eventually(DEADLINE, "the kernel to drop datagrams", || {
        for _ in 0..1000 {
            let datagram = numbered_line(&"n".repeat(DATAGRAM_BYTES), sent);
            let datagram = datagram.trim_end().as_bytes();
            sender.send_to(datagram, relay.address()).unwrap();
            sent += 1;
        }
        match dropped() {
            0 => Err(format!("none of {sent} is")),
            _ => Ok(()),
        }
    });
    sink.reopen();
    eventually(DEADLINE, "every datagram to be accounted for", || {
        let received = count_of(&relay, "carbonway_listener_datagrams_received_total", "udp");
        match received + dropped() {
            known if known == sent => Ok(()),
            known => Err(format!("{known} of {sent} are")),
        }
    });
    relay.settle(sent - dropped());
    sink.wait_for_lines((sent - dropped()) as usize);
}

#[test]
fn datagrams_that_the_kernel_drops_are_counted_while_more_come() {
    let sink = Sink::open();
    let listener = "{name: udp, port: 2003, plaintext: {transport: Udp}}";
    let directory = directory_to(&sink, listener, "");
    directory.write(
        "none.yaml",
        &object("Blocklist", "all", "entries: [{prefix: junk}]"),
    );
    let relay = RelayProcess::run(&directory);
    // Many lines in each, so that they cost more to read than to send.
    let lines: String = (0..1000)
        .map(|number| numbered_line("junk", number))
        .collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            while !is_over.load(Ordering::Relaxed) {
                sender.send_to(lines.as_bytes(), relay.address()).unwrap();
            }
        });
        let _at_the_end = SetWhenDropped(&is_over);
        eventually(DEADLINE, "drops to be counted", || {
            match count_of(&relay, "carbonway_listener_datagrams_dropped_total", "udp") {
                0 => Err("none is".to_owned()),
                _ => Ok(()),
            }
        });
    });
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_unix_socket_takes_lines_and_goes_over_to_a_second_process() {
    let (sink, state) = (Sink::open(), TempDir::new().unwrap());
    let path = state.path().join("lines.sock");
    let listener = format!(
        "{{name: plain, unixSocket: {{path: {}, mode: \"0620\"}}, plaintext: {{}}}}",
        path.display()
    );
    let directory = directory_to(&sink, &listener, "");
    let mut first = RelayProcess::run_with_state(&directory, &state.path().join("state"));
    let mut connected = UnixStream::connect(&path).unwrap();
    connected.write_all(b"a 1 1\n").unwrap();
    sink.wait_for_lines(1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o620);

    let second = RelayProcess::take_over(&first, &directory, &state.path().join("state"));
    let mut new = UnixStream::connect(&path).unwrap();
    new.write_all(b"b 2 2\n").unwrap();
    sink.wait_for_lines(2);
    second.settle(1);
    connected.write_all(b"c 3 3").unwrap();
    drop(connected);
    first.process.signal(Signal::TERM);
    assert_eq!(first.process.wait(DEADLINE).code(), Some(0));
    assert_eq!(sink.wait_for_lines(3).len(), 3);
    // the socket is the second one's, and stays
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let mut second = second;
    second.process.signal(Signal::TERM);
    assert_eq!(second.process.wait(DEADLINE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_not_replaced_by_one() {
    let state = TempDir::new().unwrap();
    let path = state.path().join("precious");
    fs::write(&path, "text").unwrap();
    let socket = format!("unixSocket: {{path: {}}}", path.display());
    let listener = format!("{{name: local, {socket}, plaintext: {{}}}}");
    let directory = directory_to(&Sink::open(), &listener, "");
    let mut relay = RelayProcess::start_run(&directory);
    let error = ["listeners[local].unixSocket.path", "not a socket"];
    relay.process.wait_for_stderr(DEADLINE, 0, &error);
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
}

// Lines through a real carbon-relay, which sends them on in a protocol of its own.
fn through_python(protocol: &str, listener: &str, its_port: u16) {
    const LINES: u64 = 5000;
    let sink = Sink::open();
    let directory = directory_to(&sink, listener, "");
    let relay = RelayProcess::run(&directory);
    let Some(python) = PythonCarbon::relay_to(port(&relay, its_port), protocol) else {
        return;
    };
    let mut expected = BTreeSet::new();
    let mut lines = String::new();
    for number in 0..LINES {
        let value = number as f64 / 8.0;
        let time = 1_700_000_000 + number;
        lines += &format!("servers.web{};dc=ams {value} {time}\n", number % 50);
        expected.insert(format!("servers.web{};dc=ams {value} {time}", number % 50));
    }
    eventually(DEADLINE, "carbon-relay to listen", || {
        let connected = std::net::TcpStream::connect(python.line());
        connected.map(drop).map_err(|error| error.to_string())
    });
    Sender::deliver(python.line(), lines);
    let found = sink.wait_for_lines(LINES as usize);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    relay.settle(LINES);
}

#[test]
fn a_real_carbon_relay_sends_pickles() {
    through_python("pickle", "{name: p, port: 2004, pickle: {}}", 2004);
}

#[test]
fn a_real_carbon_relay_sends_protobuf() {
    through_python("protobuf", "{name: p, port: 2005, protobuf: {}}", 2005);
}

// A frame with a pickle of protocol 0: [("name", (1, 2)), …].
pub(crate) fn pickle(names: &[&str]) -> Vec<u8> {
    let points = names.iter().map(|name| format!("(V{name}\n(I1\nI2\ntta"));
    framed(format!("(l{}.", points.collect::<String>()).as_bytes())
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

#[test]
fn what_is_wrong_with_a_frame_is_counted_and_others_are_taken() {
    let sink = Sink::open();
    let listener = "{name: p, port: 2004, pickle: {maxFrameBytes: 1Ki}}";
    let directory = directory_to(&sink, listener, "");
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(port(&relay, 2004));
    sender.send(framed(b"cos\nsystem\n(S'touch x'\ntR."));
    sender.send(framed(b""));
    sender.send(pickle(&["a", "b c", "d"]));
    assert_eq!(sink.wait_for_lines(2), ["a 2 1", "d 2 1"]);
    // in pieces
    let frame = pickle(&["e"]);
    sender.trickle(&frame);
    sink.wait_for_lines(3);
    // cut by the end
    sender.send(&frame[..7]);
    sender.close();
    // somebody who speaks something else
    let mut other = Sender::connect(port(&relay, 2004));
    other.send("servers.web1.cpu 1 1\n");
    other.wait_until_closed();
    let expected = counts([
        ("frame_invalid", 2),
        ("frame_too_long", 1),
        ("point_invalid", 1),
        ("truncated", 1),
    ]);
    assert_eq!(relay.dropped(8), expected);
    let refused = relay.json("/refused");
    assert_eq!(refused["point_invalid"][0]["line"], "b c");
    assert_eq!(
        refused["frame_too_long"][0]["line"],
        r"servers.web1.cpu 1 1\n"
    );
}

#[test]
fn long_frames_that_never_end_cost_a_bounded_part_of_memory_and_end() {
    let sink = Sink::open();
    let listener = "{name: p, port: 2004, pickle: {maxFrameBytes: 16Mi, idleTimeout: 500ms}}";
    let directory = directory_to(&sink, listener, "");
    let relay = RelayProcess::run(&directory);
    let begun = [&(16_u32 << 20).to_be_bytes()[..], &[b'('; 40_000]].concat();
    let mut stuck: Vec<Sender> = (0..20)
        .map(|_| {
            let mut sender = Sender::connect(port(&relay, 2004));
            sender.send(&begun);
            sender
        })
        .collect();
    // a long one has its turn when those before it were closed
    let name = "n".repeat(60_000);
    let names: Vec<String> = (0..50).map(|number| format!("{name}{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sender = Sender::connect(port(&relay, 2004));
    for _ in 0..5 {
        sender.send(pickle(&["short"]));
    }
    sink.wait_for_lines(5);
    sender.send(pickle(&names));
    sink.wait_for_lines(55);
    for sender in &mut stuck {
        sender.wait_until_closed();
    }
    assert_eq!(relay.dropped(75), counts([("truncated", 20)]));
    assert!(relay.peak_memory() < 200 << 20, "{}", relay.peak_memory());
}

pub(crate) type Compress = fn(&[u8]) -> Vec<u8>;

pub(crate) fn compressions() -> [(&'static str, Compress); 4] {
    [
        ("Gzip", |lines| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(lines).unwrap();
            encoder.finish().unwrap()
        }),
        ("Lz4", |lines| {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(lines).unwrap();
            encoder.finish().unwrap()
        }),
        ("Snappy", |lines| {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(lines).unwrap();
            encoder.into_inner().unwrap()
        }),
        ("Zstd", |lines| zstd::encode_all(lines, 0).unwrap()),
    ]
}

#[test]
fn compressed_streams_are_read_as_they_come_and_damage_is_counted() {
    const LINES: u64 = 20_000;
    for (compression, compress) in compressions() {
        let sink = Sink::open();
        let listener =
            format!("{{name: c, port: 2003, plaintext: {{}}, compression: {compression}}}");
        let directory = directory_to(&sink, &listener, "");
        let relay = RelayProcess::run(&directory);
        let lines: String = (0..LINES)
            .map(|number| numbered_line("c", number))
            .collect();
        Sender::deliver(relay.address(), compress(lines.as_bytes()));
        sink.wait_for_lines(LINES as usize);
        assert_eq!(sink.text(), lines, "{compression}");
        // one stream after the other on a connection, each there before the next begins
        let mut sender = Sender::connect(relay.address());
        for number in 0..3 {
            sender.send(compress(numbered_line("d", number).as_bytes()));
            sink.wait_for_lines((LINES + number) as usize + 1);
        }
        sender.close();
        // cut by the end, damaged, and not compressed at all
        let whole = compress(b"a 1 1\n");
        Sender::deliver(relay.address(), &whole[..5]);
        let mut damaged = whole.clone();
        damaged[0] ^= 0xff;
        for bad in [&damaged[..], b"servers.web1.cpu 1 1\n"] {
            let mut sender = Sender::connect(relay.address());
            sender.send(bad);
            sender.wait_until_closed();
        }
        let accounts = relay.dropped(LINES + 3 + 3);
        assert_eq!(accounts, counts([("frame_invalid", 3)]), "{compression}");
    }
}
