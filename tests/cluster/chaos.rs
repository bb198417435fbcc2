//! Operators, connections and relays die over and over while resources change; in the end all is as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use fastrand::Rng;
use harness::{
    Cluster, DEADLINE, RelayProcess, Sender, Sink, carbon, eventually, relay, route, unix_seconds,
};
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::installation::{Condition, Installation, PODS, apply_server_side};
use crate::service::{Service, Way};

const NAMESPACE: &str = "metrics";
const ROUNDS: usize = 12;
const ROUTES: usize = 20;
const CHANGES: usize = 5;

/// What a Route says, of those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// To the sink of this number; the second one's Destination comes and goes.
    To(usize),
    /// With a pattern that does not compile.
    Bad,
}

impl Wanted {
    fn manifest(self, number: usize, priority: i32) -> String {
        let (conditions, to) = match self {
            Self::To(sink) => (format!("prefix: r{number}."), sink),
            Self::Bad => ("regex: \"(\"".to_owned(), 0),
        };
        let spec = format!(
            "priority: {priority}, match: {{{conditions}}}, destinations: [{{name: sink-{to}}}]"
        );
        route(&format!("r{number}"), &spec)
    }
}

/// What was applied.
struct World {
    routes: BTreeMap<usize, Wanted>,
    has_second: bool,
    sinks: [Sink; 2],
}

impl World {
    fn destination(&self, number: usize) -> String {
        let address = self.sinks[number].address();
        carbon(&format!("sink-{number}"), address, "")
    }

    // Where a Route's lines go, if they go anywhere.
    fn goes_to(&self, number: usize) -> Option<usize> {
        match self.routes.get(&number)? {
            Wanted::To(1) if !self.has_second => None,
            Wanted::To(sink) => Some(*sink),
            Wanted::Bad => None,
        }
    }

    // What a Route's Ready is to be.
    fn ready(&self, wanted: Wanted) -> (&'static str, &'static str) {
        match wanted {
            Wanted::To(1) if !self.has_second => ("False", "DestinationNotFound"),
            Wanted::To(_) => ("True", "Ready"),
            Wanted::Bad => ("False", "InvalidPattern"),
        }
    }

    fn change(&mut self, random: &mut Rng, kubectl: &harness::Kubectl) {
        let mut manifests = Vec::new();
        let mut gone = Vec::new();
        for _ in 0..CHANGES {
            let number = random.usize(..ROUTES);
            let wanted = match random.u8(..6) {
                0 => None,
                1 => Some(Wanted::Bad),
                _ => Some(Wanted::To(random.usize(..2))),
            };
            match wanted {
                Some(wanted) => {
                    manifests.push(wanted.manifest(number, random.i32(-9..9)));
                    self.routes.insert(number, wanted);
                    gone.retain(|other| *other != number);
                }
                None if self.routes.remove(&number).is_some() => gone.push(number),
                None => {}
            }
        }
        if random.u8(..4) == 0 {
            self.has_second = !self.has_second;
            if !self.has_second {
                kubectl.run(&["delete", "destination", "sink-1"]);
            }
        }
        if self.has_second {
            manifests.push(self.destination(1));
        }
        kubectl.apply(&manifests.join("---\n"));
        for number in gone {
            let name = format!("route/r{number}");
            kubectl.run(&["delete", &name, "--ignore-not-found"]);
        }
    }
}

/// The operators, behind their Service.
struct Operators {
    service: Service,
    started: usize,
}

impl Operators {
    fn start_another(&mut self, installation: &Installation) {
        self.started += 1;
        let name = format!("cw-carbonway-operator-{}", self.started);
        self.service
            .route_to(installation.start_another_operator(&name));
    }

    // As a Deployment does.
    fn start_those_that_ended(&mut self, installation: &Installation) {
        for _ in 0..self.service.remove_the_dead() {
            self.start_another(installation);
        }
    }

    fn wait_for_one_leader(&mut self, installation: &Installation) {
        eventually(DEADLINE, "one operator to lead", || {
            self.start_those_that_ended(installation);
            match self.service.leaders() {
                1 => Ok(()),
                leaders => Err(format!("{leaders} lead")),
            }
        });
    }
}

#[test]
fn what_is_in_force_in_the_end_is_what_was_applied() {
    let (Some(helm), Some(cluster)) = (Helm::find(), Cluster::own()) else {
        return;
    };
    let seed = std::env::var("CARBONWAY_SEED").ok();
    let seed = seed.map_or_else(unix_seconds, |seed| seed.parse().expect("a number"));
    println!("CARBONWAY_SEED={seed}");
    let mut random = Rng::with_seed(seed);

    let kubectl = cluster.namespace(NAMESPACE);
    // so that a relay that was killed is soon missed, and Routes that are gone are soon given up
    let values = json!({"operator": {"extraArgs": ["--reconnect-grace=15s", "--shrink-hold=2s"]}});
    let manifests = helm.render(NAMESPACE, values);
    apply_server_side(&kubectl, &manifests);
    let mut installation = Installation::of(&cluster, kubectl.clone(), manifests);
    installation.kill_operator();
    let way = installation.call_api_server_by(Way::to);
    let mut operators = Operators {
        service: Service::open(),
        started: 0,
    };
    installation.call_operators(operators.service.address());
    operators.start_another(&installation);
    operators.start_another(&installation);
    operators.wait_for_one_leader(&installation);

    let mut world = World {
        routes: BTreeMap::new(),
        has_second: true,
        sinks: [Sink::open(), Sink::open()],
    };
    kubectl.apply(
        &[
            relay("", "replicas: 0,"),
            world.destination(0),
            world.destination(1),
        ]
        .join("---\n"),
    );
    let mut relays = installation.start_relays();
    for round in 0..ROUNDS {
        world.change(&mut random, &kubectl);
        match random.u8(..6) {
            0 | 1 => {
                operators.wait_for_one_leader(&installation);
                operators.service.remove_the_leader(random.bool());
                operators.start_another(&installation);
            }
            2 | 3 => way.cut(),
            4 => {
                let number = random.usize(..2);
                relays[number].process.kill();
                relays[number] = installation.start_relay(PODS[number]);
            }
            _ => {}
        }
        println!("round {round}: {:?}", world.routes);
    }
    // an operator whose lease ran out without its connections has ended
    operators.wait_for_one_leader(&installation);

    // Who knows the last change knows those before it, which is not to be seen of a Route that was deleted.
    world.routes.insert(ROUTES, Wanted::To(0));
    kubectl.apply(&Wanted::To(0).manifest(ROUTES, 0));
    wait_for_what_is_to_be(&world, &kubectl);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    let snapshot = kubectl.get(&["relay", "edge"])["status"]["snapshotVersion"].clone();
    let snapshot = snapshot.as_str().unwrap();
    for (relay, pod) in relays.iter().zip(PODS) {
        let runs = relay
            .metrics()
            .get("carbonway_snapshot_info", &[("version", snapshot)]);
        assert_eq!(runs, Some(1.0));
        lines_go_where_they_are_to(&world, relay.address(), pod);
    }

    // an operator that knows nothing of all that comes to the same
    wait_for_connections(&kubectl);
    let before = versions(&kubectl);
    operators.service.clear();
    operators.start_another(&installation);
    operators.wait_for_one_leader(&installation);
    kubectl.apply(&route(
        "marker",
        "match: {prefix: marker.}, destinations: [{name: sink-0}]",
    ));
    installation.wait_until_ready(&["route/marker"]);
    let mut after = versions(&kubectl);
    after.remove("Route/marker");
    // its snapshot has the marker now
    let relay = after.insert("Relay/edge".to_owned(), before["Relay/edge"].clone());
    assert_ne!(relay.as_ref(), Some(&before["Relay/edge"]));
    assert_eq!(after, before);
}

fn wait_for_what_is_to_be(world: &World, kubectl: &harness::Kubectl) {
    eventually(DEADLINE, "statuses to be those of what was applied", || {
        let objects = kubectl.get(&["routes.carbonway.io"]);
        let objects = objects["items"].as_array().unwrap();
        assert_eq!(objects.len(), world.routes.len());
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let number: usize = name[1..].parse().unwrap();
            let ready = Condition::of(object, "Ready").ok_or(format!("{name} has no status"))?;
            let is_current =
                object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let (status, reason) = world.ready(world.routes[&number]);
            if !is_current || (ready.status.as_str(), ready.reason.as_str()) != (status, reason) {
                return Err(format!("{name}: {ready:?}, wanted {status} {reason}"));
            }
            if status == "True" && ready.message != "active on 2/2 relay pods" {
                return Err(format!("{name}: {}", ready.message));
            }
        }
        let relay = kubectl.get(&["relay", "edge"]);
        if let Some(reconciling) = Condition::of(&relay, "Reconciling") {
            return Err(format!("edge: {reconciling:?}"));
        }
        match Condition::of(&relay, "Ready") {
            Some(ready) if ready.message == "active on 2/2 relay pods" => Ok(()),
            other => Err(format!("edge: {other:?}")),
        }
    });
}

fn lines_go_where_they_are_to(world: &World, relay: SocketAddr, pod: &str) {
    let before = world.sinks.each_ref().map(Sink::line_count);
    let mut wanted = [BTreeSet::new(), BTreeSet::new()];
    for number in 0..=ROUTES {
        let line = format!("r{number}.{pod} 1 1700000000");
        Sender::deliver(relay, format!("{line}\n"));
        if let Some(sink) = world.goes_to(number) {
            wanted[sink].insert(line);
        }
    }
    for ((sink, before), wanted) in world.sinks.iter().zip(before).zip(wanted) {
        let lines = sink.wait_for_lines(before + wanted.len()).into_iter();
        let came = lines.filter(|line| line.contains(pod));
        assert_eq!(BTreeSet::from_iter(came), wanted);
    }
}

// A relay that was started last says later that it is connected than that it runs the snapshot.
fn wait_for_connections(kubectl: &harness::Kubectl) {
    eventually(DEADLINE, "both relays to be connected to all", || {
        let objects = kubectl.get(&["destinations.carbonway.io"]);
        let mut objects = objects["items"].as_array().unwrap().iter();
        let is_partly = |object: &&Value| {
            let connected = &object["status"]["health"]["connectedPods"];
            !connected.is_null() && *connected != "2/2"
        };
        match objects.find(is_partly) {
            Some(object) => Err(object["status"]["health"].to_string()),
            None => Ok(()),
        }
    });
}

fn versions(kubectl: &harness::Kubectl) -> BTreeMap<String, Value> {
    let objects = kubectl.get(&["carbonway"]);
    let objects = objects["items"].as_array().unwrap().iter();
    objects
        .map(|object| {
            let (kind, metadata) = (&object["kind"], &object["metadata"]);
            let name = format!(
                "{}/{}",
                kind.as_str().unwrap(),
                metadata["name"].as_str().unwrap()
            );
            (name, metadata["resourceVersion"].clone())
        })
        .collect()
}
