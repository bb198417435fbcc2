//! Google Cloud Pub/Sub: to Google's emulator, and to a server that asks who we are.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use harness::{
    Answer, Authority, DEADLINE, Directory, Flood, HttpSink, PROJECT, PubSub, RelayProcess, Sender,
    Signal, clients, cloud, destination, eventually, relay, route, skip,
};
use serde_json::{Value, json};

fn resources(address: SocketAddr, spec: &str) -> [String; 3] {
    let to = format!("project: {PROJECT}, url: \"http://{address}\", {spec}");
    [
        relay("", ""),
        destination("p", &format!("pubSub: {{{to}}}")),
        route("all", "destinations: [{name: p}]"),
    ]
}

const AT_ONCE: &str = "batch: {wait: 0s}, connections: 1";

fn last_error(relay: &RelayProcess) -> String {
    relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string()
}

#[test]
fn messages_hold_lines_or_pickles_compressed_or_not() {
    let Some(pub_sub) = PubSub::with_topic("forms") else {
        return;
    };
    for (encoding, content_type, content) in [
        (
            "Plaintext",
            "application/text",
            [json!("a.b;t=x 1.5 1700000000"), json!("c 2 1700000001")],
        ),
        (
            "Pickle",
            "application/python-pickle",
            [
                json!(["a.b;t=x", [1_700_000_000, 1.5]]),
                json!(["c", [1_700_000_001, 2]]),
            ],
        ),
    ] {
        for (compression, codec) in [("Gzip", "gzip"), ("None", "none")] {
            let spec = format!(
                "topic: forms, encoding: {encoding}, compression: {compression}, connections: 1, \
                 batch: {{maxLines: 2, wait: 1m}}"
            );
            let directory = Directory::of(resources(pub_sub.address(), &spec));
            let relay = RelayProcess::run(&directory);
            Sender::deliver(relay.address(), "a.b;t=x 1.5 1700000000\nc 2 1700000001\n");
            relay.settle(2);
            let attributes = json!({"codec": codec, "content-type": content_type});
            let expected = (attributes, content.to_vec());
            assert_eq!(pub_sub.pull("forms", 2), [expected]);
        }
    }
}

#[test]
fn an_emulator_that_stands_still_gets_everything_when_it_goes_on_and_in_order_if_asked_to() {
    let Some(pub_sub) = PubSub::with_topic("late") else {
        return;
    };
    let spec = "topic: late, ordered: true, batch: {maxLines: 500, wait: 10ms}, connections: 2, timeout: 1s";
    let directory = Directory::of(resources(pub_sub.address(), spec));
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 2000);
    for _ in 0..2 {
        flood.wait_for_more(2000);
        pub_sub.signal(Signal::STOP);
        eventually(DEADLINE, "the relay to give it up", || {
            match last_error(&relay) {
                error if error.contains("timed out") => Ok(()),
                error => Err(error),
            }
        });
        pub_sub.signal(Signal::CONT);
    }
    let sent = flood.finish();
    relay.settle(sent);
    let mut seen = BTreeSet::new();
    let mut newest = 0;
    let mut keys = BTreeSet::new();
    while (seen.len() as u64) < sent {
        let messages = pub_sub.pull("late", 1).into_iter();
        let lines = messages.flat_map(|(attributes, lines)| {
            keys.insert(attributes["orderingKey"].to_string());
            lines
        });
        for line in lines {
            let number = line.as_str().unwrap().split(' ').nth(1).unwrap();
            let number: u64 = number.parse().unwrap();
            // What comes again may be older; what is new is in order.
            if seen.insert(number) {
                assert!(number >= newest, "{number} after {newest}");
                newest = number;
            }
        }
    }
    assert_eq!(seen.len() as u64, sent);
    // They are of one series.
    let [key] = Vec::from_iter(keys).try_into().unwrap();
    assert!(key.ends_with("/0\"") || key.ends_with("/1\""), "{key}");
}

#[test]
fn a_topic_that_is_not_there_is_told_and_another_one_is_taken_at_once() {
    let Some(pub_sub) = PubSub::with_topic("right") else {
        return;
    };
    let of_topic = |topic: &str| {
        resources(
            pub_sub.address(),
            &format!("topic: {topic}, encoding: Pickle, {AT_ONCE}"),
        )
    };
    let directory = Directory::of(of_topic("wrong"));
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\n");
    let told = "stopped until something is changed: 404 Not Found";
    eventually(
        DEADLINE,
        "the missing topic to be told",
        || match last_error(&relay) {
            error if error.contains(told) && error.contains("Topic not found") => Ok(()),
            error => Err(error),
        },
    );
    directory.write("resources.yaml", &of_topic("right").join("---\n"));
    relay.settle(1);
    assert_eq!(pub_sub.pull("right", 1)[0].1, [json!(["a", [1, 1]])]);
}

#[test]
fn a_service_account_shows_who_it_is_and_its_key_can_be_replaced() {
    if let Err(why) = clients() {
        return skip(&why);
    }
    let secret = |key: &str| {
        let stated = json!({"key.json": key.trim()});
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: key}}\nstringData: {stated}\n")
    };
    let keys = [cloud(&["service_account"]), cloud(&["service_account"])];
    let sink = HttpSink::open();
    let bearer = |posted: &harness::Posted| {
        let header = posted.headers["authorization"].to_str().unwrap();
        header.strip_prefix("Bearer ").unwrap().to_owned()
    };
    sink.judge(|_| Some(Answer::of(401)));
    let spec = format!("topic: metrics, secret: {{name: key}}, {AT_ONCE}");
    let directory = Directory::of(resources(sink.address(), &spec));
    directory.write("secret.yaml", &secret(&keys[0]));
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\n");
    let posted = sink.wait_until("the first key", |posted| !posted.is_empty());
    assert_eq!(
        posted[0].uri.path(),
        "/v1/projects/monitoring/topics/metrics:publish"
    );
    let claims: Value =
        serde_json::from_str(&cloud(&["claims", &keys[0], &bearer(&posted[0])])).unwrap();
    assert_eq!(
        (&claims["iss"], &claims["scope"]),
        (
            &json!("relay@monitoring.iam.gserviceaccount.com"),
            &json!("https://www.googleapis.com/auth/pubsub")
        )
    );
    eventually(DEADLINE, "the refusal to be told", || {
        match last_error(&relay) {
            error if error.contains("401 Unauthorized") => Ok(()),
            error => Err(error),
        }
    });
    sink.judge(|_| None);
    directory.write("secret.yaml", &secret(&keys[1]));
    let posted = sink.wait_until("the second key", |posted| {
        posted
            .last()
            .is_some_and(|posted| posted.answer.status == 200)
    });
    cloud(&["claims", &keys[1], &bearer(posted.last().unwrap())]);
    relay.settle(1);
    let log = relay.process.stderr().concat();
    assert!(
        !log.contains("PRIVATE KEY") && !log.contains("Bearer"),
        "a secret is in the log"
    );
}

#[test]
fn a_token_that_was_refused_for_good_is_asked_for_again() {
    let authority = Authority::new();
    let tokens = HttpSink::open();
    // Only a server that is encrypted is told who we are, if no Secret says so.
    let mut sink = HttpSink::absent();
    sink.encrypt(&authority, None);
    sink.reopen();
    let token = |token: &str| {
        let mut answer = Answer::of(200);
        answer
            .headers
            .push(("content-type", "application/json".to_owned()));
        answer.body =
            json!({"access_token": token, "expires_in": 1, "token_type": "Bearer"}).to_string();
        answer
    };
    let mut refused = Answer::of(401);
    refused.body = json!({"error": "invalid_grant"}).to_string();
    tokens.answer([token("first")]);
    tokens.judge(move |_| Some(refused.clone()));
    let spec = format!("topic: metrics, {AT_ONCE}");
    let resources = resources(sink.address(), &spec);
    let directory = Directory::of(resources.map(|text| text.replace("http://", "https://")));
    let user = json!({
        "type": "authorized_user",
        "client_id": "relay",
        "client_secret": "hush",
        "refresh_token": "hush",
        "token_uri": format!("http://{}/token", tokens.address()),
    });
    let files = tempfile::TempDir::new().unwrap();
    let file = files.path().join("user.json");
    std::fs::write(&file, user.to_string()).unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, &authority.certificate).unwrap();
    let environment = [
        ("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()),
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
    ];
    let relay = RelayProcess::run_with_environment(&directory, &environment);
    let mut sender = Sender::connect(relay.address());
    // The first token is good for a second, and none comes after it for a while.
    tokens.wait_until("a refusal", |asked| asked.len() >= 2);
    sender.send("a 1 1\n");
    eventually(DEADLINE, "the refusal to be told", || {
        match last_error(&relay) {
            error if error.contains("invalid_grant") => Ok(()),
            error => Err(error),
        }
    });
    tokens.judge(move |_| Some(token("second")));
    let posted = sink.wait_until("a message", |posted| !posted.is_empty());
    assert_eq!(posted[0].headers["authorization"], "Bearer second");
    relay.settle(1);
}

#[test]
fn a_secret_that_is_no_key_leaves_the_destination_out() {
    let sink = HttpSink::open();
    let directory = Directory::of(resources(
        sink.address(),
        "topic: metrics, secret: {name: key}",
    ));
    directory.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {key.json: '{\"type\": \"user\"}'}\n",
    );
    let relay = RelayProcess::start_run(&directory);
    let error = [
        "pubSub.secret.name",
        "Secret default/key: key.json is not a service account's key in JSON",
    ];
    relay.process.wait_for_stderr(DEADLINE, 0, &error);
}
