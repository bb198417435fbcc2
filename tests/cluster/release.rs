//! A release's life, by Helm itself: install, work, upgrade, uninstall. On a cluster of its own, as it brings the CRDs and
//! rights in every namespace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use harness::{
    Cluster, DEADLINE, Kubectl, Sender, Sink, binary, carbon, eventually, finish, route,
};
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::installation::Installation;

const NAMESPACE: &str = "metrics";

#[test]
fn a_release_is_installed_works_in_every_namespace_and_leaves_what_is_not_its_own() {
    let (Some(helm), Some(cluster)) = (Helm::find(), Cluster::own()) else {
        return;
    };
    let kubectl = cluster.namespace(NAMESPACE);
    release(&helm, &kubectl, "install");
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=30s",
    ];
    kubectl.run(&wait);

    let manifests = helm.render(NAMESPACE, json!({}));
    let installation = Installation::of(&cluster, kubectl.clone(), manifests);
    let mut relays = installation.start_relays();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/quickstart");
    kubectl.run(&["apply", "--filename", &quickstart.to_string_lossy()]);
    let sink = Sink::open();
    kubectl.apply(&carbon("sink", sink.address(), ""));
    kubectl.apply(&route("everything", "destinations: [{name: sink}]"));
    installation.wait_until_ready(&["routes.carbonway.io", "--all"]);
    for relay in &mut relays {
        relay.wait_until_ready();
        Sender::deliver(relay.address(), "servers.web1.cpu 1 1700000000\n");
    }
    sink.wait_for_lines(2);

    // another namespace is served too: by no fleet, and that is what its Route says
    let other = cluster.namespace("other");
    other.apply(&route("lonely", "destinations: [{name: sink}]"));
    other.run(&[
        "wait",
        "--for=condition=Accepted=False",
        "route/lonely",
        "--timeout=30s",
    ]);

    let before = owned(&kubectl);
    release(&helm, &kubectl, "upgrade");
    assert_eq!(
        owned(&kubectl),
        before,
        "an upgrade to the same chart writes nothing"
    );

    // a rollback to the first revision, which is the same again
    let of_release = |more: Value| {
        let mut request = json!({
            "kubeconfig": kubectl.kubeconfig(),
            "namespace": NAMESPACE,
            "name": "cw",
        });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        request
    };
    let call = |action: &str, more: Value| {
        helm.call(action, of_release(more))
            .unwrap_or_else(|error| panic!("cannot {action}: {error}"))
    };
    call("rollback", json!({"version": 1}));
    assert_eq!(owned(&kubectl), before, "nor does a rollback to it");

    // as a controller would have made it
    kubectl.run(&["create", "serviceaccount", "default"]);
    std::thread::scope(|scope| {
        scope.spawn(|| call("test", json!({})));
        run_test_pod(&kubectl, &installation.operator_admin());
    });
    call("uninstall", json!({}));
    let left = owned(&kubectl);
    let left: Vec<_> = left
        .keys()
        .filter(|name| !name.starts_with("CustomResource"))
        .collect();
    assert_eq!(left, Vec::<&String>::new());
    let routes = kubectl.get(&["routes.carbonway.io", "everything"]);
    assert_eq!(routes["spec"]["destinations"][0]["name"], "sink");
}

// What a kubelet would do with the pod that `helm test` makes: run what it says, and say how that ended.
fn run_test_pod(kubectl: &Kubectl, operator: &str) {
    let pod = eventually(DEADLINE, "the pod of helm test", || {
        let answer = kubectl.try_run(&["get", "pod", "cw-carbonway-test", "--output=json"]);
        let pod = serde_json::from_str::<Value>(&answer.stdout);
        pod.map_err(|_| answer.stderr)
    });
    let argument = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    let host = "cw-carbonway-operator.metrics.svc:8080";
    assert!(argument.contains(host), "{argument}");
    let argument = argument.replace(host, operator);
    let ended = finish(Command::new(binary("carbonway-operator")).arg(argument));
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "HTTP/1.0 200 OK\n")
    );
    let status = json!({"status": {"phase": "Succeeded"}}).to_string();
    let patch = [
        "patch",
        "pod",
        "cw-carbonway-test",
        "--subresource=status",
        "--patch",
        &status,
    ];
    kubectl.run(&patch);
}

fn release(helm: &Helm, kubectl: &Kubectl, action: &str) {
    let request = json!({
        "kubeconfig": kubectl.kubeconfig(),
        "namespace": NAMESPACE,
        "name": "cw",
        "values": {},
    });
    helm.call(action, request)
        .unwrap_or_else(|error| panic!("cannot {action}: {error}"));
}

// The version of every object of the release.
fn owned(kubectl: &Kubectl) -> BTreeMap<String, Value> {
    let kinds =
        "crd,clusterrole,clusterrolebinding,serviceaccount,service,deployment,statefulset,pdb";
    let objects = kubectl.get(&[kinds, "--selector=app.kubernetes.io/instance=cw"]);
    let objects = objects["items"]
        .as_array()
        .expect("kubectl gives a list")
        .iter();
    objects
        .map(|object| {
            let (kind, metadata) = (&object["kind"], &object["metadata"]);
            let name = format!("{}/{}", kind.as_str().unwrap_or_default(), metadata["name"]);
            (name, metadata["resourceVersion"].clone())
        })
        .collect()
}
