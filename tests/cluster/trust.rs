//! Who may be a relay, and which of several operators leads. On clusters of their own, as it takes rights in every namespace.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harness::{
    Cluster, DEADLINE, Process, Sender, Signal, Sink, carbon, eventually, own_address, relay, route,
};
use serde_json::json;

use crate::helm::Helm;
use crate::installation::{ACCOUNT, Installation, PODS, apply_server_side, operator_count};

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
    installation.call_operators(service.address);
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

/// What the Service of the operator is in a cluster: connections go to one that listens, which is the one that leads.
struct Service {
    address: Ipv4Addr,
    operators: Arc<Mutex<Vec<(Ipv4Addr, Process)>>>,
}

impl Service {
    fn open() -> Self {
        let address = own_address();
        let listener = TcpListener::bind((address, 8090)).unwrap();
        let operators = Arc::<Mutex<Vec<(Ipv4Addr, Process)>>>::default();
        let known = Arc::clone(&operators);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let addresses = known
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|(address, _)| *address)
                    .collect::<Vec<_>>();
                let server = addresses
                    .iter()
                    .find_map(|address| TcpStream::connect((*address, 8090)).ok());
                if let Some(server) = server {
                    copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                    copy(server, client);
                }
            }
        });
        Self { address, operators }
    }

    fn route_to(&self, operator: (Ipv4Addr, Process)) {
        self.operators.lock().unwrap().push(operator);
    }

    fn leads(address: Ipv4Addr) -> bool {
        operator_count(address, "carbonway_operator_leading", &[]) == 1
    }

    fn leaders(&self) -> usize {
        let operators = self.operators.lock().unwrap();
        operators
            .iter()
            .filter(|(address, _)| Self::leads(*address))
            .count()
    }

    fn remove_the_leader(&self, is_killed: bool) {
        let mut operators = self.operators.lock().unwrap();
        let leader = operators
            .iter()
            .position(|(address, _)| Self::leads(*address));
        let (_, mut leader) = operators.remove(leader.expect("one leads"));
        if is_killed {
            leader.kill();
        } else {
            leader.signal(Signal::TERM);
            assert_eq!(leader.wait(DEADLINE).code(), Some(0));
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // However it ends, both ends hear of it.
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    });
}
