//! What the API server itself refuses, by structural schema and CEL, and in which words.

use std::path::Path;

use harness::{Cluster, aggregator, blocklist, destination, object, relay, rewriter, route};
use serde_json::Value;

// Every refused object, and what kubectl must say about it.
fn refused() -> Vec<(String, &'static [&'static str])> {
    let blocklist = |entries: &str| blocklist("x", entries);
    let rewriter = |rules: &str| rewriter("x", rules);
    let times = |interval: &str, wait: &str| {
        let what = "match: {regex: \"^raw[.](.*)\"}, functions: [Sum], output: agg.$1";
        aggregator("x", &format!("{what}, interval: {interval}, wait: {wait}"))
    };
    let functions = |functions: &str| times("10s", "12s").replace("[Sum]", functions);
    let consistent = "distribution: ConsistentHash, destinations";
    const WHOLE_SECONDS: &str =
        "write whole seconds, minutes or hours without fractions, from 1s to 744h";
    let listeners = |listeners: &str| object("Relay", "x", &format!("listeners: [{listeners}]"));
    let long = "x".repeat(1025);
    vec![
        (
            destination("x", ""),
            &[
                "spec: Invalid value",
                "set exactly one endpoint, such as carbon or file",
            ],
        ),
        (
            destination("x", "file: {path: /tmp/x}, carbon: {address: \"a:2003\"}"),
            &[
                "spec: Invalid value",
                "set exactly one endpoint, such as carbon or file",
            ],
        ),
        (
            destination("x", "carbon: {address: graphite}"),
            &["spec.carbon.address", "should match"],
        ),
        (
            destination(
                "x",
                "carbon: {address: \"graphite:2003\", tls: {serverName: \"a b\", ca: {name: CA}}}",
            ),
            &[
                "spec.carbon.tls.serverName",
                "spec.carbon.tls.ca.name",
                "should match",
            ],
        ),
        (
            relay("tls: {clientCa: {name: ca}},", ""),
            &["spec.listeners[0].tls.certificate: Required value"],
        ),
        (
            destination("x", "carbon: {}"),
            &["set exactly one of address and service"],
        ),
        (
            destination("x", "file: {path: out.txt}"),
            &["spec.file.path", "should match '^/'"],
        ),
        (
            destination("x", "file: {path: /x}, queue: {maxBytes: plenty}"),
            &["spec.queue.maxBytes", "should match"],
        ),
        (
            destination("x", "file: {path: /x}, queue: {whenFull: Explode}"),
            &[
                "spec.queue.whenFull",
                "supported values: \"Spool\", \"DropNewest\", \"DropOldest\", \"Block\"",
            ],
        ),
        (
            listeners("{name: a, port: 1, plaintext: {}}, {name: b, port: 1, plaintext: {}}"),
            &[
                "spec: Invalid value",
                "two listeners have the same port: give each its own",
            ],
        ),
        (
            listeners("{name: a, port: 1, plaintext: {}}, {name: a, port: 2, plaintext: {}}"),
            &["spec.listeners[1]: Duplicate value: {\"name\":\"a\"}"],
        ),
        (
            listeners("{name: a, port: 1}"),
            &[
                "spec.listeners[0]: Invalid value",
                "set exactly one protocol: plaintext, pickle, protobuf or amqp",
            ],
        ),
        (
            listeners("{name: a, port: 1, amqp: {address: \"rabbit:5672\", queues: [{name: q}]}}"),
            &["set exactly one of port and unixSocket, and none with amqp"],
        ),
        (
            listeners("{name: a, amqp: {address: \"rabbit:5672\", queues: []}}"),
            &[
                "spec.listeners[0].amqp.queues",
                "should have at least 1 items",
            ],
        ),
        (
            listeners("{name: a, port: 1, plaintext: {transport: Udp}, compression: Gzip}"),
            &["datagrams come to a port, not encrypted, not compressed"],
        ),
        (
            destination(
                "x",
                "carbon: {address: \"a:1\", transport: Udp, encoding: Pickle}",
            ),
            &["datagrams hold plaintext, not encrypted and not compressed"],
        ),
        (
            destination(
                "x",
                "carbon: {address: \"a:1\", encoding: Pickle, compression: Gzip}",
            ),
            &["only plaintext can be compressed"],
        ),
        (
            destination("x", "file: {path: /dev/stdout, rotate: {maxBytes: 1Mi}}"),
            &["a device cannot be rotated"],
        ),
        (
            destination("x", "prometheusRemoteWrite: {url: \"ftp://a/b\"}"),
            &["spec.prometheusRemoteWrite.url", "should match"],
        ),
        (
            destination(
                "x",
                "prometheusRemoteWrite: {url: \"http://a/b\", auth: {basic: {name: a}, bearer: {name: b}}}",
            ),
            &["set exactly one of basic and bearer"],
        ),
        (
            destination("x", "kafka: {brokers: [], topic: \"a b\"}"),
            &["spec.kafka.brokers", "spec.kafka.topic", "should match"],
        ),
        (
            destination(
                "x",
                "grafanaNet: {url: \"https://a/metric\", apiKey: {name: a}, storageSchemas: x}",
            ),
            &["spec.grafanaNet.url", "should match"],
        ),
        (
            listeners(""),
            &["spec.listeners", "should have at least 1 items"],
        ),
        (
            listeners("{name: a, port: 0, plaintext: {}}"),
            &["spec.listeners[0].port", "greater than or equal to 1"],
        ),
        (
            listeners("{name: a, port: 65536, plaintext: {}}"),
            &["spec.listeners[0].port", "less than or equal to 65535"],
        ),
        (
            listeners("{name: A, port: 1, plaintext: {}}"),
            &["spec.listeners[0].name", "should match"],
        ),
        (
            listeners("{name: a, port: 1, plaintext: {maxLineBytes: 1}}"),
            &[
                "spec.listeners[0].plaintext.maxLineBytes",
                "greater than or equal to 64",
            ],
        ),
        (
            relay("", "drain: {timeout: soon},"),
            &["spec.drain.timeout", "should match"],
        ),
        (
            relay("", "validation: {level: Lax},"),
            &[
                "spec.validation.level",
                "supported values: \"Medium\", \"Strict\", \"None\"",
            ],
        ),
        (
            relay("", "validation: {metrics20Level: Strict},"),
            &[
                "spec.validation.metrics20Level",
                "supported values: \"Medium\", \"None\"",
            ],
        ),
        (
            relay("", "validation: {maxPast: 0s},"),
            &[
                "spec.validation.maxPast: Invalid value",
                "write 1s or more, or leave it out for no limit",
            ],
        ),
        (
            relay("", "validation: {maxFuture: 999ms},"),
            &[
                "spec.validation.maxFuture: Invalid value",
                "write 1s or more, or leave it out for no limit",
            ],
        ),
        (
            blocklist("{prefix: a}, {}"),
            &[
                "spec: Invalid value",
                "an entry has no condition and would drop every line",
            ],
        ),
        (
            blocklist("{prefix: \"\"}"),
            &[
                "spec: Invalid value",
                "an entry has no condition and would drop every line",
            ],
        ),
        (
            blocklist(""),
            &["spec.entries", "should have at least 1 items"],
        ),
        (
            blocklist(&format!("{{prefix: {long}}}")),
            &["spec.entries[0].prefix", "Too long", "1024"],
        ),
        (
            route("x", "match: {prefix: a}"),
            &["spec.destinations: Required value"],
        ),
        (
            route("x", "destinations: []"),
            &["spec.destinations", "should have at least 1 items"],
        ),
        (
            route("x", "destinations: [{match: {prefix: a}}]"),
            &["spec.destinations[0].name: Required value"],
        ),
        (
            route("x", "destinations: [{name: a}], distribution: Sometimes"),
            &[
                "spec.distribution",
                "supported values: \"All\", \"FirstMatch\"",
            ],
        ),
        (
            route("x", "destinations: [{name: a}], priority: 1000001"),
            &["spec.priority", "less than or equal to 1000000"],
        ),
        (
            route(
                "x",
                "destinations: [{name: a}], relayRefs: [{name: a}, {name: a}]",
            ),
            &["spec.relayRefs", "a Relay is named twice: name it once"],
        ),
        (
            route(
                "x",
                "destinations: [{name: a}], relayRefs: [{name: a, namespace: \"b.c\"}]",
            ),
            &["spec.relayRefs[0].namespace", "should match"],
        ),
        (
            relay("", "allowedNamespaces: {from: Selector},"),
            &["spec.allowedNamespaces", "Selector, which needs one"],
        ),
        (
            relay("", "allowedNamespaces: {selector: {}},"),
            &["spec.allowedNamespaces", "a selector is for from: Selector"],
        ),
        (
            relay(
                "",
                "allowedNamespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: In}]}},",
            ),
            &["matchExpressions[0]", "In and NotIn need values"],
        ),
        (
            destination(
                "x",
                "allowedFrom: {namespaces: All, selector: {}}, file: {path: /x}",
            ),
            &["spec.allowedFrom", "a selector is for namespaces: Selector"],
        ),
        (
            route("x", "destinations: [{name: a}], mach: {prefix: a}"),
            &["unknown field \"spec.mach\""],
        ),
        (
            route(
                "x",
                "destinations: [{name: a}], consistentHash: {algorithm: Carbon}",
            ),
            &[
                "spec: Invalid value",
                "consistentHash is for distribution: ConsistentHash only",
            ],
        ),
        (
            route(
                "x",
                &format!("{consistent}: [{{name: a}}, {{name: b, match: {{prefix: b}}}}]"),
            ),
            &[
                "spec: Invalid value",
                "with ConsistentHash the series alone decides: a destination cannot have a match",
            ],
        ),
        (
            route("x", "destinations: [{name: a}, {name: b, instance: b}]"),
            &[
                "spec: Invalid value",
                "an instance is for distribution: ConsistentHash only",
            ],
        ),
        (
            route(
                "x",
                &format!("{consistent}: [{{name: a}}], consistentHash: {{algorithm: Md5}}"),
            ),
            &[
                "spec.consistentHash.algorithm",
                "supported values: \"Carbon\", \"CarbonRelayNg\"",
            ],
        ),
        (
            route(
                "x",
                &format!("{consistent}: [{{name: a}}], consistentHash: {{hashKey: Tags}}"),
            ),
            &[
                "spec.consistentHash.hashKey",
                "supported values: \"Series\", \"Name\", \"Normalised\"",
            ],
        ),
        (
            route(
                "x",
                &format!("{consistent}: [{{name: a}}], consistentHash: {{replicationFactor: 0}}"),
            ),
            &[
                "spec.consistentHash.replicationFactor",
                "greater than or equal to 1",
            ],
        ),
        (
            rewriter(""),
            &["spec.rules", "should have at least 1 items"],
        ),
        (
            rewriter("{name: a, literal: x}"),
            &["spec.rules[0].with: Required value"],
        ),
        (
            rewriter("{name: a, literal: \"\", with: z}"),
            &["spec.rules[0].literal", "should be at least 1 chars long"],
        ),
        (
            rewriter("{name: a, with: z}"),
            &[
                "spec.rules[0]: Invalid value",
                "set exactly one of literal and regex",
            ],
        ),
        (
            rewriter("{name: a, literal: x, with: z}, {name: b, literal: x, regex: x, with: z}"),
            &[
                "spec.rules[1]: Invalid value",
                "set exactly one of literal and regex",
            ],
        ),
        (
            rewriter("{name: a, regex: x, with: z, max: 1}"),
            &[
                "spec.rules[0]: Invalid value",
                "max is for a literal only: a regex replaces all that it matches, so leave max out",
            ],
        ),
        (
            rewriter("{name: a, literal: x, with: z, max: 0}"),
            &["spec.rules[0].max", "greater than or equal to 1"],
        ),
        (
            rewriter("{name: a, literal: x, with: z, unless: {}}"),
            &[
                "spec.rules[0].unless: Invalid value",
                "no condition is set, which would leave every name alone",
            ],
        ),
        (
            rewriter("{name: a, literal: x, with: z, unless: {prefix: \"\", tags: []}}"),
            &[
                "spec.rules[0].unless: Invalid value",
                "no condition is set, which would leave every name alone",
            ],
        ),
        (
            rewriter("{name: a, literal: x, with: z}, {name: a, literal: z, with: x}"),
            &[
                "spec: Invalid value",
                "two rules have the same name: give each its own",
            ],
        ),
        (
            times("10s", "12s").replace("regex", "prefix"),
            &[
                "spec.match.regex: Invalid value",
                "the groups of a regex name the output: set regex",
            ],
        ),
        (
            times("10s", "12s").replace("^raw[.](.*)", ""),
            &[
                "spec.match.regex: Invalid value",
                "the groups of a regex name the output: set regex",
            ],
        ),
        (
            times("10s", "9s"),
            &[
                "spec.wait: Invalid value",
                "wait counts from the start of the bucket",
                "make it at least the interval",
            ],
        ),
        (
            times("0s", "10s"),
            &["spec.interval: Invalid value", WHOLE_SECONDS],
        ),
        (
            times("1500ms", "10s"),
            &["spec.interval: Invalid value", WHOLE_SECONDS],
        ),
        (
            times("10s", "10.5s"),
            &["spec.wait: Invalid value", WHOLE_SECONDS],
        ),
        (
            times("10s", "744h1s"),
            &["spec.wait: Invalid value", WHOLE_SECONDS],
        ),
        (
            functions("[]"),
            &["spec.functions", "should have at least 1 items"],
        ),
        (
            functions("[Sum, Avg, Sum]"),
            &["spec.functions[2]: Duplicate value: \"Sum\""],
        ),
        (
            functions("[Sum, P100]"),
            &["spec.functions[1]", "should match"],
        ),
        (functions("[P0.5]"), &["spec.functions[0]", "should match"]),
        (functions("[sum]"), &["spec.functions[0]", "should match"]),
        (
            functions("[Sum], percentileDefinition: R8"),
            &[
                "spec.percentileDefinition",
                "supported values: \"R6\", \"R7\", \"NearestRank\"",
            ],
        ),
    ]
}

#[test]
fn what_cannot_work_is_refused_in_words_that_say_why() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let kubectl = cluster.namespace("schema-refused");
    for (manifest, fragments) in refused() {
        let answer = kubectl.try_apply(&manifest);
        assert_ne!(answer.code, Some(0), "this was accepted:\n{manifest}");
        for fragment in fragments {
            let said = &answer.stderr;
            assert!(
                said.contains(fragment),
                "no '{fragment}' in '{said}' on:\n{manifest}"
            );
        }
    }
    let left = kubectl.get(&["carbonway"]);
    assert_eq!(left["items"], Value::Array(Vec::new()));
}

#[test]
fn the_examples_are_accepted() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let kubectl = cluster.namespace("schema-examples");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let examples = examples.to_string_lossy();
    kubectl.run(&["apply", "--dry-run=server", "--filename", &examples]);
}

#[test]
fn what_can_work_is_accepted_and_its_defaults_are_filled_in() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let kubectl = cluster.namespace("schema-accepted");
    kubectl.apply(
        &[
            relay("maxConnections: 1, ", "drain: {timeout: 1m30s}, "),
            destination(
                "v6",
                "carbon: {address: \"[::1]:2003\"}, queue: {maxBytes: 65536}",
            ),
            destination("host", "carbon: {address: \"graphite.example.com:2003\"}"),
            route(
                "all",
                "destinations: [{name: v6}, {name: host, match: {notRegex: \"^a\"}}]",
            ),
            object(
                "Blocklist",
                "junk",
                "entries: [{notPrefix: servers.}, {regex: \"^a\"}]",
            ),
            route(
                "shared",
                "distribution: ConsistentHash, consistentHash: {hashKey: Name}, \
                 destinations: [{name: host, instance: a}, {name: v6}]",
            ),
            rewriter(
                "names",
                "{name: a, literal: x, with: \"\", max: 1, unless: {tags: [\"a=b\"]}}, \
                 {name: b, regex: \"(x)\", with: \"${1}x\"}",
            ),
            aggregator(
                "totals",
                "match: {regex: \"^raw\"}, functions: [Sum, Percentiles, P1, P75, P99.9], output: agg, \
                 interval: 1m, wait: 744h",
            ),
        ]
        .join("---\n"),
    );
    let host = kubectl.get(&["destination", "host"]);
    let expected = serde_json::json!({
        "allowedFrom": {"namespaces": "Same"},
        "carbon": {
            "address": "graphite.example.com:2003",
            "connectTimeout": "5s",
            "encoding": "Plaintext",
            "transport": "Tcp",
            "maxConnectionAge": "1h",
            "connections": 1,
            "writeTimeout": "30s",
        },
        "deadLetter": {"maxBytes": "64Mi"},
        "queue": {"maxBytes": "64Mi", "whenFull": "Spool"},
        "resend": {"maxBytes": "8Mi"},
        "spool": {"maxAge": "24h", "maxBytes": "10Gi", "sync": {"interval": "1s"}},
    });
    assert_eq!(host["spec"], expected);
    let validation = serde_json::json!({
        "level": "Medium",
        "metrics20Level": "Medium",
        "nan": "Drop",
        "rejectOutOfOrder": false,
        "tags": "AsReceived",
    });
    let edge = kubectl.get(&["relay", "edge"]);
    assert_eq!(edge["spec"]["validation"], validation);
    let rewriter = kubectl.get(&["rewriter", "names"]);
    assert_eq!(rewriter["spec"]["priority"], 0);
    let totals = serde_json::json!({
        "relayRefs": [],
        "priority": 0,
        "match": {"regex": "^raw"},
        "functions": ["Sum", "Percentiles", "P1", "P75", "P99.9"],
        "output": "agg",
        "interval": "1m",
        "wait": "744h",
        "dropRaw": false,
        "percentileDefinition": "R6",
    });
    let aggregator = kubectl.get(&["aggregator", "totals"]);
    assert_eq!(aggregator["spec"], totals);
    assert_eq!(
        host["status"]["observedGeneration"], -1,
        "not healthy before it was seen"
    );
}

#[test]
fn a_null_is_an_absent_field() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let kubectl = cluster.namespace("schema-nulls");
    for manifest in [
        relay("", "validation: {maxPast: null, maxFuture: null},"),
        rewriter(
            "names",
            "{name: a, literal: x, regex: null, with: z, max: null, unless: null}, \
             {name: b, literal: null, regex: x, with: z, max: null, unless: null}",
        ),
    ] {
        // `kubectl apply` without --server-side leaves nulls out by itself
        kubectl.create(&serde_saphyr::from_str(&manifest).unwrap());
    }
}

#[test]
fn the_crds_are_accepted_without_a_warning_and_can_be_explained() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
    let answer = cluster
        .admin()
        .try_run(&["apply", "--dry-run=server", "--filename", crds]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    let explained = cluster
        .admin()
        .run(&["explain", "routes.carbonway.io.spec.match.regex"]);
    assert!(explained.contains("RE2"), "{explained}");
    for name in ["cwrelay", "cwroute", "cwdest", "cwblock", "cwrw", "cwagg"] {
        let answer = cluster.admin().try_run(&["get", name]);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    }
}
