//! Fleets: what a Relay's pods are made by, how many there are, and how they go. With a kube-controller-manager, which makes
//! the pods; a test says that they run, and runs a relay for each.

use harness::{
    Cluster, DEADLINE, Kubectl, RelayProcess, Sender, Sink, carbon, eventually, relay, route,
};
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::installation::{Installation, apply_server_side};

const NAMESPACE: &str = "metrics";
const EVERYTHING: &str =
    "statefulset,deployment,service,serviceaccount,poddisruptionbudget,networkpolicy,pod,pvc";
const OURS: &str = "--selector=carbonway.io/relay=edge";

// The chart, and the operator as it runs it.
fn install() -> Option<(Cluster, Installation)> {
    let (helm, cluster) = (Helm::find()?, Cluster::with_controllers()?);
    let kubectl = cluster.namespace(NAMESPACE);
    let manifests = helm.render(NAMESPACE, json!({"crds": {"enabled": false}}));
    apply_server_side(&kubectl, &manifests);
    let installation = Installation::of(&cluster, kubectl, manifests);
    Some((cluster, installation))
}

fn wait_for(kubectl: &Kubectl, object: &str, path: &str, value: &str) {
    let wanted = format!("--for=jsonpath={{{path}}}={value}");
    kubectl.run(&["wait", &wanted, "--timeout=60s", object]);
}

fn names(kubectl: &Kubectl, kinds: &str) -> Vec<String> {
    let objects = kubectl.get(&[kinds, OURS]);
    let objects = objects["items"].as_array().unwrap().iter();
    let mut names: Vec<_> = objects
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!(
                "{} {}",
                text(&object["kind"]),
                text(&object["metadata"]["name"])
            )
        })
        .collect();
    names.sort();
    names
}

#[test]
fn what_a_relay_wants_no_more_goes_and_what_is_not_its_own_stays() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    let theirs = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: other-relay}\n\
                  spec: {podSelector: {}, policyTypes: [Ingress]}\n";
    kubectl.apply(theirs);
    let edge = relay(
        "",
        "replicas: 0, networkPolicy: {senders: [{podSelector: {}}]},",
    );
    kubectl.apply(&edge);
    kubectl.apply(&relay("", "replicas: 0,").replace("name: edge", "name: other"));
    let of_edge = ["service/edge-relay", "networkpolicy/edge-relay"];
    for object in of_edge.into_iter().chain(["statefulset/other-relay"]) {
        kubectl.run(&["wait", "--for=create", "--timeout=60s", object]);
    }

    kubectl.run(&[
        "patch", "relay", "edge", "--type=json",
        "--patch=[{\"op\": \"remove\", \"path\": \"/spec/networkPolicy\"}, {\"op\": \"replace\", \"path\": \"/spec/listeners\", \
         \"value\": [{\"name\": \"local\", \"unixSocket\": {\"path\": \"/run/a.sock\"}, \"plaintext\": {}}]}]",
    ]);
    let delete = ["wait", "--for=delete", "--timeout=60s"];
    kubectl.run(&[&delete[..], &of_edge].concat());
    kubectl.get(&["networkpolicy", "other-relay"]);
    kubectl.get(&["service", "edge-relay-pods"]);
}

#[test]
fn a_relay_becomes_pods_which_hand_over_what_they_hold_before_they_go() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut sink = Sink::open();
    kubectl.apply(
        &[
            relay("", "replicas: 2,"),
            carbon("a", sink.address(), ""),
            route("all", "destinations: [{name: a}]"),
        ]
        .join("---\n"),
    );
    let pods = ["edge-relay-0", "edge-relay-1"];
    for pod in pods {
        kubectl.run(&[
            "wait",
            "--for=create",
            "--timeout=60s",
            &format!("pod/{pod}"),
        ]);
        installation.say_that_a_pod_runs(pod);
    }
    let [first, mut second] = pods.map(|pod| installation.start_relay(pod));
    installation.wait_until_ready(&["carbonway", "--all"]);
    second.wait_until_ready();
    wait_for(kubectl, "relay/edge", ".status.readyReplicas", "2");
    assert_eq!(
        names(kubectl, EVERYTHING),
        [
            "PersistentVolumeClaim state-edge-relay-0",
            "PersistentVolumeClaim state-edge-relay-1",
            "Pod edge-relay-0",
            "Pod edge-relay-1",
            "PodDisruptionBudget edge-relay",
            "Service edge-relay",
            "Service edge-relay-pods",
            "ServiceAccount edge-relay",
            "StatefulSet edge-relay",
        ]
    );
    let path = "/apis/carbonway.io/v1alpha1/namespaces/metrics/relays/edge/scale";
    let scale = kubectl.run(&["get", "--raw", path]);
    let scale: Value = serde_json::from_str(&scale).unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(2), &json!(2))
    );

    // what waits in the second pod keeps it, and nobody can send it more
    sink.close();
    Sender::deliver(second.address(), "web.waits 1 1700000000\n");
    eventually(DEADLINE, "the line to wait", || {
        let a = &second.accounts().destinations["metrics/a"];
        match a.queued + a.spooled {
            1 => Ok(()),
            lines => Err(format!("{lines}")),
        }
    });
    kubectl.run(&["scale", "relay/edge", "--replicas=1"]);
    let draining = installation.wait_for_reason("relay/edge", "Reconciling", "Draining");
    assert!(draining.message.ends_with(": edge-relay-1"), "{draining:?}");
    let address = second.address();
    eventually(
        DEADLINE,
        "nobody to be let in",
        || match std::net::TcpStream::connect(address) {
            Ok(_) => Err("a connection was made".to_owned()),
            Err(_) => Ok(()),
        },
    );
    assert_eq!(second.status("/readyz"), Some(503));
    assert_eq!(first.status("/readyz"), Some(200));
    let set = kubectl.get(&["statefulset", "edge-relay"]);
    assert_eq!(set["spec"]["replicas"], 2);

    // then it goes, and its volume stays
    sink.reopen();
    assert_eq!(sink.wait_for_lines(1), ["web.waits 1 1700000000"]);
    kubectl.run(&["wait", "--for=delete", "--timeout=60s", "pod/edge-relay-1"]);
    wait_for(kubectl, "relay/edge", ".status.replicas", "1");
    installation.wait_until_ready(&["relay/edge"]);
    let reconciling = kubectl.get(&["relay", "edge"])["status"]["conditions"].to_string();
    assert!(!reconciling.contains("Draining"), "{reconciling}");
    kubectl.get(&["pvc", "state-edge-relay-1"]);

    // the Relay takes everything with it but the volumes
    kubectl.run(&["delete", "relay", "edge"]);
    eventually(DEADLINE, "nothing to be left", || {
        match names(kubectl, EVERYTHING) {
            left if left
                == [
                    "PersistentVolumeClaim state-edge-relay-0",
                    "PersistentVolumeClaim state-edge-relay-1",
                ] =>
            {
                Ok(())
            }
            left => Err(format!("{left:?}")),
        }
    });
}

#[test]
fn of_a_deployment_the_pod_goes_that_was_told_to() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    kubectl.apply(&relay(
        "",
        "replicas: 2, spool: {ephemeral: {sizeLimit: 1Gi}},",
    ));
    let pods = || names(kubectl, "pod");
    eventually(DEADLINE, "two pods", || match pods().len() {
        2 => Ok(()),
        pods => Err(format!("{pods}")),
    });
    let pods: Vec<_> = pods()
        .into_iter()
        .map(|pod| pod.replace("Pod ", ""))
        .collect();
    let start = |pod: &String| {
        installation.say_that_a_pod_runs(pod);
        installation.start_relay(pod)
    };
    let mut relays: Vec<_> = pods.iter().map(start).collect();
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    installation.wait_until_ready(&["relay/edge"]);

    kubectl.run(&["scale", "relay/edge", "--replicas=1"]);
    let draining = installation.wait_for_reason("relay/edge", "Reconciling", "Draining");
    let is_told = |pod: &&String| draining.message.ends_with(pod.as_str());
    let told = pods
        .iter()
        .position(|pod| is_told(&pod))
        .expect("a pod is named");
    eventually(DEADLINE, "it not to be ready", || {
        match relays[told].status("/readyz") {
            Some(503) => Ok(()),
            status => Err(format!("{status:?}")),
        }
    });
    // as its kubelet would
    installation.say_that_a_pod_is_not_ready(&pods[told]);
    kubectl.run(&[
        "wait",
        "--for=delete",
        "--timeout=60s",
        &format!("pod/{}", pods[told]),
    ]);
    assert_eq!(names(kubectl, "pod"), [format!("Pod {}", pods[1 - told])]);
    assert_eq!(relays[1 - told].status("/readyz"), Some(200));
}

#[test]
fn what_is_another_s_is_not_taken_over_and_the_relay_says_so() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    kubectl.run(&["create", "service", "clusterip", "edge-relay", "--tcp=80"]);
    kubectl.apply(&relay("", "spool: {none: {}},"));
    let degraded = installation.wait_for_reason("relay/edge", "Degraded", "FleetNotApplied");
    assert_eq!(
        degraded.message,
        "Service edge-relay exists and does not belong to this Relay: delete it, or give the Relay another name"
    );
    kubectl.run(&["delete", "service", "edge-relay"]);
    kubectl.run(&[
        "wait",
        "--for=create",
        "--timeout=60s",
        "deployment/edge-relay",
    ]);
    let pod = || names(kubectl, "pod").len();
    eventually(DEADLINE, "a pod", || match pod() {
        1 => Ok(()),
        pods => Err(format!("{pods}")),
    });
    let conditions = || kubectl.get(&["relay", "edge"])["status"]["conditions"].to_string();
    eventually(DEADLINE, "all to be well again", || match conditions() {
        said if !said.contains("Degraded") => Ok(()),
        said => Err(said),
    });
}

#[test]
fn volumes_grow_without_a_pod_noticing_and_do_not_shrink() {
    let Some((_cluster, installation)) = install() else {
        return;
    };
    let kubectl = &installation.kubectl;
    let sized = |size: &str| {
        relay(
            "",
            &format!("spool: {{persistent: {{size: {size}, storageClassName: local}}}},"),
        )
    };
    kubectl.apply(VOLUME);
    kubectl.apply(&sized("1Gi"));
    let claim = "pvc/state-edge-relay-0";
    kubectl.run(&["wait", "--for=create", "--timeout=60s", claim]);
    wait_for(kubectl, claim, ".status.phase", "Bound");
    let uid = |object: &[&str]| kubectl.get(object)["metadata"]["uid"].clone();
    let pod = ["pod", "edge-relay-0"];
    let (pod_before, set_before) = (uid(&pod), uid(&["statefulset", "edge-relay"]));

    kubectl.apply(&sized("2Gi"));
    wait_for(kubectl, claim, ".spec.resources.requests.storage", "2Gi");
    let template = ".spec.volumeClaimTemplates[0].spec.resources.requests.storage";
    eventually(DEADLINE, "the StatefulSet to be made anew", || {
        let uid = [
            "get",
            "statefulset",
            "edge-relay",
            "--output=jsonpath={.metadata.uid}",
        ];
        match kubectl.try_run(&uid).stdout {
            now if now.is_empty() || now == set_before => Err(now),
            _ => Ok(()),
        }
    });
    wait_for(kubectl, "statefulset/edge-relay", template, "2Gi");
    assert_eq!(uid(&pod), pod_before);

    let smaller = kubectl.try_apply(&sized("1Gi"));
    assert!(
        smaller.stderr.contains("volumes do not shrink"),
        "{}",
        smaller.stderr
    );
    let other = kubectl.try_run_with(
        &["apply", "--filename", "-"],
        &relay("", "spool: {none: {}},"),
    );
    assert!(
        other.stderr.contains("make another Relay"),
        "{}",
        other.stderr
    );
}

// A class of volumes that may grow, and a volume.
const VOLUME: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
allowVolumeExpansion: true
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local-0}
spec:
  storageClassName: local
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /nowhere}
"#;
