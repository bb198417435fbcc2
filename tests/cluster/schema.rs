//! What the API server itself refuses, by structural schema and CEL, and in which words.

use harness::{Cluster, destination, object, relay, route};
use serde_json::Value;

// Every refused object, and what kubectl must say about it.
fn refused() -> Vec<(String, &'static [&'static str])> {
    let blocklist = |entries: &str| object("Blocklist", "x", &format!("entries: [{entries}]"));
    let listeners = |listeners: &str| object("Relay", "x", &format!("listeners: [{listeners}]"));
    let long = "x".repeat(1025);
    vec![
        (
            destination("x", ""),
            &[
                "spec: Invalid value",
                "set exactly one endpoint: carbon or file",
            ],
        ),
        (
            destination("x", "file: {path: /tmp/x}, carbon: {address: \"a:2003\"}"),
            &[
                "spec: Invalid value",
                "set exactly one endpoint: carbon or file",
            ],
        ),
        (
            destination("x", "carbon: {address: graphite}"),
            &["spec.carbon.address", "should match"],
        ),
        (
            destination("x", "carbon: {}"),
            &["spec.carbon.address: Required value"],
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
                "supported values: \"DropNewest\", \"Block\"",
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
                "name the protocol: set plaintext",
            ],
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
            &["spec.relayRefs[1]: Duplicate value"],
        ),
        (
            route("x", "destinations: [{name: a}], mach: {prefix: a}"),
            &["unknown field \"spec.mach\""],
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
        ]
        .join("---\n"),
    );
    let host = kubectl.get(&["destination", "host"]);
    let expected = serde_json::json!({
        "carbon": {
            "address": "graphite.example.com:2003",
            "connectTimeout": "5s",
            "writeTimeout": "30s",
        },
        "queue": {"maxBytes": "64Mi", "whenFull": "DropNewest"},
    });
    assert_eq!(host["spec"], expected);
    assert_eq!(
        host["status"]["observedGeneration"], -1,
        "not healthy before it was seen"
    );
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
    assert!(explained.contains("RE2 syntax"), "{explained}");
    for name in ["cwrelay", "cwroute", "cwdest", "cwblock"] {
        let answer = cluster.admin().try_run(&["get", name]);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    }
}
