//! The operator's whole loop against a double of the API: on every machine, with or without kube-apiserver.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use harness::{
    ApiServer, Authority, DEADLINE, Fleet, Process, RelayProcess, Sender, Sink, TlsSink,
    aggregator, binary, blocklist, carbon, destination, eventually, get, own_address, relay,
    rewriter, route,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::installation::Condition;

const POD: &str = "edge-0";

/// An operator that serves the namespace "default", where objects of the double are.
pub(crate) struct Operator {
    process: Process,
    address: Ipv4Addr,
}

impl Operator {
    /// Starts it.
    pub(crate) fn start(api: &ApiServer) -> Self {
        let address = own_address();
        let mut command = Command::new(binary("carbonway-operator"));
        command
            .args(["--sync-address", &format!("{address}:8090")])
            .args(["--admin-address", &format!("{address}:8080")])
            .env("KUBECONFIG", api.kubeconfig());
        let process = Process::start(&mut command);
        Self { process, address }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        eventually(DEADLINE, "the operator to be ready", || {
            assert_eq!(self.process.exited(), None);
            match get((self.address, 8080).into(), "/readyz") {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Where its metrics are.
    pub(crate) fn admin(&self) -> SocketAddr {
        (self.address, 8080).into()
    }

    /// Starts a relay of the fleet default/edge.
    pub(crate) fn start_relay(&self, state: &TempDir) -> RelayProcess {
        RelayProcess::start_in(Fleet {
            operator: SocketAddr::from((self.address, 8090)),
            relay: "default/edge",
            pod: POD,
            state: state.path(),
            credentials: None,
        })
    }
}

fn apply(api: &ApiServer, manifests: &[String]) {
    for manifest in manifests {
        let object: Value = serde_saphyr::from_str(manifest).expect("manifests are YAML");
        api.apply(object);
    }
}

// A Relay with its pod, a sink, a Route to it, and one of every other kind that leaves the lines of these tests alone.
fn apply_basics(api: &ApiServer, sink: &Sink) {
    api.apply(json!({
        "kind": "Pod",
        "metadata": {"name": POD, "labels": {"carbonway.io/relay": "edge"}},
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    }));
    let manifests = [
        relay("", ""),
        carbon("sink", sink.address(), ""),
        blocklist("junk", "{prefix: junk.}"),
        rewriter("names", "{name: dc, literal: dc1., with: ams.}"),
        aggregator(
            "totals",
            "match: {regex: \"^raw[.](.*)\"}, functions: [Sum], output: total.$1, interval: 1s, wait: 1s",
        ),
        route("web", "match: {prefix: web.}, destinations: [{name: sink}]"),
    ];
    apply(api, &manifests);
}

// Waits until a condition has this reason in the object's present generation.
fn wait_for_reason(
    api: &ApiServer,
    kind: &str,
    name: &str,
    condition: &str,
    reason: &str,
) -> Condition {
    let what = format!("{kind} {name} to be {condition} for the reason {reason}");
    eventually(DEADLINE, &what, || {
        let object = api.get(kind, name).expect("the object is there");
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        match Condition::of(&object, condition) {
            Some(found) if current && found.reason == reason => Ok(found),
            _ => Err(object["status"].to_string()),
        }
    })
}

fn wait_for_health(api: &ApiServer, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(DEADLINE, what, || {
        let sink = api.get("Destination", "sink").expect("it is there");
        match is_so(&sink) {
            true => Ok(sink["status"]["health"].clone()),
            false => Err(sink["status"].to_string()),
        }
    })
}

#[test]
fn a_destination_says_how_it_stands_with_relay_pods_and_stays_ready() {
    let api = ApiServer::start();
    let mut sink = Sink::absent();
    apply_basics(&api, &sink);
    let mut operator = Operator::start(&api);
    operator.wait_until_ready();
    let state = TempDir::new().unwrap();
    let relay = operator.start_relay(&state);
    let down = wait_for_reason(&api, "Destination", "sink", "Degraded", "NotConnected");
    let refused = format!("1 of 1 relay pods cannot connect; {POD}: ");
    assert!(down.message.starts_with(&refused), "{}", down.message);
    let health = wait_for_health(&api, "nobody to be connected", |sink| {
        sink["status"]["health"]["connectedPods"] == "0/1"
    });
    assert_eq!(health["lastError"]["pod"], POD);
    // What it is about is applied, whoever can be reached.
    wait_for_reason(&api, "Destination", "sink", "Ready", "Ready");

    sink.reopen();
    Sender::deliver(relay.address(), "web.a 1 1700000000\n");
    sink.wait_for_lines(1);
    let health = wait_for_health(&api, "the pod to be connected", |sink| {
        Condition::of(sink, "Degraded").is_none()
            && sink["status"]["health"]["connectedPods"] == "1/1"
    });
    assert_eq!(health.get("lastError"), None);
}

#[test]
fn a_relay_says_which_listener_gets_nothing_from_its_broker() {
    let api = ApiServer::start();
    let sink = Sink::open();
    apply_basics(&api, &sink);
    let mut operator = Operator::start(&api);
    operator.wait_until_ready();
    let state = TempDir::new().unwrap();
    let _relay = operator.start_relay(&state);
    wait_until_all_ready(&api);
    // a broker that is not there
    let absent = Sink::absent();
    let rabbit = format!(
        "{{name: rabbit, amqp: {{address: \"{}\", queues: [{{name: q}}]}}}}",
        absent.address()
    );
    let plain = relay("", "");
    let with_rabbit = plain.replace("listeners: [", &format!("listeners: [{rabbit}, "));
    apply(&api, &[with_rabbit]);
    let down = wait_for_reason(&api, "Relay", "edge", "Degraded", "NotConnected");
    let expected =
        format!("listener rabbit: 1 of 1 relay pods get no messages from its broker; {POD}: ");
    assert!(down.message.starts_with(&expected), "{}", down.message);
    wait_for_reason(&api, "Relay", "edge", "Ready", "Ready");
    apply(&api, &[plain]);
    eventually(DEADLINE, "nothing to be wrong", || {
        let edge = api.get("Relay", "edge").expect("it is there");
        match Condition::of(&edge, "Degraded") {
            None => Ok(()),
            Some(_) => Err(edge["status"].to_string()),
        }
    });
}

fn wait_until_all_ready(api: &ApiServer) {
    for (kind, name) in [
        ("Relay", "edge"),
        ("Destination", "sink"),
        ("Blocklist", "junk"),
        ("Rewriter", "names"),
        ("Aggregator", "totals"),
        ("Route", "web"),
    ] {
        let ready = wait_for_reason(api, kind, name, "Ready", "Ready");
        assert_eq!(ready.message, "active on 1/1 relay pods", "{kind} {name}");
    }
}

#[test]
fn what_is_applied_becomes_ready_and_what_is_changed_converges() {
    let (api, sink, state) = (ApiServer::start(), Sink::open(), TempDir::new().unwrap());
    let mut operator = Operator::start(&api);
    operator.wait_until_ready();
    apply_basics(&api, &sink);
    wait_for_reason(&api, "Route", "web", "Programmed", "Pending");
    let mut relay = operator.start_relay(&state);
    wait_until_all_ready(&api);
    relay.wait_until_ready();
    Sender::deliver(
        relay.address(),
        "web.a 1 1700000000\njunk.a 1 1700000000\ndb.a 1 1700000000\n",
    );
    assert_eq!(sink.wait_for_lines(1), ["web.a 1 1700000000"]);

    let neighbours = [
        ("Destination", "sink"),
        ("Blocklist", "junk"),
        ("Rewriter", "names"),
        ("Aggregator", "totals"),
    ];
    let before = neighbours.map(|(kind, name)| api.get(kind, name));
    apply(
        &api,
        &[route(
            "web",
            "match: {prefix: db.}, destinations: [{name: sink}]",
        )],
    );
    wait_until_all_ready(&api);
    Sender::deliver(relay.address(), "db.b 1 1700000000\nweb.b 1 1700000000\n");
    assert_eq!(sink.wait_for_lines(2)[1..], ["db.b 1 1700000000"]);
    assert_eq!(neighbours.map(|(kind, name)| api.get(kind, name)), before);
    relay.settle(5);
}

#[test]
fn a_bad_route_is_left_out_and_mended_with_an_event_for_each() {
    let (api, sink, state) = (ApiServer::start(), Sink::open(), TempDir::new().unwrap());
    apply_basics(&api, &sink);
    apply(
        &api,
        &[
            route(
                "pattern",
                "match: {regex: \"(\"}, destinations: [{name: sink}]",
            ),
            route("target", "destinations: [{name: gone}]"),
        ],
    );
    let operator = Operator::start(&api);
    let _relay = operator.start_relay(&state);
    wait_until_all_ready(&api);
    let pattern = wait_for_reason(&api, "Route", "pattern", "Ready", "InvalidPattern");
    assert!(
        pattern.message.starts_with("spec.match.regex: "),
        "{}",
        pattern.message
    );
    let target = wait_for_reason(&api, "Route", "target", "Ready", "DestinationNotFound");
    assert!(
        target
            .message
            .contains("Destination default/gone does not exist"),
        "{}",
        target.message
    );

    apply(
        &api,
        &[
            route(
                "pattern",
                "match: {regex: \"a\"}, destinations: [{name: sink}]",
            ),
            carbon("gone", sink.address(), ""),
        ],
    );
    for name in ["pattern", "target"] {
        wait_for_reason(&api, "Route", name, "Ready", "Ready");
    }
    api.delete("Destination", "gone");
    wait_for_reason(&api, "Route", "target", "Ready", "DestinationNotFound");
    apply(&api, &[carbon("gone", sink.address(), "")]);
    wait_for_reason(&api, "Route", "target", "Ready", "Ready");
    let mut reasons = eventually(DEADLINE, "an event for each", || {
        let events = api.events("Route", "pattern").into_iter();
        let reasons: Vec<_> = events.map(|(reason, _)| reason).collect();
        if reasons.len() < 2 {
            Err(format!("{reasons:?}"))
        } else {
            Ok(reasons)
        }
    });
    reasons.sort(); // events have no order
    assert_eq!(reasons, ["InvalidPattern", "Ready"]);
}

#[test]
fn watches_that_end_and_history_that_is_forgotten_are_survived() {
    let (api, sink, state) = (ApiServer::start(), Sink::open(), TempDir::new().unwrap());
    let operator = Operator::start(&api);
    apply_basics(&api, &sink);
    let _relay = operator.start_relay(&state);
    wait_until_all_ready(&api);
    api.close_watches();
    apply(
        &api,
        &[route("web", "priority: 1, destinations: [{name: sink}]")],
    );
    wait_until_all_ready(&api);
    api.forget_history();
    apply(
        &api,
        &[route("web", "priority: 2, destinations: [{name: sink}]")],
    );
    wait_until_all_ready(&api);
    eventually(
        DEADLINE,
        "seven kinds to be told that they are behind",
        || match api.expired() {
            7 => Ok(()),
            expired => Err(format!("{expired} were")),
        },
    );

    // what happened while nobody was looking
    api.delete("Blocklist", "junk");
    api.forget_history();
    apply(&api, &[route("web", "destinations: [{name: gone}]")]);
    wait_for_reason(&api, "Route", "web", "Ready", "DestinationNotFound");
    apply(
        &api,
        &[
            route("web", "destinations: [{name: sink}]"),
            blocklist("junk", "{prefix: a}"),
        ],
    );
    wait_until_all_ready(&api);
}

#[test]
fn an_api_server_that_fails_for_a_while_is_survived() {
    let (api, sink, state) = (ApiServer::start(), Sink::open(), TempDir::new().unwrap());
    apply_basics(&api, &sink);
    api.refuse(8);
    let mut operator = Operator::start(&api);
    let relay = operator.start_relay(&state);
    operator.wait_until_ready();
    assert_eq!(api.refusals_left(), 0);
    wait_until_all_ready(&api);

    // the next requests are those that write statuses
    api.refuse(4);
    apply(&api, &[route("web", "destinations: [{name: sink}]")]);
    wait_until_all_ready(&api);
    assert_eq!(api.refusals_left(), 0);
    Sender::deliver(relay.address(), "any.a 1 1700000000\n");
    assert_eq!(sink.wait_for_lines(1), ["any.a 1 1700000000"]);
}

#[test]
fn a_destination_without_its_secret_says_so_and_heals_when_it_appears() {
    let (api, sink, state) = (ApiServer::start(), Sink::open(), TempDir::new().unwrap());
    let authority = Authority::new();
    let secure = TlsSink::open(&authority.identity("graphite"), None);
    apply_basics(&api, &sink);
    let tls = "tls: {serverName: graphite, ca: {name: graphite-ca}}";
    let spec = format!("carbon: {{address: \"{}\", {tls}}}", secure.address());
    let manifests = [
        destination("secure", &spec),
        route("secure", "destinations: [{name: secure}]"),
    ];
    apply(&api, &manifests);
    let operator = Operator::start(&api);
    let mut relay = operator.start_relay(&state);
    wait_until_all_ready(&api);
    let unresolved = wait_for_reason(&api, "Destination", "secure", "Ready", "SecretNotFound");
    assert_eq!(
        unresolved.message,
        "spec.carbon.tls.ca.name: Secret default/graphite-ca does not exist, or must not be read: create it"
    );
    wait_for_reason(&api, "Destination", "secure", "Accepted", "Accepted");
    let route = wait_for_reason(&api, "Route", "secure", "Ready", "DestinationNotAccepted");
    assert!(
        route
            .message
            .contains("Destination default/secure lacks a Secret"),
        "{}",
        route.message
    );

    let secret: Value = serde_saphyr::from_str(&authority.secret("graphite-ca")).unwrap();
    // as the API server keeps it, but not what a CA signs with
    let unusable = json!({
        "kind": "Secret", "metadata": {"name": "graphite-ca"}, "data": {"ca.crt": "aHVzaA=="},
    });
    api.apply(unusable);
    let invalid = wait_for_reason(&api, "Destination", "secure", "Ready", "InvalidSecret");
    assert!(!invalid.message.contains("hush"), "{}", invalid.message);
    api.apply(secret);
    for kind in ["Destination", "Route"] {
        wait_for_reason(&api, kind, "secure", "Ready", "Ready");
    }
    relay.wait_until_ready();
    Sender::deliver(relay.address(), "any.a 1 1700000000\n");
    assert_eq!(secure.wait_for_lines(1), ["any.a 1 1700000000"]);

    let kept = std::fs::metadata(state.path().join("snapshot")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&kept.permissions());
    assert_eq!(mode & 0o777, 0o600);
}
