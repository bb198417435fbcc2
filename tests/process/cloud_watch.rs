//! Amazon CloudWatch: to moto, and to a server that looks at what is signed.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;

use harness::{
    Answer, Aws, DEADLINE, Directory, HttpSink, Posted, RelayProcess, Sender, clients, cloud,
    destination, eventually, relay, route, skip, unix_seconds,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::counts;

fn directory(address: SocketAddr, spec: &str) -> Directory {
    let to = format!(
        "region: eu-west-1, namespace: Graphite, url: \"http://{address}\", secret: {{name: key}}, {spec}"
    );
    let directory = Directory::of([
        relay("", ""),
        destination("c", &format!("cloudWatch: {{{to}}}")),
        route("all", "destinations: [{name: c}]"),
    ]);
    directory.write("secret.yaml", &secret("wJalrXUtnFEMI"));
    directory
}

fn secret(key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\n\
         stringData: {{accessKeyId: AKIDEXAMPLE, secretAccessKey: {key}}}\n"
    )
}

const AT_ONCE: &str = "batch: {wait: 0s}";

fn body(posted: &Posted) -> Value {
    let mut text = String::new();
    let mut gzip = flate2::read::GzDecoder::new(&posted.body[..]);
    gzip.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn last_error(relay: &RelayProcess) -> String {
    relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string()
}

#[test]
fn points_are_there_under_their_names_and_dimensions() {
    let Some(cloud_watch) = Aws::start() else {
        return;
    };
    let spec = format!("dimensions: {{dc: ams, \"my rack\": \"3\"}}, {AT_ONCE}");
    let directory = directory(cloud_watch.address(), &spec);
    let relay = RelayProcess::run(&directory);
    let now = unix_seconds();
    let earlier = now - 60;
    let long = "a".repeat(256);
    Sender::deliver(
        relay.address(),
        format!(
            "a.b;t=x 1.5 {earlier}\na.b;t=x -2 {now}\nold 1 1700000000\n{long} 1 {now}\nz 1e200 {now}\n"
        ),
    );
    let accounts = relay.settle(5);
    assert_eq!(
        accounts.destinations["default/c"].dropped,
        counts([("rejected", 3)])
    );
    let points = cloud_watch.points("Graphite", "a.b;t=x", &["dc=ams", "my rack=3"]);
    assert_eq!(points, [(earlier, 1.5), (now, -2.0)]);
}

#[test]
fn requests_are_signed_as_aws_own_library_signs_them() {
    if let Err(why) = clients() {
        return skip(&why);
    }
    let sink = HttpSink::open();
    let spec = "dimensions: {dc: ams}, storageResolution: 1, batch: {maxLines: 2, wait: 1m}";
    let directory = directory(sink.address(), spec);
    let relay = RelayProcess::run(&directory);
    let now = unix_seconds();
    Sender::deliver(relay.address(), format!("a 1 {now}\nb 2.5 {now}\n"));
    let posted = &sink.wait_until("a request", |posted| !posted.is_empty())[0];
    relay.settle(2);
    let dimensions = json!([{"Name": "dc", "Value": "ams"}]);
    let datum = |name: &str, value: f64| json!({"MetricName": name, "Dimensions": dimensions, "Timestamp": now, "Value": value, "StorageResolution": 1});
    let expected =
        json!({"Namespace": "Graphite", "MetricData": [datum("a", 1.0), datum("b", 2.5)]});
    assert_eq!(body(posted), expected);
    assert_eq!(
        posted.headers["x-amz-target"],
        "GraniteServiceVersion20100801.PutMetricData"
    );

    let authorization = posted.headers["authorization"].to_str().unwrap();
    let (stated, signature) = authorization.rsplit_once("Signature=").unwrap();
    let date = &posted.headers["x-amz-date"].to_str().unwrap()[..8];
    let scope = format!("Credential=AKIDEXAMPLE/{date}/eu-west-1/monitoring/aws4_request");
    assert!(stated.contains(&scope), "{stated}");
    let names = stated.split("SignedHeaders=").nth(1).unwrap();
    let names = names.trim_end_matches([',', ' ']).split(';');
    let headers: serde_json::Map<String, Value> = names
        .map(|name| {
            (
                name.to_owned(),
                posted.headers[name].to_str().unwrap().into(),
            )
        })
        .collect();
    assert!(headers.contains_key("host") && headers.contains_key("x-amz-target"));
    let url = format!("http://{}/", sink.address());
    let body: String = posted
        .body
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let headers = Value::from(headers).to_string();
    let theirs = cloud(&[
        "signature",
        &url,
        "eu-west-1",
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI",
        &headers,
        &body,
    ]);
    assert_eq!(signature, theirs.trim_end());
}

#[test]
fn throttling_is_waited_out_and_a_key_that_is_not_known_is_told() {
    let sink = HttpSink::open();
    let refusal = |name: &str| Answer {
        body: format!("{{\"__type\":\"com.amazonaws.cloudwatch#{name}\",\"message\":\"no\"}}"),
        ..Answer::of(400)
    };
    let mut answers = vec![refusal("ThrottlingException"), Answer::of(503)];
    answers.push(refusal("InvalidClientTokenId"));
    sink.answer(answers);
    let directory = directory(sink.address(), AT_ONCE);
    let relay = RelayProcess::run(&directory);
    let now = unix_seconds();
    Sender::deliver(relay.address(), format!("a 1 {now}\n"));
    eventually(DEADLINE, "the refusal to be told", || {
        match last_error(&relay) {
            error if error.contains("stopped until something is changed: 400") => Ok(()),
            error => Err(error),
        }
    });
    assert_eq!(sink.posted().len(), 3);
    directory.write("secret.yaml", &secret("another"));
    sink.wait_until("the line", |posted| posted.len() == 4);
    relay.settle(1);
    let log = relay.process.stderr().concat();
    assert!(!log.contains("wJalrXUtnFEMI"), "a secret is in the log");
}

// Runs a relay whose Destination names no Secret. Returns what it sends: who it says that it is, and with what token.
fn found(environment: &[(&str, &str)]) -> (String, Option<String>) {
    let sink = HttpSink::open();
    let to = format!(
        "region: eu-west-1, namespace: Graphite, url: \"http://{}\", {AT_ONCE}",
        sink.address()
    );
    let directory = Directory::of([
        relay("", ""),
        destination("c", &format!("cloudWatch: {{{to}}}")),
        route("all", "destinations: [{name: c}]"),
    ]);
    let relay = RelayProcess::run_with_environment(&directory, environment);
    Sender::deliver(relay.address(), format!("a 1 {}\n", unix_seconds()));
    let posted = sink.wait_until("a request", |posted| !posted.is_empty());
    relay.settle(1);
    let header = |name: &str| {
        let value = posted[0].headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    (
        header("authorization").unwrap(),
        header("x-amz-security-token"),
    )
}

#[test]
fn without_a_secret_credentials_are_those_of_the_environment() {
    let (authorization, token) = found(&[
        ("AWS_ACCESS_KEY_ID", "AKIDENV"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
    ]);
    assert!(
        authorization.contains("Credential=AKIDENV/"),
        "{authorization}"
    );
    assert_eq!(token, None);
}

#[test]
fn a_pod_has_the_role_of_its_service_account() {
    // Its STS is what is wanted here.
    let Some(cloud) = Aws::start() else {
        return;
    };
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "of the pod").unwrap();
    let (authorization, token) = found(&[
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/relay"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ENDPOINT_URL", &format!("http://{}", cloud.address())),
    ]);
    // What it is given for a while
    assert!(authorization.contains("Credential=ASIA"), "{authorization}");
    assert!(token.is_some());
}
