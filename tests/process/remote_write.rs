//! Prometheus' remote-write protocol: against a real Prometheus, and against servers that refuse in every way.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use harness::{
    Answer, Authority, DEADLINE, Directory, Flood, HttpSink, Posted, Prometheus, RelayProcess,
    Sender, destination, eventually, get, object, post, relay, route, unix_seconds,
};
use prost::Message;
use tempfile::TempDir;

use crate::counts;

#[derive(Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

// The samples in a request: `name value`.
fn samples(posted: &Posted) -> Vec<String> {
    let body = snap::raw::Decoder::new()
        .decompress_vec(&posted.body)
        .unwrap();
    let request = WriteRequest::decode(&body[..]).unwrap();
    let samples = request.timeseries.iter().map(|series| {
        let name = series.labels.iter().find(|label| label.name == "__name__");
        format!("{} {}", name.unwrap().value, series.samples[0].value)
    });
    samples.collect()
}

fn taken(posted: &[Posted]) -> Vec<String> {
    let taken = posted.iter().filter(|posted| posted.answer.status == 200);
    taken.flat_map(samples).collect()
}

fn directory(address: SocketAddr, spec: &str, more: &str) -> Directory {
    let to = format!("url: \"http://{address}/api/v1/write\", {spec}");
    Directory::of([
        relay("", ""),
        destination("prom", &format!("{more} prometheusRemoteWrite: {{{to}}}")),
        route("all", "destinations: [{name: prom}]"),
    ])
}

// Small batches that wait for nothing.
const AT_ONCE: &str = "batch: {wait: 0s}, connections: 1,";

fn last_error(relay: &RelayProcess) -> String {
    relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string()
}

#[test]
fn a_real_prometheus_has_the_values_under_their_names_and_labels() {
    let Some(prometheus) = Prometheus::start() else {
        return;
    };
    let mappings = "mappings: [
        {match: 'servers.*.cpu.*', name: 'cpu_${2}', labels: {host: $1}},
        {match: '^jvm\\.(.*)\\.(\\w+)$', matchType: Regex, name: 'jvm_$2', labels: {pool: $1}},
        {match: 'secret.*', action: Drop}]";
    let directory = directory(prometheus.address(), &format!("{AT_ONCE} {mappings}"), "");
    let relay = RelayProcess::run(&directory);
    relay.wait_for_connected("prom", true);
    let now = unix_seconds();
    Sender::deliver(
        relay.address(),
        format!(
            "servers.web1.cpu.idle;dc=ams 42.5 {now}\njvm.old.gen.used 7 {now}\n\
             a-b.3c:d;e.f=g 0.1 {now}\nsecret.x 1 {now}\n"
        ),
    );
    let value = |value: &str, labels: serde_json::Value| serde_json::json!([{"metric": labels, "value": [now, value]}]);
    for (query, expected) in [
        (
            "cpu_idle",
            value(
                "42.5",
                serde_json::json!({"__name__": "cpu_idle", "host": "web1", "dc": "ams"}),
            ),
        ),
        (
            "jvm_used",
            value(
                "7",
                serde_json::json!({"__name__": "jvm_used", "pool": "old.gen"}),
            ),
        ),
        (
            "a_b_3c:d",
            value(
                "0.1",
                serde_json::json!({"__name__": "a_b_3c:d", "e_f": "g"}),
            ),
        ),
    ] {
        eventually(DEADLINE, query, || match prometheus.query(query, now) {
            found if found == expected => Ok(()),
            found => Err(found.to_string()),
        });
    }
    relay.settle(4);
    let left_out = "carbonway_destination_lines_left_out_total";
    assert_eq!(relay.metrics().count(left_out), 1);
}

#[test]
fn a_prometheus_that_is_killed_over_and_over_has_every_sample() {
    let Some(mut prometheus) = Prometheus::start() else {
        return;
    };
    let batch = "batch: {maxLines: 500, wait: 100ms}, connections: 2,";
    let directory = directory(prometheus.address(), batch, "");
    let relay = RelayProcess::run(&directory);
    let now = unix_seconds();
    let mut sender = Sender::connect(relay.address());
    const SERIES: u64 = 20_000;
    let mut sent = 0;
    while sent < SERIES {
        let lines = (sent..sent + 5000).map(|number| format!("s.{number} {number} {now}\n"));
        sender.send(lines.collect::<String>());
        sent += 5000;
        prometheus.kill_and_restart();
    }
    eventually(DEADLINE, "every sample", || {
        let count = prometheus.query("count({__name__=~\"s_.*\"})", now);
        match count[0]["value"][1].as_str() {
            Some("20000") => Ok(()),
            other => Err(format!("there are {other:?}")),
        }
    });
    let sum = prometheus.query("sum({__name__=~\"s_.*\"})", now);
    let expected = (0..SERIES).sum::<u64>().to_string();
    assert_eq!(sum[0]["value"][1].as_str(), Some(&*expected));
    assert_eq!(relay.settle(SERIES).forwarded, SERIES);
}

#[test]
fn lines_go_together_and_the_protocol_is_kept() {
    let sink = HttpSink::open();
    let spec = "batch: {maxLines: 3, wait: 1m}, connections: 1, headers: {X-Scope-OrgID: team}";
    let directory = directory(sink.address(), spec, "");
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\nb 2 2\nc 3 3\nd 4 4\n");
    let posted = sink.wait_until("a batch", |posted| posted.len() == 1);
    assert_eq!(samples(&posted[0]), ["a 1", "b 2", "c 3"]);
    assert_eq!(posted[0].uri.path(), "/api/v1/write");
    let header = |name: &str| posted[0].headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/x-protobuf");
    assert_eq!(header("content-encoding"), "snappy");
    assert_eq!(header("x-prometheus-remote-write-version"), "0.1.0");
    assert_eq!(header("x-scope-orgid"), "team");
    // The rest goes when the relay does.
    let mut relay = relay;
    relay.process.signal(harness::Signal::TERM);
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(0));
    assert_eq!(taken(&sink.posted()), ["a 1", "b 2", "c 3", "d 4"]);
}

#[test]
fn who_is_not_there_or_cannot_now_is_tried_again_until_all_is_taken() {
    let mut sink = HttpSink::absent();
    let directory = directory(sink.address(), AT_ONCE, "");
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\n");
    relay.wait_for_connected("prom", false);
    sink.answer([Answer::of(500), Answer::of(503), Answer::of(429)]);
    let mut wait = Answer::of(503);
    wait.headers.push(("retry-after", "1".to_owned()));
    wait.body = "not now".to_owned();
    sink.answer([wait]);
    sink.reopen();
    sink.wait_until("a", |posted| taken(posted) == ["a 1"]);
    assert!(last_error(&relay).contains("503 Service Unavailable: not now"));
    let statuses: Vec<u16> = sink
        .posted()
        .iter()
        .map(|posted| posted.answer.status)
        .collect();
    assert_eq!(statuses, [500, 503, 429, 503, 200]);
    // gone, and back
    sink.close();
    sender.send("b 2 2\n");
    relay.wait_for_connected("prom", false);
    sink.reopen();
    sink.wait_until("b", |posted| taken(posted) == ["a 1", "b 2"]);
    relay.settle(2);
    relay.wait_for_connected("prom", true);
}

#[test]
fn lines_that_are_refused_for_good_are_found_kept_and_sent_again_when_told_so() {
    let sink = HttpSink::open();
    let state = TempDir::new().unwrap();
    let spec = "batch: {maxLines: 1000, wait: 100ms}, connections: 1,";
    let directory = directory(sink.address(), spec, "");
    let relay = RelayProcess::run_with_state(&directory, state.path());
    sink.judge(|posted| {
        let is_bad = samples(posted)
            .iter()
            .any(|sample| sample.starts_with("bad"));
        is_bad.then(|| Answer {
            status: 400,
            headers: Vec::new(),
            body: "out of bounds\n".to_owned(),
        })
    });
    let lines = (0..500).map(|number| match number {
        7 | 400 => format!("bad.{number} {number} 1\n"),
        _ => format!("good.{number} {number} 1\n"),
    });
    Sender::deliver(relay.address(), lines.collect::<String>());
    sink.wait_until("the others", |posted| taken(posted).len() == 498);
    assert_eq!(
        relay.settle(500).destinations["default/prom"].dropped,
        counts([("rejected", 2)])
    );
    let good: BTreeSet<String> = taken(&sink.posted()).into_iter().collect();
    assert_eq!(good.len(), 498);

    let path = "/dead-letters?destination=default/prom";
    let kept = get(relay.admin(), path).unwrap();
    let kept: Vec<&str> = kept.body.lines().collect();
    assert_eq!((kept[1], kept[3]), ("bad.7 7 1", "bad.400 400 1"));
    assert!(
        kept[0].ends_with("400 Bad Request: out of bounds"),
        "{}",
        kept[0]
    );
    sink.judge(|_| None);
    let replay = "/dead-letters/replay?destination=default/prom";
    assert_eq!(post(relay.admin(), replay).unwrap().body, "{\"lines\":2}");
    sink.wait_until("the bad ones", |posted| taken(posted).len() == 500);
    assert_eq!(get(relay.admin(), path).unwrap().body, "");
    let unknown = post(relay.admin(), "/dead-letters/replay?destination=default/x").unwrap();
    assert_eq!(unknown.status, 404);
    let accounts = relay.settle(500);
    assert_eq!(accounts.destinations["default/prom"].resent, 2);
}

#[test]
fn a_server_over_tls_is_believed_if_its_authority_is_and_is_shown_a_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let sink = HttpSink::open_encrypted(&authority);
    let tls = "tls: {ca: {name: ca}, certificate: {name: own}}";
    let to = format!(
        "url: \"https://{}/write\", {tls}, {AT_ONCE}",
        sink.address()
    );
    let directory = Directory::of([
        relay("", ""),
        destination("prom", &format!("prometheusRemoteWrite: {{{to}}}")),
        route("all", "destinations: [{name: prom}]"),
    ]);
    directory.write("own.yaml", &authority.identity("relay").secret("own"));
    directory.write("ca.yaml", &other.secret("ca"));
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a.b 1 1700000000\n");
    eventually(
        DEADLINE,
        "the unknown authority to be told",
        || match last_error(&relay) {
            error if error.contains("UnknownIssuer") => Ok(()),
            error => Err(error),
        },
    );
    directory.write("ca.yaml", &authority.secret("ca"));
    relay.settle(1);
    assert_eq!(taken(&sink.posted()), ["a_b 1"]);
}

#[test]
fn who_is_not_let_in_waits_for_another_secret_and_loses_nothing() {
    const TOKEN: &str =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: ";
    let sink = HttpSink::open();
    sink.judge(|posted| {
        let token = posted.headers["authorization"].to_str().unwrap();
        (token != "Bearer right").then(|| Answer::of(401))
    });
    let directory = directory(
        sink.address(),
        &format!("{AT_ONCE} auth: {{bearer: {{name: token}}}}"),
        "",
    );
    directory.write("secret.yaml", &format!("{TOKEN}wrong}}\n"));
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\n");
    eventually(DEADLINE, "the refusal to be told", || {
        match last_error(&relay).contains("stopped until something is changed: 401 Unauthorized") {
            true => Ok(()),
            false => Err(last_error(&relay)),
        }
    });
    directory.write("secret.yaml", &format!("{TOKEN}right}}\n"));
    sink.wait_until("a", |posted| taken(posted) == ["a 1"]);
    relay.settle(1);
    // and a user with a password
    let more = "apiVersion: v1\nkind: Secret\nmetadata: {name: user}\nstringData: {username: u, password: p}\n";
    directory.write("user.yaml", more);
    sink.judge(|_| None);
    let to = format!(
        "url: \"http://{}/\", {AT_ONCE} auth: {{basic: {{name: user}}}}",
        sink.address()
    );
    directory.write(
        "resources.yaml",
        &[
            harness::relay("", ""),
            destination("prom", &format!("prometheusRemoteWrite: {{{to}}}")),
            route("all", "destinations: [{name: prom}]"),
        ]
        .join("---\n"),
    );
    eventually(DEADLINE, "the other URL", || {
        sender.send("b 2 2\n");
        let posted = sink.posted();
        let other = posted.iter().find(|posted| posted.uri.path() == "/");
        let header = other.map(|posted| posted.headers["authorization"].as_bytes());
        match header {
            Some(b"Basic dTpw") => Ok(()),
            other => Err(format!("it has {other:?}")),
        }
    });
    assert!(
        !relay.process.stderr().concat().contains("right"),
        "a secret is in the log"
    );
}

#[test]
fn a_secret_that_cannot_be_had_leaves_the_destination_out() {
    let sink = HttpSink::open();
    let auth = "auth: {bearer: {name: token}}";
    let directory = directory(sink.address(), auth, "");
    directory.write(
        "other.yaml",
        &object("Destination", "x", "file: {path: /dev/null}"),
    );
    let relay = RelayProcess::start_run(&directory);
    let error = [
        "prometheusRemoteWrite.auth.bearer.name",
        "Secret default/token does not exist",
    ];
    relay.process.wait_for_stderr(DEADLINE, 0, &error);
}

#[test]
fn a_slow_server_is_given_up_after_its_time_and_gets_the_batch_again() {
    let sink = HttpSink::open();
    let directory = directory(sink.address(), &format!("{AT_ONCE} timeout: 200ms"), "");
    let relay = RelayProcess::run(&directory);
    // It answers nothing until somebody lets it go on.
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    sink.judge(move |_| {
        told.recv().unwrap_err();
        None
    });
    Sender::deliver(relay.address(), "a 1 1\n");
    eventually(DEADLINE, "the time to be over", || {
        match last_error(&relay) {
            error if error.contains("timed out") => Ok(()),
            error => Err(error),
        }
    });
    drop(go_on);
    relay.settle(1);
    assert!(sink.posted().len() >= 2, "{:?}", sink.posted());
}

#[test]
fn a_flood_while_the_server_comes_and_goes_arrives_in_order() {
    let mut sink = HttpSink::open();
    let directory = directory(
        sink.address(),
        "batch: {maxLines: 1000, wait: 10ms}, connections: 2",
        "",
    );
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 20_000);
    for _ in 0..5 {
        flood.wait_for_more(3000);
        sink.close();
        flood.wait_for_more(1000);
        sink.reopen();
    }
    let sent = flood.finish();
    relay.settle(sent);
    let mut seen = BTreeSet::new();
    let mut newest = 0;
    for sample in taken(&sink.posted()) {
        let number: u64 = sample.strip_prefix("n ").unwrap().parse().unwrap();
        // What comes again may be older; what is new is in order.
        if seen.insert(number) {
            assert!(number >= newest, "{number} after {newest}");
            newest = number;
        }
    }
    assert_eq!(seen.len() as u64, sent);
}
