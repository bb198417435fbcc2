//! Who may be a relay, whom relays believe, and which of several operators leads. What takes rights in every namespace has a
//! cluster of its own.

use std::time::{Duration, Instant};

use harness::{
    Authority, Cluster, DEADLINE, Kubectl, Sender, Sink, carbon, eventually, relay, route,
};
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::installation::{ACCOUNT, Installation, PODS, apply_server_side};
use crate::service::Service;

const NAMESPACE: &str = "metrics";

/// What an operator that was killed may be missed for.
const TAKEOVER_AFTER_KILL: Duration = Duration::from_secs(15);
/// What one may be missed for that was told to stop. The lease of one that was not told so lasts longer than this.
const TAKEOVER_AFTER_TERM: Duration = Duration::from_secs(8);

fn install() -> Option<(Cluster, Installation)> {
    let (helm, cluster) = (Helm::find()?, Cluster::own()?);
    let kubectl = cluster.namespace(NAMESPACE);
    let manifests = helm.render(NAMESPACE, json!({}));
    apply_server_side(&kubectl, &manifests);
    let installation = Installation::of(&cluster, kubectl, manifests);
    Some((cluster, installation))
}

#[test]
fn nobody_is_a_relay_but_who_shows_the_token_of_the_pod_that_it_says_it_is() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    kubectl.apply(&relay("", ""));
    for pod in PODS {
        installation.make_pod(pod);
    }
    let [pod, other] = PODS;
    let pod_of_another_fleet = "of-another-fleet";
    installation.make_pod(pod_of_another_fleet);
    let relabel = [
        "label",
        "pod",
        pod_of_another_fleet,
        "--overwrite",
        "carbonway.io/relay=core",
    ];
    kubectl.run(&relabel);
    let create = ["create", "token", ACCOUNT];
    let token = |more: &[&str]| kubectl.run(&[&create[..], more].concat()).trim().to_owned();
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
    for (says, shows, reason) in [
        (pod, String::new(), "no_token"),
        (pod, "made.up.token".to_owned(), "not_authenticated"),
        // for the API server, as every pod has one
        (pod, token(&bound), "not_authenticated"),
        (pod, token(&["--audience=carbonway-operator"]), "no_pod"),
        (pod, installation.token_of(other), "other_pod"),
        (
            pod_of_another_fleet,
            installation.token_of(pod_of_another_fleet),
            "other_fleet",
        ),
    ] {
        let refused = || {
            let metric = "carbonway_operator_sync_refusals_total";
            installation.operator_count(metric, &[("reason", reason)])
        };
        let before = refused();
        let relay = installation.start_relay_as(says, &shows);
        eventually(DEADLINE, reason, || match refused() {
            now if now > before => Ok(()),
            now => Err(format!("{now}")),
        });
        assert_eq!(
            relay.status("/readyz"),
            Some(503),
            "{reason}: it was given a snapshot"
        );
    }
    let mut welcome = installation.start_relay(pod);
    welcome.wait_until_ready();
}

#[test]
fn another_operator_takes_over_and_relays_never_notice() {
    let Some((_cluster, mut installation)) = install() else {
        return;
    };
    let kubectl = installation.kubectl.clone();
    let service = Service::open();
    installation.call_operators(service.address());
    // those that relays can believe by that name
    installation.kill_operator();
    installation.start_operator();
    installation.wait_for_operator();
    service.route_to(installation.operator());
    let first_pod = "cw-carbonway-operator-1";
    service.route_to(installation.start_another_operator(first_pod));
    let sink = Sink::open();
    let [first, _second] = installation.start_relays();
    kubectl.apply(
        &[
            relay("", "replicas: 0,"),
            carbon("a", sink.address(), ""),
            route("all", "destinations: [{name: a}]"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    let mut sender = Sender::connect(first.address());
    let mut sent = 0;
    for (round, (is_killed, limit)) in [(true, TAKEOVER_AFTER_KILL), (false, TAKEOVER_AFTER_TERM)]
        .into_iter()
        .enumerate()
    {
        let began = Instant::now();
        service.remove_the_leader(is_killed);
        eventually(DEADLINE, "another one to lead", || {
            match service.leaders() {
                1 => Ok(()),
                leaders => Err(format!("{leaders} lead")),
            }
        });
        let took = began.elapsed();
        println!("killed: {is_killed}, another one led after {took:?}");
        assert!(took < limit, "{took:?}");
        // the connection is the one that it was, and what is applied now takes effect
        kubectl.apply(&route(
            "all",
            &format!("priority: {round}, destinations: [{{name: a}}]"),
        ));
        installation.wait_until_ready(&["route/all"]);
        sent += 1;
        sender.send_numbers("load.a", sent - 1, sent);
        sink.wait_for_lines(sent as usize);
        let name = format!("cw-carbonway-operator-{}", round + 2);
        service.route_to(installation.start_another_operator(&name));
    }
    first.settle(sent);
}

const DAY: u64 = 24 * 3600;

// Has a CA of the operator be older than it is.
fn age(kubectl: &Kubectl, which: &str, days: u64) {
    let data = r#"go-template={{index .data "authorities.json" | base64decode}}"#;
    let secret = ["secret", "cw-carbonway-authority"];
    let kept = kubectl.run(&["get", secret[0], secret[1], "--output", data]);
    let mut kept: Value = serde_json::from_str(&kept).unwrap();
    let made = kept[which]["made"].as_u64().unwrap();
    kept[which]["made"] = json!(made - days * DAY);
    let patch = json!({"stringData": {"authorities.json": kept.to_string()}}).to_string();
    kubectl.run(&["patch", secret[0], secret[1], "--patch", &patch]);
}

// Waits until the CAs that relays are told to believe are other ones, and returns these.
fn another_ca(installation: &Installation, known: &str) -> String {
    eventually(
        DEADLINE,
        "relays to be told of another CA",
        || match installation.ca() {
            ca if ca == known => Err(ca),
            ca => Ok(ca),
        },
    )
}

fn apply_route(installation: &Installation, priority: u32) {
    let route = route(
        "all",
        &format!("priority: {priority}, destinations: [{{name: a}}]"),
    );
    installation.kubectl.apply(&route);
    installation.wait_until_ready(&["route/all"]);
}

#[test]
fn the_ca_is_followed_by_another_one_and_nobody_is_restarted() {
    let Some(mut installation) = Installation::new("rotation") else {
        return;
    };
    let kubectl = installation.kubectl.clone();
    let [pod, other_pod] = PODS;
    installation.make_pod(pod);
    let _relay = installation.start_relay(pod);
    let sink = Sink::open();
    kubectl.apply(&[relay("", ""), carbon("a", sink.address(), "")].join("---\n"));
    apply_route(&installation, 1);
    let first = installation.ca();

    age(&kubectl, "signing", 250);
    let both = another_ca(&installation, &first);
    let second = both.replace(&first, "");
    assert!(second.starts_with("-----BEGIN CERTIFICATE"), "{both}");
    installation.mount_ca(pod);
    apply_route(&installation, 2);

    age(&kubectl, "next", 2);
    let both = another_ca(&installation, &both);
    assert_eq!(both, format!("{second}{first}"));
    // whoever connects from now on needs the second one alone
    installation.make_pod(other_pod);
    let token = installation.token_of(other_pod);
    let mut new_relay = installation.start_relay_that_believes(other_pod, &token, &second);
    new_relay.wait_until_ready();
    apply_route(&installation, 3);

    installation.kill_operator();
    installation.start_operator();
    installation.wait_for_operator();
    apply_route(&installation, 4);
    assert_eq!(installation.ca(), both);
}

#[test]
fn certificates_that_somebody_else_makes_are_taken_up_as_they_are_renewed() {
    let secret = "operator-certificate";
    let Some(installation) = Installation::without_operator("renewal", secret) else {
        return;
    };
    let kubectl = installation.kubectl.clone();
    let (first, second) = (Authority::new(), Authority::new());
    let name = installation.operator_name();
    installation.mount_tls(&first.identity(&name), &first.certificate);
    let installation = installation.run();
    let sink = Sink::open();
    kubectl.apply(&[relay("", ""), carbon("a", sink.address(), "")].join("---\n"));
    let [pod, other_pod] = PODS;
    installation.make_pod(pod);
    let _relay = installation.start_relay(pod);
    apply_route(&installation, 1);
    assert_eq!(installation.ca(), first.certificate);

    // half written: of the other one's key, so that nothing is taken up
    let mut mixed = second.identity(&name);
    mixed.key = first.identity(&name).key;
    installation.mount_tls(&mixed, &second.certificate);
    installation.wait_for_operator_to_say(&["not up to date", "tls.key is not the key of"]);
    assert_eq!(installation.ca(), first.certificate);

    installation.mount_tls(&second.identity(&name), &second.certificate);
    assert_eq!(
        another_ca(&installation, &first.certificate),
        second.certificate
    );
    installation.make_pod(other_pod);
    let mut new_relay = installation.start_relay(other_pod);
    new_relay.wait_until_ready();
    apply_route(&installation, 2);
}
