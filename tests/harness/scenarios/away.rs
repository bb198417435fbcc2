//! Every kind of server that acknowledges is away for a while, under a steady load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{LONG, go_on_for};
use crate::{
    Directory, HttpOutput, HttpSink, Kafka, RabbitMq, RelayProcess, Sender, destination,
    eventually, relay, route, unix_seconds,
};

const SETTINGS: &str = "batch: {wait: 100ms}, timeout: 5s";
const LINES_PER_SECOND: u64 = 1000;

/// Destinations of all kinds get the same lines, and are away together for `length`: what speaks HTTP is not there, RabbitMQ and
/// Kafka are killed. Returns how many lines there were, and how long it took from their return until the last of
/// them had all; `None`, with a message, where a server is not installed.
///
/// # Panics
/// If a line is lost.
pub fn every_sink_is_away(length: Duration) -> Option<(u64, Duration)> {
    let mut rabbit = RabbitMq::start()?;
    rabbit.bind("graphite", "all", "#");
    let mut kafka = Kafka::absent().and_then(Kafka::durable)?;
    kafka.start();
    kafka.create("lines", 3);
    let mut sinks: Vec<_> = HttpOutput::ALL
        .map(|(name, output)| (name, output, HttpSink::open()))
        .into();

    let amqp = format!("amqp: {{address: \"{}\", {SETTINGS}}}", rabbit.address());
    let broker = kafka.address();
    let topic = format!("kafka: {{brokers: [\"{broker}\"], topic: lines, {SETTINGS}}}");
    let mut objects = vec![
        relay("", ""),
        destination("rabbit", &amqp),
        route("rabbit", "destinations: [{name: rabbit}]"),
        destination("kafka", &topic),
        route("kafka", "destinations: [{name: kafka}]"),
    ];
    for (name, output, sink) in &sinks {
        objects.push(destination(name, &output.spec(sink.address(), SETTINGS)));
        objects.push(route(name, &format!("destinations: [{{name: {name}}}]")));
    }
    let directory = Directory::of([objects.join("---\n")]);
    directory.write("secret.yaml", &HttpOutput::secret());
    let state = Directory::of([]);
    let relay = RelayProcess::run_with_state(&directory, state.path());

    let mut sender = Sender::connect(relay.address());
    let mut sent = 0;
    let mut send_for = |seconds: u64| {
        for _ in 0..seconds {
            let now = unix_seconds();
            let lines =
                (sent..sent + LINES_PER_SECOND).map(|number| format!("a.{number} 1 {now}\n"));
            sender.send(lines.collect::<String>());
            sent += LINES_PER_SECOND;
            go_on_for(Duration::from_secs(1));
        }
        sent
    };
    send_for(2);
    sinks.iter_mut().for_each(|(_, _, sink)| sink.close());
    kafka.kill();
    rabbit.kill();
    send_for(length.as_secs());
    let returned = Instant::now();
    sinks.iter_mut().for_each(|(_, _, sink)| sink.reopen());
    kafka.start();
    rabbit.restart();
    let sent = send_for(2);

    eventually(LONG, "every destination to have acknowledged all", || {
        let accounts = relay.accounts();
        accounts.balance()?;
        let waits = |name: &str| {
            let of = accounts.destination(name);
            (of.queued + of.spooled > 0).then(|| format!("{name}: {of:?}"))
        };
        let names = HttpOutput::ALL.map(|(name, _)| name);
        match names.into_iter().chain(["rabbit", "kafka"]).find_map(waits) {
            Some(waits) => Err(waits),
            None => Ok(()),
        }
    });
    let took = returned.elapsed();

    let expected: BTreeSet<String> = (0..sent).map(|number| format!("a.{number}")).collect();
    for (name, output, sink) in &sinks {
        let posted = sink.posted();
        let lines = posted
            .iter()
            .filter(|posted| posted.uri.path() == output.path);
        let names: BTreeSet<String> = lines.flat_map(|posted| output.names(posted)).collect();
        assert!(names == expected, "{name} has {} of {sent}", names.len());
    }
    // What came twice is there twice.
    let messages = kafka.consume("lines", sent as usize * 2);
    let names = messages.iter().filter_map(|message| message.key.clone());
    assert!(
        names.collect::<BTreeSet<_>>() == expected,
        "Kafka has {}",
        messages.len()
    );
    let count = rabbit.count("all") as usize;
    let names = rabbit
        .consume("all", count)
        .into_iter()
        .map(|(name, _)| name);
    assert!(
        names.collect::<BTreeSet<_>>() == expected,
        "RabbitMQ has {count}"
    );
    Some((sent, took))
}
