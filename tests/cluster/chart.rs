//! The chart: what Helm's engine makes of it, and what a real API server makes of that.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, iter};

use harness::{Cluster, Kubectl};
use serde_json::{Value, json};

use crate::helm::{Helm, Manifest, find, here_document, name};
use crate::installation::apply_server_side;

#[test]
fn the_charts_copies_of_the_crds_are_fresh() {
    let chart = manifests_in(&Helm::chart().join("files/crds"));
    let source = manifests_in(&Helm::chart().join("../../crds/yaml"));
    assert!(
        chart == source,
        "charts/carbonway/files/crds is stale: run `make chart`"
    );
}

fn manifests_in(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("a directory can be read").path());
    let read = |path: &Path| fs::read_to_string(path).expect("a manifest can be read");
    paths
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                read(&path),
            )
        })
        .collect()
}

#[test]
fn lint_finds_nothing() {
    let Some(helm) = Helm::find() else { return };
    let report = helm
        .call("check", json!({"strict": true, "namespace": "metrics"}))
        .unwrap();
    // 1: for your information; that there is no icon
    let messages = report["messages"].as_array().unwrap().iter();
    let findings: Vec<_> = messages
        .filter(|message| message["severity"] != 1)
        .collect();
    assert_eq!((findings, &report["errors"]), (Vec::new(), &json!([])));
}

#[test]
fn values_that_do_not_exist_or_cannot_be_are_refused_by_name() {
    let Some(helm) = Helm::find() else { return };
    for (values, fragment) in [
        (
            json!({"relays": {}}),
            "additional properties 'relays' not allowed",
        ),
        (
            json!({"relay": {"replica": 3}}),
            "at '/relay': additional properties 'replica'",
        ),
        (
            json!({"operator": {"image": {"tagg": "x"}}}),
            "at '/operator/image'",
        ),
        (json!({"log": {"level": "loud"}}), "at '/log/level'"),
        (
            json!({"relay": {"image": {"digest": "latest"}}}),
            "at '/relay/image/digest'",
        ),
    ] {
        let refusal = helm
            .try_render("metrics", values.clone())
            .expect_err("a bad value");
        assert!(
            refusal.contains(fragment),
            "no \"{fragment}\" in: {refusal}"
        );
    }
}

#[test]
fn every_value_is_in_the_readme() {
    let Some(helm) = Helm::find() else { return };
    let values = helm.call("values", json!({})).unwrap();
    let readme = fs::read_to_string(Helm::chart().join("README.md")).unwrap();
    for path in leaves("", &values) {
        // what the operator and the relay both have is described once
        let short = path.split_once('.').map_or("", |(_, rest)| rest);
        let described = [path.as_str(), short]
            .iter()
            .any(|name| readme.contains(&format!("`{name}`")));
        assert!(described, "{path} is not in the chart's README");
    }
}

fn leaves(path: &str, values: &Value) -> Vec<String> {
    match values.as_object() {
        // what is in resources is Kubernetes' business
        Some(fields) if !fields.is_empty() && !path.ends_with(".resources") => {
            let dot = if path.is_empty() { "" } else { "." };
            let fields = fields.iter();
            fields
                .flat_map(|(key, value)| leaves(&format!("{path}{dot}{key}"), value))
                .collect()
        }
        _ => vec![path.to_owned()],
    }
}

#[test]
fn the_operator_may_do_what_it_must_and_nothing_else() {
    let Some(helm) = Helm::find() else { return };
    let rules = json!([
        {
            "apiGroups": ["carbonway.io"],
            "resources": [
                "relays", "destinations", "routes", "blocklists", "rewriters", "aggregators",
            ],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["carbonway.io"],
            "resources": [
                "relays/status", "destinations/status", "routes/status", "blocklists/status",
                "rewriters/status", "aggregators/status",
            ],
            "verbs": ["patch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["carbonway-ca"],
            "verbs": ["patch"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets", "deployments"],
            "verbs": ["get", "list", "watch", "create", "patch"],
        },
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["delete"]},
        {
            "apiGroups": [""],
            "resources": ["services", "serviceaccounts"],
            "verbs": ["get", "create", "patch"],
        },
        {"apiGroups": [""], "resources": ["services"], "verbs": ["delete"]},
        {
            "apiGroups": ["policy"],
            "resources": ["poddisruptionbudgets"],
            "verbs": ["get", "create", "patch"],
        },
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["networkpolicies"],
            "verbs": ["get", "create", "patch", "delete"],
        },
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    ]);
    let own = json!([
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["cw-carbonway-operator"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["cw-carbonway-authority"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    ]);
    let cluster_wide = helm.render("metrics", json!({}));
    assert_eq!(
        kinds_of_rbac(&cluster_wide),
        [
            "ClusterRole", // the operator's
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ClusterRole", // for tokens
            "ClusterRoleBinding",
            "ClusterRole", // for those who edit
            "ClusterRole", // for those who view
        ]
    );
    assert_eq!(find(&cluster_wide, "Role", "-own")["rules"], own);
    let tokens = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    ]);
    assert_eq!(
        find(&cluster_wide, "ClusterRole", "-tokens")["rules"],
        tokens
    );
    assert_eq!(
        find(&cluster_wide, "ClusterRole", "operator")["rules"],
        rules
    );
    let namespaced = helm.render("metrics", json!({"watch": {"namespace": "metrics"}}));
    let kinds = ["Role", "RoleBinding", "Role", "RoleBinding"];
    assert_eq!(kinds_of_rbac(&namespaced), kinds);
    // there is no other namespace to allow
    let mut of_one = rules.as_array().unwrap().clone();
    of_one.retain(|rule| rule["resources"] != json!(["namespaces"]));
    assert_eq!(
        find(&namespaced, "Role", "operator")["rules"],
        json!(of_one)
    );
    let of_secrets = |secrets: Value| {
        let manifests = helm.render("metrics", json!({"rbac": {"secrets": secrets}}));
        let rules = find(&manifests, "ClusterRole", "operator")["rules"].clone();
        let mut rules = rules.as_array().unwrap().clone().into_iter();
        rules.find(|rule| rule["resources"] == json!(["secrets"]))
    };
    assert_eq!(of_secrets(json!({"enabled": false})), None);
    let one = json!({
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["relay-tls"], "verbs": ["get"],
    });
    assert_eq!(of_secrets(json!({"names": ["relay-tls"]})), Some(one));
}

fn kinds_of_rbac(manifests: &[Manifest]) -> Vec<&str> {
    let objects = manifests.iter().map(|manifest| &manifest.object);
    objects
        .filter(|object| object["apiVersion"] == "rbac.authorization.k8s.io/v1")
        .filter_map(|object| object["kind"].as_str())
        .collect()
}

#[test]
fn a_release_is_accepted_where_pods_must_be_restricted_and_applying_it_again_changes_nothing() {
    let (Some(cluster), Some(helm)) = (Cluster::shared(), Helm::find()) else {
        return;
    };
    let kubectl = cluster.namespace("chart-applied");
    let manifests = helm.render("chart-applied", json!({}));
    apply_server_side(&kubectl, &manifests);
    let before = versions(&kubectl, &manifests);
    apply_server_side(&kubectl, &manifests);
    assert_eq!(versions(&kubectl, &manifests), before);
    let template = &find(&manifests, "Deployment", "-operator")["spec"]["template"];
    let operator_pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    });
    assert_eq!(refusal(&kubectl, &operator_pod), None);
    // and the namespace does look
    let mut privileged = operator_pod;
    let context = &mut privileged["spec"]["containers"][0]["securityContext"];
    context["privileged"] = json!(true);
    context["allowPrivilegeEscalation"] = json!(true);
    let refusal = refusal(&kubectl, &privileged).expect("nobody may be privileged");
    assert!(
        refusal.contains("violates PodSecurity \"restricted"),
        "{refusal}"
    );
}

fn versions(kubectl: &Kubectl, manifests: &[Manifest]) -> Vec<(String, Value)> {
    let objects = manifests.iter().map(|manifest| &manifest.object);
    objects
        .map(|object| {
            let kind = object["kind"].as_str().expect("an object has a kind");
            let found = kubectl.get(&[kind, name(object)]);
            (
                format!("{kind}/{}", name(object)),
                found["metadata"]["resourceVersion"].clone(),
            )
        })
        .collect()
}

fn refusal(kubectl: &Kubectl, object: &Value) -> Option<String> {
    let create = ["create", "--dry-run=server", "--filename", "-"];
    let answer = kubectl.try_run_with(&create, &object.to_string());
    (answer.code != Some(0) || !answer.stderr.is_empty()).then_some(answer.stderr)
}

#[test]
fn whatever_the_values_the_api_server_accepts_what_comes_of_them() {
    let (Some(cluster), Some(helm)) = (Cluster::shared(), Helm::find()) else {
        return;
    };
    let kubectl = cluster.namespace("chart-values");
    let everything = json!({
        "nameOverride": "metrics-relay",
        "commonLabels": {"team": "observability"},
        "imagePullSecrets": [{"name": "registry"}],
        "global": {"imageRegistry": "registry.example.com:5000"},
        "networkPolicy": {"enabled": true},
        "operator": {
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "extraArgs": ["--log-level=debug"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "service": {"annotations": {"a": "b"}},
            "serviceAccount": {"annotations": {"a": "b"}},
        },
        "relay": {"image": {"digest": format!("sha256:{}", "0".repeat(64))}},
    });
    let operator_alone = json!({"relay": {"enabled": false}, "rbac": {"create": false}});
    let without_crds = iter::once(json!({"crds": {"enabled": false}}));
    for mut values in without_crds.chain([everything, operator_alone]) {
        values["crds"] = json!({"enabled": false});
        for Manifest { template, object } in helm.render("chart-values", values.clone()) {
            assert_eq!(refusal(&kubectl, &object), None, "{template} with {values}");
        }
    }
}

#[test]
fn the_notes_give_manifests_that_can_be_applied() {
    let (Some(cluster), Some(helm)) = (Cluster::shared(), Helm::find()) else {
        return;
    };
    let kubectl = cluster.namespace("chart-notes");
    let release = json!({"name": "cw", "namespace": "chart-notes", "values": {}});
    let templates = helm.call("render", release).unwrap();
    let notes = templates["carbonway/templates/NOTES.txt"].as_str().unwrap();
    kubectl.apply(&here_document(notes));
    kubectl.get(&["relay", "edge"]);
    let route = kubectl.get(&["route", "everything"]);
    let destination = route["spec"]["destinations"][0]["name"].as_str().unwrap();
    kubectl.get(&["destination", destination]);
    for line in [
        "kubectl wait -n chart-notes --for=condition=Ready routes.carbonway.io --all",
        "nc -q0 localhost 2003",
    ] {
        assert!(notes.contains(line), "no '{line}' in {notes}");
    }
}
