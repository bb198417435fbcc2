//! Every output that speaks HTTP, at servers that fail in every way: what was sent is there, or among the dead letters.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use harness::{
    Answer, Directory, HttpOutput, HttpSink, Posted, RelayProcess, Sender, Sink, carbon,
    destination, get, relay, route, unix_seconds,
};
use tempfile::TempDir;

use crate::counts;

const SETTINGS: &str = "batch: {maxLines: 500, wait: 10ms}, connections: 2, timeout: 2s";

struct Run {
    output: HttpOutput,
    sink: HttpSink,
    relay: RelayProcess,
    sender: Sender,
    sent: u64,
    _files: (Directory, TempDir),
}

impl Run {
    // With nobody there yet.
    fn start(output: HttpOutput) -> Self {
        let sink = HttpSink::absent();
        let directory = Directory::of([
            relay("", ""),
            destination("d", &output.spec(sink.address(), SETTINGS)),
            route("all", "destinations: [{name: d}]"),
        ]);
        directory.write("secret.yaml", &HttpOutput::secret());
        let state = TempDir::new().unwrap();
        let relay = RelayProcess::run_with_state(&directory, state.path());
        let sender = Sender::connect(relay.address());
        Self {
            output,
            sink,
            relay,
            sender,
            sent: 0,
            _files: (directory, state),
        }
    }

    // Sends `letter.0`, `letter.1`, …
    fn send(&mut self, letter: char, count: u64) {
        let now = unix_seconds();
        let lines = (0..count).map(|number| format!("{letter}.{number} {number} {now}\n"));
        self.sender.send(lines.collect::<String>());
        self.sent += count;
    }

    // Waits until lines are there, as far as their numbers are wanted.
    fn wait_for(&self, letter: char, numbers: impl Iterator<Item = u64>) {
        let mut missing: BTreeSet<String> =
            numbers.map(|number| format!("{letter}.{number}")).collect();
        let mut seen = 0;
        self.sink.wait_until("every line", |posted| {
            for posted in &posted[seen..] {
                if posted.answer.status == 200 && posted.uri.path() == self.output.path {
                    for name in self.output.names(posted) {
                        missing.remove(&name);
                    }
                }
            }
            seen = posted.len();
            missing.is_empty()
        });
    }

    // Has the next requests with lines answered so, and all after them well.
    fn answer(&self, answers: impl IntoIterator<Item = Answer>) -> Arc<Mutex<VecDeque<Answer>>> {
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
        let (left, path) = (Arc::clone(&answers), self.output.path);
        self.sink
            .judge(move |posted| match posted.uri.path() == path {
                true => left.lock().unwrap().pop_front(),
                false => None,
            });
        answers
    }

    // Takes a request with lines, and dies before it has read it.
    fn die_within_a_batch(&self) {
        let listener = TcpListener::bind(self.sink.address()).unwrap();
        let first_line = format!("POST {} ", self.output.path);
        for stream in listener.incoming() {
            let mut head = vec![0; first_line.len()];
            if stream.unwrap().read_exact(&mut head).is_ok() && head == first_line.as_bytes() {
                return;
            }
        }
    }
}

fn meets_every_fault(output: HttpOutput) {
    let mut run = Run::start(output);

    // Nobody is there; and then it cannot take anything yet.
    run.send('a', 1000);
    run.relay.wait_for_connected("d", false);
    let mut wait = Answer::of(429);
    wait.headers.push(("retry-after", "1".to_owned()));
    let answers = run.answer([Answer::of(500), Answer::of(503), wait]);
    run.sink.reopen();
    run.wait_for('a', 0..1000);
    assert!(answers.lock().unwrap().is_empty());

    // It goes away between batches, and while it has one.
    for (letter, later) in [('b', 'h'), ('c', 'i'), ('d', 'j')] {
        run.send(letter, 2000);
        run.sink.close();
        run.send(later, 500);
        run.die_within_a_batch();
        run.sink.reopen();
        run.wait_for(letter, 0..2000);
        run.wait_for(later, 0..500);
    }

    // It is so slow that it is given up.
    let is_slow = AtomicBool::new(true);
    let path = run.output.path;
    run.sink.judge(move |posted| {
        if posted.uri.path() == path && is_slow.swap(false, Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(3));
        }
        None
    });
    run.send('f', 500);
    run.wait_for('f', 0..500);

    // Two lines are at fault.
    let output = run.output;
    run.sink.judge(move |posted| {
        let is_at_fault = |name: &String| name == "g.7" || name == "g.300";
        let is_refused =
            posted.uri.path() == output.path && output.names(posted).iter().any(is_at_fault);
        is_refused.then(|| Answer::of(400))
    });
    run.send('g', 500);
    run.wait_for('g', (0..500).filter(|number| ![7, 300].contains(number)));
    let accounts = run.relay.settle(run.sent);
    assert_eq!(
        accounts.destinations["default/d"].dropped,
        counts([("rejected", 2)])
    );
    let kept = get(run.relay.admin(), "/dead-letters?destination=default/d").unwrap();
    let kept: BTreeSet<&str> = kept
        .body
        .lines()
        .filter_map(|line| line.split(' ').next().filter(|word| *word != "#"))
        .collect();
    assert_eq!(kept, BTreeSet::from(["g.7", "g.300"]));
}

#[test]
fn a_server_that_does_not_answer_holds_up_nobody_else() {
    let (silent, other) = (HttpSink::open(), Sink::open());
    // It answers nothing until somebody lets it go on.
    let (go_on, told) = mpsc::channel::<()>();
    silent.judge(move |_| {
        told.recv().unwrap_err();
        None
    });
    // A batch that is larger than the queue.
    let output = HttpOutput::PROMETHEUS;
    let settings = "batch: {maxLines: 50000, wait: 500ms}, connections: 1, timeout: 10m";
    let silent_spec = output.spec(silent.address(), settings);
    let directory = Directory::of([
        relay("", ""),
        destination("d", &format!("queue: {{maxBytes: 64Ki}}, {silent_spec}")),
        carbon("other", other.address(), ""),
        route("d", "destinations: [{name: d}]"),
        route("other", "destinations: [{name: other}]"),
    ]);
    directory.write("secret.yaml", &HttpOutput::secret());
    let state = TempDir::new().unwrap();
    let relay = RelayProcess::run_with_state(&directory, state.path());
    let mut sender = Sender::connect(relay.address());
    let lines = (0..50_000).map(|number| format!("n.{number} 1 1\n"));
    sender.send(lines.collect::<String>());
    other.wait_for_lines(50_000);
    drop(go_on);
    let names = |posted: &[Posted]| posted.iter().flat_map(|one| output.names(one)).count();
    silent.wait_until("every line", |posted| names(posted) >= 50_000);
    relay.settle(50_000);
}

#[test]
fn prometheus_that_fails_in_every_way_gets_everything() {
    meets_every_fault(HttpOutput::PROMETHEUS);
}

#[test]
fn grafana_net_that_fails_in_every_way_gets_everything() {
    meets_every_fault(HttpOutput::GRAFANA_NET);
}

#[test]
fn pub_sub_that_fails_in_every_way_gets_everything() {
    meets_every_fault(HttpOutput::PUB_SUB);
}

#[test]
fn cloudwatch_that_fails_in_every_way_gets_everything() {
    meets_every_fault(HttpOutput::CLOUD_WATCH);
}

#[test]
fn servers_are_reached_through_the_proxy_that_the_environment_names() {
    let (proxy, direct) = (HttpSink::open(), HttpSink::open());
    let near = format!("http://{}/write", direct.address());
    let to = |name: &str, url: &str| {
        let spec = format!("url: \"{url}\", batch: {{wait: 0s}}, connections: 1");
        destination(name, &format!("prometheusRemoteWrite: {{{spec}}}"))
    };
    let directory = Directory::of([
        relay("", ""),
        to("far", "http://prometheus.example/write"),
        to("near", &near),
        route("all", "destinations: [{name: far}, {name: near}]"),
    ]);
    let environment = [
        ("HTTP_PROXY", &*format!("http://{}", proxy.address())),
        ("NO_PROXY", &*direct.address().ip().to_string()),
    ];
    let relay = RelayProcess::run_with_environment(&directory, &environment);
    Sender::deliver(relay.address(), "a 1 1700000000\n");
    relay.settle(1);
    let urls = |sink: &HttpSink| {
        let posted = sink.wait_until("a request", |posted| !posted.is_empty());
        let urls = posted.iter().map(|posted| posted.uri.to_string());
        urls.collect::<Vec<_>>()
    };
    assert_eq!(urls(&proxy), ["http://prometheus.example/write"]);
    assert_eq!(urls(&direct), ["/write"]);
}
