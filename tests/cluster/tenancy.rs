//! Routes of one namespace on the Relay and to the Destination of another: with leave, and from the moment it is taken back.
//! On a cluster of its own, as the operator works in every namespace.

use harness::{Cluster, Kubectl, RelayProcess, Sender, Sink, carbon, relay, route};
use serde_json::json;

use crate::helm::Helm;
use crate::installation::{Condition, Installation, apply_server_side};

const NAMESPACE: &str = "metrics";

const TRUSTED: &str = "selector: {matchLabels: {carbonway.io/trusted: \"yes\"}}";

const TEAM_ROUTE: &str = "relayRefs: [{name: edge, namespace: metrics}], match: {prefix: team.}, \
                          destinations: [{name: sink, namespace: metrics}]";

#[test]
fn a_route_of_another_namespace_runs_with_leave_and_stops_when_it_is_taken_back() {
    let (Some(helm), Some(cluster)) = (Helm::find(), Cluster::own()) else {
        return;
    };
    let kubectl = cluster.namespace(NAMESPACE);
    let team = cluster.namespace("team");
    let manifests = helm.render(NAMESPACE, json!({}));
    apply_server_side(&kubectl, &manifests);
    kubectl.run(&["wait", "--for=condition=Established", "crd", "--all"]);
    let installation = Installation::of(&cluster, kubectl.clone(), manifests);
    let mut relays = installation.start_relays();
    let sink = Sink::open();
    let allowed_from = |namespaces: &str| {
        carbon(
            "sink",
            sink.address(),
            &format!("allowedFrom: {{namespaces: {namespaces}}},"),
        )
    };
    kubectl.apply(
        &[
            relay(
                "",
                &format!("allowedNamespaces: {{from: Selector, {TRUSTED}}},"),
            ),
            allowed_from(&format!("Selector, {TRUSTED}")),
            route("own", "match: {prefix: own.}, destinations: [{name: sink}]"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    let relay = &relays[0];

    // a stranger hears the same of a Relay that is there and of one that is not
    team.apply(&route("web", TEAM_ROUTE));
    team.apply(&route("lost", &TEAM_ROUTE.replace("edge", "none")));
    let refusal = |name: &str| {
        format!(
            "spec.relayRefs: Relay metrics/{name} does not exist or does not allow namespace team: its \
             spec.allowedNamespaces is to include it"
        )
    };
    for (name, relay) in [("route/web", "edge"), ("route/lost", "none")] {
        let accepted = reason(&team, name, "Accepted", "NotAllowedByRelay");
        assert_eq!(accepted.message, refusal(relay));
    }
    assert_eq!(drops(relay, &sink, 0), 1, "no route takes it");

    // leave, by a label
    kubectl.run(&["label", "namespace", "team", "carbonway.io/trusted=yes"]);
    ready(&team, "route/web");
    let progress = &team.get(&["route", "web"])["status"]["relays"];
    let expected = json!([{"namespace": "metrics", "name": "edge", "programmedPods": "2/2"}]);
    assert_eq!(*progress, expected);
    Sender::deliver(relay.address(), "team.first 1 1700000000\n");
    sink.wait_for_lines(2);

    // and without
    kubectl.run(&["label", "namespace", "team", "carbonway.io/trusted-"]);
    reason(&team, "route/web", "Accepted", "NotAllowedByRelay");
    installation.wait_until_ready(&["relay/edge"]);
    assert_eq!(drops(relay, &sink, 2), 2);

    // the Destination's leave is another matter
    kubectl.run(&["label", "namespace", "team", "carbonway.io/trusted=yes"]);
    ready(&team, "route/web");
    kubectl.apply(&allowed_from("Same"));
    let resolved = reason(&team, "route/web", "ResolvedRefs", "RefNotPermitted");
    assert_eq!(
        resolved.message,
        "spec.destinations[0]: Destination metrics/sink does not exist or does not allow namespace team, so the whole route \
         is left out: its spec.allowedFrom is to include it"
    );
    installation.wait_until_ready(&["relay/edge", "route/own"]);
    assert_eq!(drops(relay, &sink, 3), 3);
}

// Sends a line of each namespace; that of `own` arrives as the one after `arrived` others. Gives how many had no route so far.
fn drops(relay: &RelayProcess, sink: &Sink, arrived: usize) -> u64 {
    let lines = "team.x 1 1700000000\nown.x 1 1700000000\n";
    Sender::deliver(relay.address(), lines);
    sink.wait_for_lines(arrived + 1);
    relay
        .accounts()
        .dropped
        .get("unrouted")
        .copied()
        .unwrap_or_default()
}

fn ready(kubectl: &Kubectl, object: &str) {
    let wait = ["wait", "--for=condition=Ready", object, "--timeout=30s"];
    kubectl.run(&wait);
}

fn reason(kubectl: &Kubectl, object: &str, condition: &str, reason: &str) -> Condition {
    let wanted = format!(
        "--for=jsonpath={{.status.conditions[?(@.type==\"{condition}\")].reason}}={reason}"
    );
    kubectl.run(&["wait", &wanted, object, "--timeout=30s"]);
    Condition::of(&kubectl.get(&[object]), condition).expect("kubectl saw it")
}
