//! The examples that people start from: each is run as it stands, and does what it says.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use harness::{
    Aws, DEADLINE, Directory, HttpSink, Kafka, Prometheus, PubSub, RabbitMq, RelayProcess, Sender,
    Sink, carbon, eventually, object, route, unix_seconds,
};
use serde_json::json;
use tempfile::TempDir;

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
            tests.contains(&format!("\"{name}\"")),
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

#[test]
fn an_input_of_messages() {
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    let (_directory, relay) = run_at(
        "input-amqp",
        "127.0.0.1:5672",
        &rabbit.address().to_string(),
    );
    eventually(DEADLINE, "the queue to be there", || {
        match relay.metrics().count("carbonway_consumer_connected") {
            1 => Ok(()),
            _ => Err("it is not".to_owned()),
        }
    });
    rabbit.publish("graphite", [("servers.web1.cpu", "1 1700000000")]);
    eventually(DEADLINE, "the line to be printed", || {
        let stdout = relay.process.stdout();
        match stdout.iter().any(|line| line == LINE.trim_end()) {
            true => Ok(()),
            false => Err(format!("there is {stdout:?}")),
        }
    });
}

// Runs an example with a server of ours in the place of the one that it names.
fn run_at(example: &str, named: &str, ours: &str) -> (Directory, RelayProcess) {
    let text = fs::read_to_string(examples().join(format!("{example}.yaml"))).unwrap();
    let (head, spec) = text.split_once("apiVersion").unwrap();
    assert!(
        spec.contains(named) && head.starts_with('#'),
        "{example} names {named}"
    );
    let directory = Directory::of([text.replace(named, ours)]);
    let relay = RelayProcess::run(&directory);
    (directory, relay)
}

// Runs an example of an output to a carbon server, and returns what a second relay's listener makes of it.
fn output(example: &str, named: &str, listener: &str) {
    let sink = Sink::open();
    let listeners = format!("listeners: [{{name: in, port: 2003, {listener}}}]");
    let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
    let second = Directory::of([
        object("Relay", "edge", &listeners).replace("{name: edge}", labels),
        carbon("sink", sink.address(), ""),
        route("all", "destinations: [{name: sink}]"),
    ]);
    let second = RelayProcess::run(&second);
    let (_directory, relay) = run_at(example, named, &second.address().to_string());
    Sender::deliver(relay.address(), LINE);
    assert_eq!(sink.wait_for_lines(1), [LINE.trim_end()]);
    relay.settle(1);
}

#[test]
fn outputs_to_carbon() {
    for (example, named, listener) in [
        ("output-carbon", "127.0.0.1:2103", "plaintext: {}"),
        ("output-carbon-pickle", "127.0.0.1:2104", "pickle: {}"),
        ("output-carbon-protobuf", "127.0.0.1:2105", "protobuf: {}"),
        (
            "output-carbon-compressed",
            "127.0.0.1:2113",
            "plaintext: {}, compression: Gzip",
        ),
        (
            "output-carbon-udp",
            "127.0.0.1:2103",
            "plaintext: {transport: Udp}",
        ),
    ] {
        output(example, named, listener);
    }
}

#[test]
fn an_output_to_a_file() {
    let state = TempDir::new().unwrap();
    let path = state.path().join("lines");
    let (_directory, relay) = run_at(
        "output-file",
        "/tmp/carbonway-lines.txt",
        &path.to_string_lossy(),
    );
    Sender::deliver(relay.address(), LINE);
    relay.settle(1);
    assert_eq!(fs::read_to_string(path).unwrap(), LINE);
}

#[test]
fn an_output_to_prometheus() {
    let Some(prometheus) = Prometheus::start() else {
        return;
    };
    let address = prometheus.address().to_string();
    let (_directory, relay) = run_at("output-prometheus", "127.0.0.1:9090", &address);
    let now = unix_seconds();
    Sender::deliver(relay.address(), format!("servers.web1.cpu.idle 42 {now}\n"));
    eventually(DEADLINE, "the value", || {
        let found = prometheus.query("cpu_idle{host=\"web1\"}", now);
        match found[0]["value"][1].as_str() {
            Some("42") => Ok(()),
            _ => Err(found.to_string()),
        }
    });
}

#[test]
fn an_output_to_kafka() {
    let Some(kafka) = Kafka::with_topic("metrics", 3) else {
        return;
    };
    let (_directory, relay) = run_at(
        "output-kafka",
        "127.0.0.1:9092",
        &kafka.address().to_string(),
    );
    Sender::deliver(relay.address(), LINE);
    relay.settle(1);
    assert_eq!(kafka.consume("metrics", 1)[0].text(), LINE.trim_end());
}

#[test]
fn an_output_to_grafana_net() {
    let sink = HttpSink::open();
    let address = sink.address().to_string();
    let (_directory, relay) = run_at("output-grafana-net", "127.0.0.1:9090", &address);
    Sender::deliver(relay.address(), LINE);
    let posted = sink.wait_until("the point", |posted| {
        posted
            .iter()
            .any(|posted| posted.uri.path() == "/graphite/metrics")
    });
    assert!(
        posted
            .iter()
            .all(|posted| posted.headers["authorization"] == "Bearer 123:secret")
    );
    relay.settle(1);
}

#[test]
fn an_output_to_pub_sub() {
    let Some(pub_sub) = PubSub::with_topic("graphite") else {
        return;
    };
    let address = pub_sub.address().to_string();
    let (_directory, relay) = run_at("output-pub-sub", "127.0.0.1:8085", &address);
    Sender::deliver(relay.address(), LINE);
    let attributes = json!({"codec": "gzip", "content-type": "application/text"});
    let expected = (attributes, vec![json!(LINE.trim_end())]);
    assert_eq!(pub_sub.pull("graphite", 1), [expected]);
    relay.settle(1);
}

#[test]
fn an_output_to_cloudwatch() {
    let Some(cloud_watch) = Aws::start() else {
        return;
    };
    let address = cloud_watch.address().to_string();
    let (_directory, relay) = run_at("output-cloud-watch", "127.0.0.1:5000", &address);
    let now = unix_seconds();
    Sender::deliver(relay.address(), format!("servers.web1.cpu 42 {now}\n"));
    relay.settle(1);
    let points = cloud_watch.points("Graphite", "servers.web1.cpu", &["cluster=production"]);
    assert_eq!(points, [(now, 42.0)]);
}

#[test]
fn an_output_to_rabbitmq() {
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    rabbit.bind("graphite", "web", "servers.web1.#");
    let address = rabbit.address().to_string();
    let (_directory, relay) = run_at("output-amqp", "127.0.0.1:5672", &address);
    Sender::deliver(relay.address(), LINE);
    let expected = ("servers.web1.cpu".to_owned(), "1 1700000000".to_owned());
    assert_eq!(rabbit.consume("web", 1), [expected]);
    relay.settle(1);
}
