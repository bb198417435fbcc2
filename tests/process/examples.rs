//! The examples that people start from: each is run as it stands, and does what it says.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use harness::{DEADLINE, RelayProcess, Sender, eventually};

use crate::inputs::{compressions, pickle};

const LINE: &str = "servers.web1.cpu 1 1700000000\n";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

#[test]
fn every_example_is_tested_and_named_in_the_readme() {
    let readme = fs::read_to_string(examples().join("../../README.md")).unwrap();
    let tests = include_str!("examples.rs");
    let mut files = 0;
    for entry in fs::read_dir(examples()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(readme.contains(&file), "README does not name {file}");
        let name = file.strip_suffix(".yaml").expect("examples are YAML");
        assert!(
            tests.contains(&format!("(\"{name}\"")),
            "no test runs {file}"
        );
        files += 1;
    }
    assert!(files > 0);
}

fn run(example: &str) -> RelayProcess {
    RelayProcess::run_file(&examples().join(format!("{example}.yaml")))
}

// Runs an example of an input, and waits for the lines that come out of it.
fn input(example: &str, lines: usize, send: impl FnOnce(&RelayProcess)) {
    let relay = run(example);
    send(&relay);
    eventually(DEADLINE, "the lines to be printed", || {
        let stdout = relay.process.stdout();
        let printed = stdout.iter().filter(|line| line.starts_with("servers."));
        match printed.count() {
            count if count == lines => Ok(()),
            _ => Err(format!("there is {stdout:?}")),
        }
    });
}

fn port(relay: &RelayProcess, port: u16) -> SocketAddr {
    (relay.address().ip(), port).into()
}

#[test]
fn an_input_of_datagrams() {
    input("input-udp", 2, |relay| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let line = LINE.trim_end().as_bytes();
        socket.send_to(line, relay.address()).unwrap();
        Sender::deliver(relay.address(), LINE);
    });
}

#[test]
fn an_input_through_a_unix_socket() {
    input("input-unix-socket", 1, |_| {
        let mut stream = UnixStream::connect("/tmp/carbonway.sock").unwrap();
        stream.write_all(LINE.as_bytes()).unwrap();
    });
}

#[test]
fn an_input_of_pickles() {
    input("input-pickle", 1, |relay| {
        Sender::deliver(port(relay, 2004), pickle(&["servers.web1.cpu"]));
    });
}

#[test]
fn an_input_of_protobuf() {
    input("input-protobuf", 1, |relay| {
        // Payload { metrics: [Metric { metric: "servers.web1.cpu", points: [Point { timestamp: 1, value: 1.0 }] }] }
        let point = [&[0x08, 1, 0x11][..], &1_f64.to_le_bytes()].concat();
        let metric = [&[0x0a, 16][..], b"servers.web1.cpu", &[0x12, 11], &point].concat();
        let payload = [&[0x0a, metric.len() as u8][..], &metric].concat();
        let frame = [&(payload.len() as u32).to_be_bytes()[..], &payload].concat();
        Sender::deliver(port(relay, 2005), frame);
    });
}

#[test]
fn inputs_of_compressed_streams() {
    input("input-compressed", 4, |relay| {
        for ((_, compress), its_port) in compressions().into_iter().zip(2013..) {
            Sender::deliver(port(relay, its_port), compress(LINE.as_bytes()));
        }
    });
}

#[test]
fn an_input_behind_a_load_balancer() {
    input("input-behind-proxy", 1, |relay| {
        let header = "PROXY TCP4 10.1.2.3 10.0.0.1 40000 2003\r\n";
        Sender::deliver(relay.address(), format!("{header}{LINE}"));
    });
}

#[test]
fn an_input_with_limits() {
    input("input-limits", 1, |relay| {
        Sender::deliver(relay.address(), LINE);
    });
}
