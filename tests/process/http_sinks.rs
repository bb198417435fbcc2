//! Every output that speaks HTTP, at servers that fail in every way: what was sent is there, or among the dead letters.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use harness::{
    Answer, Directory, HttpSink, Posted, RelayProcess, Sender, destination, get, relay, route,
    unix_seconds,
};
use tempfile::TempDir;

use crate::counts;

/// A kind of output.
#[derive(Clone, Copy)]
struct Output {
    /// Its endpoint, for the URL `http://ADDRESS`.
    spec: fn(SocketAddr) -> String,
    /// Where it posts lines to.
    path: &'static str,
    /// The names in what it posts, with prefix `s.`, `t.`, … and a number.
    names: fn(&Posted) -> Vec<String>,
}

const SETTINGS: &str = "batch: {maxLines: 500, wait: 10ms}, connections: 2, timeout: 2s";

const PROMETHEUS: Output = Output {
    spec: |address| {
        format!("prometheusRemoteWrite: {{url: \"http://{address}/write\", {SETTINGS}}}")
    },
    path: "/write",
    names: |posted| {
        let body = snap::raw::Decoder::new().decompress_vec(&posted.body);
        // A metric has _ for a dot.
        words(&body.unwrap())
            .map(|word| word.replacen('_', ".", 1))
            .collect()
    },
};

const GRAFANA_NET: Output = Output {
    spec: |address| {
        let schemas = "[all]\\npattern = .*\\nretentions = 10s:1d\\n";
        format!(
            "grafanaNet: {{url: \"http://{address}/metrics\", apiKey: {{name: key}}, storageSchemas: \"{schemas}\", {SETTINGS}}}"
        )
    },
    path: "/metrics",
    names: |posted| {
        let mut body = Vec::new();
        let mut frames = snap::read::FrameDecoder::new(&posted.body[..]);
        frames.read_to_end(&mut body).unwrap();
        words(&body).collect()
    },
};

const PUB_SUB: Output = Output {
    spec: |address| {
        format!(
            "pubSub: {{project: p, topic: top, url: \"http://{address}\", compression: None, {SETTINGS}}}"
        )
    },
    path: "/v1/projects/p/topics/top:publish",
    names: |posted| {
        let body: serde_json::Value = serde_json::from_slice(&posted.body).unwrap();
        let data = body["messages"][0]["data"].as_str().unwrap();
        words(&base64(data)).collect()
    },
};

const CLOUD_WATCH: Output = Output {
    spec: |address| {
        format!(
            "cloudWatch: {{region: eu-west-1, namespace: ns, url: \"http://{address}\", secret: {{name: key}}, {SETTINGS}}}"
        )
    },
    path: "/",
    names: |posted| {
        let mut body = Vec::new();
        let mut gzip = flate2::read::GzDecoder::new(&posted.body[..]);
        gzip.read_to_end(&mut body).unwrap();
        words(&body).collect()
    },
};

// What looks like a name of ours in a body: a letter, a dot or _, and digits.
fn words(body: &[u8]) -> impl Iterator<Item = String> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._".contains(byte);
    let words = body.split(move |byte| !is_word(byte));
    let names = words.filter_map(|word| {
        let word = str::from_utf8(word).ok()?;
        let (letter, number) = word.split_once(['.', '_'])?;
        let is_name = letter.len() == 1
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_letter = letter.bytes().all(|byte| byte.is_ascii_lowercase());
        (is_name && is_letter).then(|| word.to_owned())
    });
    names.collect::<Vec<_>>().into_iter()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

struct Run {
    output: Output,
    sink: HttpSink,
    relay: RelayProcess,
    sender: Sender,
    sent: u64,
    _files: (Directory, TempDir),
}

impl Run {
    // With nobody there yet.
    fn start(output: Output) -> Self {
        let sink = HttpSink::absent();
        let directory = Directory::of([
            relay("", ""),
            destination("d", &(output.spec)(sink.address())),
            route("all", "destinations: [{name: d}]"),
        ]);
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\n\
                      stringData: {token: t, accessKeyId: k, secretAccessKey: s}\n";
        directory.write("secret.yaml", secret);
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
                    for name in (self.output.names)(posted) {
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

fn meets_every_fault(output: Output) {
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
    let (path, names) = (run.output.path, run.output.names);
    run.sink.judge(move |posted| {
        let is_at_fault = |name: &String| name == "g.7" || name == "g.300";
        let is_refused = posted.uri.path() == path && names(posted).iter().any(is_at_fault);
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
fn prometheus_that_fails_in_every_way_gets_everything() {
    meets_every_fault(PROMETHEUS);
}

#[test]
fn grafana_net_that_fails_in_every_way_gets_everything() {
    meets_every_fault(GRAFANA_NET);
}

#[test]
fn pub_sub_that_fails_in_every_way_gets_everything() {
    meets_every_fault(PUB_SUB);
}

#[test]
fn cloudwatch_that_fails_in_every_way_gets_everything() {
    meets_every_fault(CLOUD_WATCH);
}
