//! grafana.net's protocol, byte by byte, at a server of ours.

use std::io::Read as _;

use harness::{
    Answer, DEADLINE, Directory, HttpSink, Posted, RelayProcess, Sender, destination, eventually,
    numbered_line, relay, route,
};

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {token: \"123:abc\"}\n";
const SCHEMAS: &str =
    "[fast]\npattern = ^fast\nretentions = 10s:1d\n[all]\npattern = .*\nretentions = 60s:1d\n";
const AGGREGATION: &str = "[default]\npattern = .*\n";

fn directory(sink: &HttpSink, more: &str) -> Directory {
    let spec = format!(
        "url: \"http://{}/graphite/metrics/\", apiKey: {{name: key}}, connections: 1, \
         storageSchemas: {SCHEMAS:?}, {more}",
        sink.address()
    );
    let directory = Directory::of([
        relay("", ""),
        // without a spool, so that lines go in the order in which they came
        destination(
            "g",
            &format!("queue: {{whenFull: Block}}, grafanaNet: {{{spec}}}"),
        ),
        route("all", "destinations: [{name: g}]"),
    ]);
    directory.write("secret.yaml", SECRET);
    directory
}

fn of_path<'a>(posted: &'a [Posted], path: &str) -> Vec<&'a Posted> {
    posted
        .iter()
        .filter(|posted| posted.uri.path() == path)
        .collect()
}

// One point: the map of nine.
fn point(
    org: i64,
    id: &str,
    name: &str,
    interval: i64,
    value: f64,
    time: i64,
    tags: &[&str],
) -> Vec<u8> {
    let text = |text: &str| match text.len() {
        length @ 0..32 => [&[0xa0 | length as u8][..], text.as_bytes()].concat(),
        length => [&[0xd9, length as u8][..], text.as_bytes()].concat(),
    };
    let int = |int: i64| [&[0xd3][..], &int.to_be_bytes()].concat();
    let mut point = vec![0x89];
    point.extend(
        [
            text("Id"),
            text(id),
            text("OrgId"),
            int(org),
            text("Name"),
            text(name),
        ]
        .concat(),
    );
    point.extend([text("Interval"), int(interval), text("Value"), vec![0xcb]].concat());
    point.extend(value.to_be_bytes());
    point.extend([text("Unit"), text("unknown"), text("Time"), int(time)].concat());
    point.extend(
        [
            text("Mtype"),
            text("gauge"),
            text("Tags"),
            vec![0x90 | tags.len() as u8],
        ]
        .concat(),
    );
    point.extend(tags.iter().flat_map(|tag| text(tag)));
    point
}

#[test]
fn points_and_configuration_are_what_grafana_net_takes() {
    let sink = HttpSink::open();
    let directory = directory(
        &sink,
        &format!("batch: {{wait: 0s}}, orgId: 5, storageAggregation: {AGGREGATION:?}"),
    );
    let relay = RelayProcess::run(&directory);
    Sender::deliver(
        relay.address(),
        "fast.a;z=1;b=c 1.5 1700000000\n.slow..b. -2 1700000001\n",
    );
    let posted = sink.wait_until("points and configuration", |posted| posted.len() == 3);
    relay.settle(2);

    let schemas = of_path(&posted, "/graphite/config/storageSchema");
    assert_eq!(
        (schemas.len(), &schemas[0].body[..]),
        (1, SCHEMAS.as_bytes())
    );
    let aggregations = of_path(&posted, "/graphite/config/storageAggregation");
    assert_eq!(
        (aggregations.len(), &aggregations[0].body[..]),
        (1, AGGREGATION.as_bytes())
    );
    assert!(
        posted
            .iter()
            .all(|posted| posted.headers["authorization"] == "Bearer 123:abc")
    );

    let points = of_path(&posted, "/graphite/metrics")[0];
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(points.headers["carbon-relay-ng-instance"], host.trim_end());
    assert_eq!(points.headers["content-type"], "rt-metric-binary-snappy");
    assert!(
        points.headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("carbonway/")
    );
    let mut body = Vec::new();
    snap::read::FrameDecoder::new(&points.body[..])
        .read_to_end(&mut body)
        .unwrap();
    let expected = [
        // the version, and a time that nobody looks at; then an array of two
        vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0x92],
        point(
            5,
            "5.d8b5672a680c941c16e281dbbb47b7c6",
            "fast.a",
            10,
            1.5,
            1_700_000_000,
            &["b=c", "z=1"],
        ),
        point(
            5,
            "5.8508cff9a7df512e1d0f67053585bc8e",
            "slow.b",
            60,
            -2.0,
            1_700_000_001,
            &[],
        ),
    ]
    .concat();
    assert_eq!(
        body.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[test]
fn points_that_the_server_took_and_found_invalid_are_counted_and_told() {
    let sink = HttpSink::open();
    let directory = directory(&sink, "batch: {maxLines: 3, wait: 1m}");
    let relay = RelayProcess::run(&directory);
    sink.judge(|posted| {
        let mut answer = Answer::of(200);
        if !posted.uri.path().contains("/config/") {
            let errors = "{\"too old\":{\"Count\":2,\"ExampleIds\":[0,1]}}";
            answer.body =
                format!("{{\"Invalid\":2,\"Published\":1,\"ValidationErrors\":{errors}}}");
        }
        Some(answer)
    });
    Sender::deliver(
        relay.address(),
        (0..6)
            .map(|number| numbered_line("a", number))
            .collect::<String>(),
    );
    relay.settle(6);
    let left_out = "carbonway_destination_lines_left_out_total";
    assert_eq!(relay.metrics().count(left_out), 4);
    let told = relay.process.stderr().concat();
    // once, for now
    assert_eq!(told.matches("too old").count(), 1, "{told}");
}

#[test]
fn what_is_refused_is_not_tried_for_ever_and_a_server_that_asks_for_time_gets_it() {
    let sink = HttpSink::open();
    let directory = directory(&sink, "batch: {wait: 0s}");
    let state = tempfile::TempDir::new().unwrap();
    let relay = RelayProcess::run_with_state(&directory, state.path());
    sink.judge(|posted| {
        let is_config = posted.uri.path().contains("/config/");
        is_config.then(|| Answer::of(404))
    });
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\n");
    sink.wait_until("a", |posted| {
        of_path(posted, "/graphite/metrics").len() == 1
    });
    let mut busy = Answer::of(429);
    busy.headers.push(("retry-after", "1".to_owned()));
    sink.answer([busy, Answer::of(400)]);
    sender.send("b 2 2\n");
    sink.wait_until("b twice", |posted| {
        of_path(posted, "/graphite/metrics").len() == 3
    });
    sender.send("c 3 3\n");
    sink.wait_until("c", |posted| {
        of_path(posted, "/graphite/metrics").len() == 4
    });
    let accounts = relay.settle(3);
    assert_eq!(
        accounts.destinations["default/g"].dropped,
        [("rejected".to_owned(), 1)].into()
    );
    let kept = harness::get(relay.admin(), "/dead-letters?destination=default/g").unwrap();
    assert!(
        kept.body.ends_with("400 Bad Request\nb 2 2\n"),
        "{}",
        kept.body
    );
    // Without its key it stops, and says so.
    sink.judge(|_| Some(Answer::of(401)));
    sender.send("d 4 4\n");
    eventually(DEADLINE, "it to say so", || {
        let error = &relay.json("/destinations")["destinations"][0]["lastError"]["message"];
        match error
            .as_str()
            .unwrap_or_default()
            .contains("401 Unauthorized")
        {
            true => Ok(()),
            false => Err(error.to_string()),
        }
    });
    assert_eq!(relay.accounts().destinations["default/g"].queued, 1);
}
