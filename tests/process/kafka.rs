//! Kafka: to a broker of its protocol, and read by another client.

use std::collections::{BTreeMap, BTreeSet};

use harness::{
    Authority, DEADLINE, Directory, Flood, Kafka, Message, RelayProcess, Sender, Signal,
    destination, eventually, relay, route,
};
use serde_json::json;

fn directory(kafka: &Kafka, spec: &str) -> Directory {
    let to = format!("brokers: [\"{}\"], {spec}", kafka.address());
    Directory::of([
        relay("", ""),
        destination("k", &format!("kafka: {{{to}}}")),
        route("all", "destinations: [{name: k}]"),
    ])
}

const AT_ONCE: &str = "batch: {wait: 0s}";

fn last_error(relay: &RelayProcess) -> String {
    relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string()
}

#[test]
fn lines_have_their_series_as_key_and_are_where_other_clients_look_for_it() {
    let Some(kafka) = Kafka::with_topic("lines", 5) else {
        return;
    };
    let directory = directory(
        &kafka,
        &format!("topic: lines, compression: Snappy, {AT_ONCE}"),
    );
    let relay = RelayProcess::run(&directory);
    let names: Vec<String> = (0..50)
        .map(|number| format!("servers.web{number}.cpu;dc=ams"))
        .collect();
    let line = |name: &String, value: usize| format!("{name} {value} 1700000000\n");
    let mut sender = Sender::connect(relay.address());
    for value in 0..3 {
        sender.send(
            names
                .iter()
                .map(|name| line(name, value))
                .collect::<String>(),
        );
    }
    relay.settle(150);
    let messages = kafka.consume("lines", 150);
    assert_eq!(messages.len(), 150);
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in &messages {
        values
            .entry(message.key.clone().unwrap())
            .or_default()
            .push(message.text());
    }
    for name in &names {
        let expected = [0, 1, 2].map(|value| line(name, value).trim_end().to_owned());
        assert_eq!(values[name], expected);
    }
    kafka.create("theirs", 5);
    kafka.produce(
        "theirs",
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let theirs = kafka.consume("theirs", 50);
    let theirs: BTreeMap<_, _> = theirs
        .iter()
        .map(|theirs| (&theirs.key, theirs.partition))
        .collect();
    assert!(
        messages
            .iter()
            .all(|ours| theirs[&ours.key] == ours.partition)
    );
}

#[test]
fn points_are_metric_data_as_carbon_relay_ng_sends_it_and_bad_ones_are_counted() {
    let Some(kafka) = Kafka::with_topic("mdm", 1) else {
        return;
    };
    let schemas = "[fast]\\npattern = ^fast\\nretentions = 10s:1d\\n[all]\\npattern = .*\\nretentions = 60s:1d\\n";
    let spec = format!(
        "topic: mdm, {AT_ONCE}, metricData: {{orgId: 7, partitioning: BySeriesWithTags, storageSchemas: \"{schemas}\"}}"
    );
    let directory = directory(&kafka, &spec);
    let relay = RelayProcess::run(&directory);
    Sender::deliver(
        relay.address(),
        "fast.a;b=c 1.5 1700000000\nx;a=~b 1 1\nslow..b 2 1700000001\n",
    );
    let accounts = relay.settle(3);
    assert_eq!(
        accounts.destinations["default/k"].dropped,
        [("rejected".to_owned(), 1)].into()
    );
    let messages = kafka.consume("mdm", 2);
    assert_eq!(messages[0].key, None);
    let unpacked = Kafka::unpack(&messages);
    let point = |id: &str, name: &str, interval: u32, value: f64, time: u32, tags: &[&str]| {
        json!({
            "Id": id, "OrgId": 7, "Name": name, "Interval": interval, "Value": value, "Unit": "unknown",
            "Time": time, "Mtype": "gauge", "Tags": tags,
        })
    };
    let expected = [
        // md5 of "fast.a\0unknown\0gauge\x0010\0b=c" and of "slow.b\0unknown\0gauge\x0060"
        point(
            "7.91b558b4a8ec27db828f0a74eae7cdbd",
            "fast.a",
            10,
            1.5,
            1_700_000_000,
            &["b=c"],
        ),
        point(
            "7.8508cff9a7df512e1d0f67053585bc8e",
            "slow.b",
            60,
            2.0,
            1_700_000_001,
            &[],
        ),
    ];
    assert_eq!(json!(unpacked), json!(expected));
}

#[test]
fn a_broker_or_a_topic_that_is_not_there_yet_is_waited_for() {
    let Some(mut kafka) = Kafka::absent() else {
        return;
    };
    let directory = directory(&kafka, &format!("topic: late, {AT_ONCE}"));
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\n");
    relay.wait_for_connected("k", false);
    kafka.start();
    eventually(
        DEADLINE,
        "the missing topic to be told",
        || match last_error(&relay).contains("there is no topic late: create it") {
            true => Ok(()),
            false => Err(last_error(&relay)),
        },
    );
    kafka.create("late", 2);
    relay.settle(1);
    assert_eq!(kafka.consume("late", 1)[0].text(), "a 1 1");
}

#[test]
fn a_broker_that_stands_still_gets_everything_when_it_goes_on() {
    let Some(kafka) = Kafka::with_topic("still", 3) else {
        return;
    };
    let spec = "topic: still, batch: {maxLines: 500, wait: 10ms}, connections: 2, timeout: 500ms";
    let directory = directory(&kafka, spec);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 10_000);
    for _ in 0..2 {
        flood.wait_for_more(2000);
        kafka.signal(Signal::STOP);
        relay.wait_for_connected("k", false);
        kafka.signal(Signal::CONT);
    }
    let sent = flood.finish();
    relay.settle(sent);
    // What came twice is there twice.
    let messages = kafka.consume("still", sent as usize * 2);
    let seen: BTreeSet<String> = messages.iter().map(Message::text).collect();
    assert_eq!(seen.len() as u64, sent);
}

#[test]
fn a_broker_that_is_killed_over_and_over_gets_everything_in_order() {
    let Some(mut kafka) = Kafka::absent().and_then(Kafka::durable) else {
        return;
    };
    kafka.start();
    kafka.create("killed", 3);
    let spec = "topic: killed, batch: {maxLines: 500, wait: 10ms}, connections: 2";
    let directory = directory(&kafka, spec);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 10_000);
    for _ in 0..5 {
        flood.wait_for_more(2000);
        kafka.kill();
        flood.wait_for_more(1000);
        kafka.start();
        relay.wait_for_connected("k", true);
    }
    let sent = flood.finish();
    relay.settle(sent);
    let mut seen = BTreeSet::new();
    let mut newest = 0;
    for message in kafka.consume("killed", sent as usize * 2) {
        let number: u64 = message.text().split(' ').nth(1).unwrap().parse().unwrap();
        // What comes again may be older; what is new is in order.
        if seen.insert(number) {
            assert!(number >= newest, "{number} after {newest}");
            newest = number;
        }
    }
    assert_eq!(seen.len() as u64, sent);
}

#[test]
fn each_partition_gets_its_lines_where_it_is_led() {
    let Some(kafka) = Kafka::cluster_with_topic(3, "spread") else {
        return;
    };
    let directory = directory(&kafka, &format!("topic: spread, {AT_ONCE}"));
    let relay = RelayProcess::run(&directory);
    let lines = (0..1000).map(|number| format!("s.{number} {number} 1\n"));
    Sender::deliver(relay.address(), lines.collect::<String>());
    relay.settle(1000);
    let messages = kafka.consume("spread", 1000);
    let texts: BTreeSet<String> = messages.iter().map(Message::text).collect();
    assert_eq!(texts.len(), 1000);
    let partitions: BTreeSet<u64> = messages.iter().map(|message| message.partition).collect();
    assert!(partitions.len() >= 3, "{partitions:?}");
}

#[test]
fn a_user_shows_his_password_by_every_mechanism_and_it_can_be_replaced() {
    let Some(kafka) = Kafka::absent() else {
        return;
    };
    let mut kafka = kafka.of_user("relay", "the right one");
    kafka.start();
    let secret = |password: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: user}}\n\
             stringData: {{username: relay, password: {password}}}\n"
        )
    };
    for mechanism in ["Plain", "ScramSha256", "ScramSha512"] {
        kafka.create(mechanism, 2);
        let sasl = format!("sasl: {{mechanism: {mechanism}, secret: {{name: user}}}}");
        let directory = directory(&kafka, &format!("topic: {mechanism}, {sasl}, {AT_ONCE}"));
        directory.write("secret.yaml", &secret("a wrong one"));
        let relay = RelayProcess::run(&directory);
        Sender::deliver(relay.address(), format!("{mechanism} 1 1\n"));
        eventually(DEADLINE, "the refusal to be told", || {
            match last_error(&relay).to_lowercase() {
                error if error.contains("sasl") => Ok(()),
                error => Err(error),
            }
        });
        directory.write("secret.yaml", &secret("the right one"));
        relay.settle(1);
        assert_eq!(
            kafka.consume(mechanism, 1)[0].text(),
            format!("{mechanism} 1 1")
        );
        let log = relay.process.stderr().concat();
        assert!(!log.contains("one"), "a secret is in the log");
    }
}

#[test]
fn a_broker_over_tls_is_believed_if_its_authority_is() {
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(kafka) = Kafka::absent() else {
        return;
    };
    let mut kafka = kafka.of_authority(&authority);
    kafka.start();
    kafka.create("secure", 2);
    let directory = directory(
        &kafka,
        &format!("topic: secure, tls: {{ca: {{name: ca}}}}, {AT_ONCE}"),
    );
    directory.write("ca.yaml", &other.secret("ca"));
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\n");
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
    assert_eq!(kafka.consume("secure", 1)[0].text(), "a 1 1");
}
