//! Alerts, dashboards and runbook: that they ask for what there is, fire when they should, and say what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{ApiServer, DEADLINE, Response, eventually, finish, get, relay, skip, tools};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::double;
use crate::helm::Helm;

fn promtool(arguments: &[&Path]) -> Option<()> {
    let promtool = match tools("promtool") {
        Ok(promtool) => promtool,
        Err(why) => {
            skip(&why);
            return None;
        }
    };
    let ended = finish(Command::new(promtool).args(arguments));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    Some(())
}

fn alerts_file() -> PathBuf {
    Helm::chart().join("files/alerts.yaml")
}

/// Every alert: its name and its expression.
fn alerts() -> Vec<(String, String)> {
    let text = fs::read_to_string(alerts_file()).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect()
}

/// Every expression of a dashboard, with something in place of its variables.
fn dashboard_expressions() -> Vec<String> {
    let directory = fs::read_dir(Helm::chart().join("files/dashboards")).unwrap();
    let files = directory.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    files
        .flat_map(|text| {
            let board: Value = serde_json::from_str(&text).unwrap();
            let panels = board["panels"].as_array().unwrap().clone();
            panels
                .into_iter()
                .flat_map(|panel| panel["targets"].as_array().unwrap().clone())
        })
        .map(|target| {
            let expression = target["expr"].as_str().unwrap();
            expression
                .replace("$__rate_interval", "5m")
                .replace('$', "")
        })
        .collect()
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/alerts.yaml");
    promtool(&[Path::new("test"), Path::new("rules"), &tests]);
}

#[test]
fn what_dashboards_ask_can_be_asked() {
    let rules = dashboard_expressions()
        .into_iter()
        .map(|expression| json!({"record": "x", "expr": expression}));
    let rules: Vec<Value> = rules.collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("rules.yaml");
    let groups = json!({"groups": [{"name": "dashboards", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    promtool(&[Path::new("check"), Path::new("rules"), &file]);
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() {
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbook.md");
    let runbook = fs::read_to_string(runbook).unwrap();
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = sections.map(str::to_owned).collect();
    let alerts: Vec<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(sections, alerts);
    let file = fs::read_to_string(alerts_file()).unwrap();
    for name in alerts {
        let url = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(file.contains(&url), "{name} does not lead to its section");
    }
}

#[test]
fn what_alerts_and_dashboards_ask_for_is_there() {
    let api = ApiServer::start();
    api.apply(serde_saphyr::from_str(&relay("", "")).unwrap());
    let mut operator = double::Operator::start(&api);
    operator.wait_until_ready();
    let state = TempDir::new().unwrap();
    let mut relay = operator.start_relay(&state);
    relay.wait_until_ready();
    let mut there = metrics_at(operator.admin());
    there.extend(metrics_at(relay.admin()));
    let alerts = alerts().into_iter().map(|(_, expression)| expression);
    let mut asked = BTreeSet::new();
    for expression in alerts.chain(dashboard_expressions()) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked.extend(
            words
                .filter(|word| word.starts_with("carbonway_"))
                .map(str::to_owned),
        );
    }
    let missing: Vec<_> = asked.difference(&there).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

// The names of all samples that there are or may be.
fn metrics_at(admin: std::net::SocketAddr) -> BTreeSet<String> {
    let text = eventually(DEADLINE, "metrics", || match get(admin, "/metrics") {
        Ok(Response { status: 200, body }) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types: BTreeMap<&str, &str> = types.filter_map(|line| line.split_once(' ')).collect();
    types
        .into_iter()
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_bucket"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect()
}

#[test]
fn a_release_has_what_prometheus_and_grafana_look_for() {
    let Some(helm) = Helm::find() else { return };
    let enabled = json!({"enabled": true, "labels": {"release": "prometheus"}});
    let metrics = json!({
        "serviceMonitor": enabled, "podMonitor": enabled, "prometheusRule": enabled, "dashboards": enabled,
    });
    let manifests = helm.render("metrics", json!({"metrics": metrics}));
    let found = |kind: &str, ending: &str| crate::helm::find(&manifests, kind, ending).clone();
    let objects = [
        found("ServiceMonitor", "-operator"),
        found("PodMonitor", "-relays"),
        found("PrometheusRule", ""),
        found("ConfigMap", "-dashboards"),
    ];
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
    }
    let [service_monitor, pod_monitor, rule, dashboards] = objects;
    let service = found("Service", "-operator");
    let selected = &service_monitor["spec"]["selector"]["matchLabels"];
    for (label, value) in selected.as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][label], *value);
    }
    assert_eq!(
        pod_monitor["spec"]["namespaceSelector"],
        json!({"any": true})
    );
    assert_eq!(
        pod_monitor["spec"]["podMetricsEndpoints"][0]["port"],
        "admin"
    );
    let text = fs::read_to_string(alerts_file()).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(rule["spec"], file);
    let boards: BTreeMap<String, String> =
        serde_json::from_value(dashboards["data"].clone()).unwrap();
    for (name, text) in &boards {
        let path = Helm::chart().join("files/dashboards").join(name);
        assert_eq!(*text, fs::read_to_string(path).unwrap());
    }
    assert_eq!(boards.len(), 2);
    // and none of it unless it is asked for
    let plain = helm.render("metrics", json!({}));
    let kinds: BTreeSet<_> = plain
        .iter()
        .map(|manifest| manifest.object["kind"].clone().to_string())
        .collect();
    assert!(
        !kinds
            .iter()
            .any(|kind| kind.contains("Monitor") || kind.contains("PrometheusRule"))
    );
    assert!(!kinds.contains("\"ConfigMap\""));
}
