//! The relay stands alone: what works while the operator does not, and how it comes back.

use harness::{DEADLINE, Flood, Sender, Signal, Sink, carbon, relay, route};

use crate::installation::{Installation, PODS};

#[test]
fn relays_go_on_and_even_restart_without_an_operator_and_follow_it_again_when_it_is_back() {
    let Some(mut installation) = Installation::new("outage") else {
        return;
    };
    let kubectl = installation.kubectl.clone();
    let [mut first, mut second] = installation.start_relays();
    let [old, new] = [Sink::open(), Sink::open()];
    kubectl.apply(
        &[
            relay("", ""),
            carbon("old", old.address(), "queue: {whenFull: Block}, "),
            carbon("new", new.address(), "queue: {whenFull: Block}, "),
            route("all", "destinations: [{name: old}]"),
            route(
                "never",
                "match: {prefix: never.}, destinations: [{name: new}]",
            ),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    first.wait_until_ready();
    second.wait_until_ready();
    let ready_before = installation.condition("route/all", "Ready");

    let flood = Flood::start(first.address(), "load.first");
    flood.wait_for_more(1_000);
    installation.kill_operator();
    flood.wait_for_more(100_000);
    let sent = flood.finish();
    first.settle(sent);
    old.wait_for_lines(sent as usize);
    assert_eq!(old.values()["load.first"], (0..sent).collect::<Vec<_>>());

    // nobody but the relay itself knows what to do
    second.process.signal(Signal::TERM);
    assert_eq!(second.process.wait(DEADLINE).code(), Some(0));
    let mut second = installation.start_relay(PODS[1]);
    second.wait_until_ready();
    Sender::deliver(second.address(), "web.alone 1 1700000000\n");
    old.wait_for_lines(sent as usize + 1);

    // what is applied meanwhile waits
    kubectl.apply(&route("all", "destinations: [{name: new}]"));
    Sender::deliver(second.address(), "web.waits 1 1700000000\n");
    old.wait_for_lines(sent as usize + 2);
    assert_eq!(new.line_count(), 0);
    assert_eq!(installation.condition("route/all", "Ready"), ready_before);

    installation.start_operator();
    installation.wait_until_ready(&["route", "--all"]);
    assert_eq!(
        installation.condition("route/all", "Ready").message,
        "active on 2/2 relay pods"
    );
    for relay in [&first, &second] {
        Sender::deliver(relay.address(), "web.follows 1 1700000000\n");
    }
    assert_eq!(new.wait_for_lines(2), ["web.follows 1 1700000000"; 2]);
}

#[test]
fn a_relay_that_is_gone_is_missed_until_its_pod_is_gone_too() {
    let Some(installation) = Installation::new("outage-relay") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let [mut first, _second] = installation.start_relays();
    let sink = Sink::open();
    kubectl.apply(
        &[
            relay("", ""),
            carbon("sink", sink.address(), ""),
            route("all", "destinations: [{name: sink}]"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    first.process.kill();
    let programmed = installation.wait_for_reason("route/all", "Programmed", "Pending");
    assert_eq!(programmed.message, "active on 1/2 relay pods");

    kubectl.run(&["delete", "pod", PODS[0], "--force", "--grace-period=0"]);
    installation.wait_until_ready(&["route/all"]);
    let ready = installation.condition("route/all", "Ready");
    assert_eq!(ready.message, "active on 1/1 relay pods");

    let third = "relay-c";
    installation.make_pod(third);
    let mut third = installation.start_relay(third);
    third.wait_until_ready();
    let counted = "--for=jsonpath={.status.programmedPods}=2/2";
    kubectl.run(&["wait", counted, "--timeout=30s", "route/all"]);
    Sender::deliver(third.address(), "web.a 1 1700000000\n");
    sink.wait_for_lines(1);
}
