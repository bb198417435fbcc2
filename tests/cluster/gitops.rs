//! How those who apply resources from Git judge them: Argo CD, Flux and kustomize, each by what deploy/ has for it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Cluster, Kubectl, RelayProcess, skip, tools};
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::installation::Installation;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read_yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// What judges say of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Healthy,
    Progressing,
    Degraded,
}

use Health::{Degraded, Healthy, Progressing};

// An object of generation 2 as the operator writes it, with these conditions besides those that say nothing.
fn object(observed: i64, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions = conditions.iter().map(|(type_, status, reason)| {
        json!({"type": type_, "status": status, "reason": reason, "message": "m", "observedGeneration": observed})
    });
    let conditions: Vec<Value> = conditions.collect();
    json!({
        "kind": "Route",
        "metadata": {"generation": 2},
        "status": {"observedGeneration": observed, "conditions": conditions},
    })
}

// What it is, how Argo CD judges it, and whether it is current and failed to Flux.
fn cases() -> Vec<(&'static str, Value, Health, bool, bool)> {
    let ready = ("Ready", "True", "Ready");
    let refused = ("Ready", "False", "InvalidPattern");
    vec![
        ("unseen", object(-1, &[]), Progressing, false, false),
        ("changed", object(1, &[ready]), Progressing, false, false),
        ("active", object(2, &[ready]), Healthy, true, false),
        (
            "on its way",
            object(
                2,
                &[
                    ("Ready", "False", "Pending"),
                    ("Reconciling", "True", "Pending"),
                ],
            ),
            Progressing,
            false,
            false,
        ),
        (
            "handing over",
            object(2, &[ready, ("Reconciling", "True", "Draining")]),
            Progressing,
            false,
            false,
        ),
        (
            "bad",
            object(2, &[refused, ("Stalled", "True", "InvalidPattern")]),
            Degraded,
            false,
            true,
        ),
        (
            "bad before it was mended",
            object(1, &[refused, ("Stalled", "True", "InvalidPattern")]),
            Progressing,
            false,
            false,
        ),
        (
            "dangling",
            object(2, &[("Ready", "False", "DestinationNotFound")]),
            Progressing,
            false,
            false,
        ),
        (
            "losing lines",
            object(2, &[ready, ("Degraded", "True", "Dropping")]),
            Degraded,
            true,
            false,
        ),
        (
            "unused",
            object(2, &[("Ready", "False", "NotReferenced")]),
            Healthy,
            false,
            false,
        ),
    ]
}

const LUA: &str = "
import json, sys, lupa.lua51
script, objects = json.load(sys.stdin)
runtime = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
judge = runtime.eval('function(text) return loadstring(text) end')(script)
table = lambda value: runtime.table_from(value, recursive=True)
def health(object):
    runtime.globals().obj = table(object)
    return dict(judge())
json.dump([health(object) for object in objects], sys.stdout)
";

#[test]
fn argo_cd_judges_an_object_by_what_is_applied() {
    let python = match tools("python") {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let config = read_yaml(&deploy().join("argocd/argocd-cm.yaml"));
    let customizations = config["data"]["resource.customizations"].as_str().unwrap();
    let customizations: Value = serde_saphyr::from_str(customizations).unwrap();
    let script = &customizations["carbonway.io/*"]["health.lua"];
    let mut unseen = cases()[0].1.clone();
    unseen.as_object_mut().unwrap().remove("status");
    let mut objects: Vec<Value> = cases().into_iter().map(|case| case.1).collect();
    objects.push(unseen);
    let mut child = Command::new(python)
        .args(["-c", LUA])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    write!(stdin, "{}", json!([script, objects])).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let judged: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let expected = cases().into_iter().map(|case| (case.0, case.2));
    let expected = expected.chain([("without a status", Progressing)]);
    for ((name, health), judged) in expected.zip(&judged) {
        assert_eq!(judged["status"], format!("{health:?}"), "{name}");
        assert!(judged["message"].is_string(), "{name}");
    }
    assert_eq!(judged.len(), cases().len() + 1);
}

#[test]
fn flux_judges_an_object_by_what_is_applied() {
    let kustomization = read_yaml(&deploy().join("flux/kustomization.yaml"));
    let expressions = kustomization["spec"]["healthCheckExprs"]
        .as_array()
        .unwrap();
    let kinds: Vec<_> = expressions
        .iter()
        .map(|of| of["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "Relay",
            "Destination",
            "Route",
            "Blocklist",
            "Rewriter",
            "Aggregator"
        ]
    );
    for of_kind in expressions {
        let holds = |which: &str, object: &Value| {
            let program = cel::Program::compile(of_kind[which].as_str().unwrap()).unwrap();
            let mut context = cel::Context::default();
            for part in ["metadata", "status"] {
                context.add_variable(part, object[part].clone()).unwrap();
            }
            program.execute(&context).unwrap() == cel::Value::Bool(true)
        };
        for (name, object, _, is_current, is_failed) in cases() {
            let judged = (holds("current", &object), holds("failed", &object));
            assert_eq!(judged, (is_current, is_failed), "{name}");
        }
    }
}

#[test]
fn the_kustomize_base_is_what_helm_installs() {
    let Some(helm) = Helm::find() else { return };
    let release = json!({"name": "carbonway", "namespace": "carbonway", "values": {}});
    let templates = helm.call("render", release).unwrap();
    let templates = templates.as_object().unwrap().iter();
    let texts = templates
        .filter(|(path, _)| path.ends_with(".yaml") && !path.contains("/tests/"))
        .filter_map(|(_, text)| text.as_str())
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let text: Vec<&str> = texts.collect();
    let text = format!(
        "# Made from the Helm chart by `make kustomize`.\n---\n{}\n",
        text.join("\n---\n")
    );
    let path = deploy().join("kustomize/base/carbonway.yaml");
    if std::env::var_os("CARBONWAY_WRITE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "deploy/kustomize/base is stale: run `make kustomize`"
    );
}

#[test]
fn the_kustomize_base_is_accepted_and_applied_again_changes_nothing() {
    let Some(cluster) = Cluster::own() else {
        return;
    };
    let kubectl = cluster.namespace("carbonway");
    let base = deploy()
        .join("kustomize/base")
        .to_string_lossy()
        .into_owned();
    let apply = ["apply", "--server-side", "--kustomize", &base];
    kubectl.run(&apply);
    kubectl.run(&["diff", "--server-side", "--kustomize", &base]);
    let answer = kubectl.run(&apply);
    assert_eq!(
        answer.lines().count(),
        answer.matches("serverside-applied").count()
    );
}

#[test]
fn applying_the_same_resources_again_changes_nothing() {
    let Some(installation) = Installation::new("gitops-again") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let quickstart = deploy().join("quickstart").to_string_lossy().into_owned();
    for how in [&["apply", "--server-side"][..], &["apply"]] {
        let apply = [how, &["--filename", &quickstart]].concat();
        kubectl.run(&apply);
        installation.wait_until_ready(&["carbonway", "--all"]);
        relays.iter_mut().for_each(RelayProcess::wait_until_ready);
        // The Relay's status tells of its pods when their workload is made, which nothing that is ready waits for.
        let has_workload = "--for=jsonpath={.status.selector}";
        kubectl.run(&["wait", has_workload, "--timeout=60s", "relay/edge"]);
        let before = versions(kubectl);
        kubectl.run(&apply);
        assert_eq!(versions(kubectl), before, "{how:?}");
        // exits with 1 if there is a difference
        kubectl.run(&["diff", "--filename", &quickstart]);
    }
}

fn versions(kubectl: &Kubectl) -> Vec<(Value, Value)> {
    let objects = kubectl.get(&["carbonway"]);
    let objects = objects["items"].as_array().unwrap().iter();
    let identity = |object: &Value| {
        let metadata = &object["metadata"];
        (metadata["uid"].clone(), metadata["resourceVersion"].clone())
    };
    objects.map(identity).collect()
}
