use crds::Relay;
use serde_json::json;

use super::*;

fn relay(spec: Value) -> Relay {
    let mut object = json!({
        "apiVersion": "carbonway.io/v1alpha1",
        "kind": "Relay",
        "metadata": {"name": "edge", "namespace": "metrics", "uid": "1-2"},
        "spec": {"listeners": [{"name": "plain", "port": 2003, "plaintext": {}}]},
    });
    lay_over(&mut object["spec"], &spec);
    serde_json::from_value(object).unwrap()
}

fn settings(image: &str) -> Settings {
    Settings {
        image: image.to_owned(),
        operator: "https://operator:8090".to_owned(),
    }
}

// The workload of a Relay, over what there is.
fn workload_of(spec: Value, image: &str, live: &Live) -> Value {
    let objects = objects(&relay(spec), &settings(image), live, 2);
    objects.last().unwrap().clone()
}

// What there is after `workload` was applied.
fn live(workload: &Value) -> Live {
    let made_of = &workload["metadata"]["annotations"][TEMPLATE_ANNOTATION];
    Live {
        template: workload["spec"]["template"].clone(),
        made_of: made_of.as_str().map(str::to_owned),
    }
}

fn image_of(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]["image"]
}

#[test]
fn a_new_operator_alone_changes_no_pod() {
    let before = workload_of(json!({}), "relay:1", &Live::default());
    assert_eq!(workload_of(json!({}), "relay:2", &live(&before)), before);
    // not even where it would make them otherwise
    let mut other = before.clone();
    other["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["--old"]);
    assert_eq!(workload_of(json!({}), "relay:2", &live(&other)), other);
}

#[test]
fn pods_get_another_image_when_the_relay_says_so() {
    let before = workload_of(json!({}), "relay:1", &Live::default());
    let named = workload_of(json!({"image": "relay:3"}), "relay:2", &live(&before));
    assert_eq!(image_of(&named), "relay:3");
    let automatic = json!({"upgrade": "Automatic"});
    let followed = workload_of(automatic.clone(), "relay:1", &live(&before));
    let followed = workload_of(automatic, "relay:2", &live(&followed));
    assert_eq!(image_of(&followed), "relay:2");
    // what else changes leaves the image alone
    let other = json!({"podTemplate": {"metadata": {"labels": {"team": "a"}}}});
    assert_eq!(
        image_of(&workload_of(other, "relay:2", &live(&before))),
        "relay:1"
    );
}

#[test]
fn what_a_snapshot_tells_is_not_in_the_pods_template() {
    let template =
        |spec| workload_of(spec, "relay:1", &Live::default())["spec"]["template"].clone();
    let more = json!({
        "listeners": [{"name": "other", "port": 2103, "plaintext": {}}],
        "drain": {"timeout": "1m"},
        "validation": {"level": "Strict"},
    });
    assert_eq!(template(more), template(json!({})));
    let long = template(json!({"drain": {"timeout": "10m"}}));
    assert_eq!(long["spec"]["terminationGracePeriodSeconds"], 620);
}

#[test]
fn the_service_has_a_port_for_every_way_in() {
    let service = |listeners: Value| {
        let mut relay = relay(json!({}));
        relay.spec.listeners = serde_json::from_value(listeners).unwrap();
        let objects = objects(&relay, &settings("a"), &Live::default(), 1);
        let service = objects.into_iter().find(|object| {
            object["kind"] == "Service" && object["metadata"]["name"] == "edge-relay"
        });
        let ports = service?["spec"]["ports"].as_array()?.clone();
        let port = |port: &Value| format!("{} {} {}", port["name"], port["port"], port["protocol"]);
        Some(ports.iter().map(port).collect::<Vec<_>>().join(", "))
    };
    let both = json!({"transport": "TcpAndUdp"});
    let ports = service(json!([
        {"name": "lines", "port": 2003, "plaintext": both},
        {"name": "datagrams", "port": 2013, "plaintext": {"transport": "Udp"}},
        {"name": "pickle", "port": 2004, "pickle": {}},
        {"name": "local", "unixSocket": {"path": "/run/a.sock"}, "plaintext": {}},
    ]));
    let expected = "\"lines\" 2003 \"TCP\", \"lines-udp\" 2003 \"UDP\", \"datagrams\" 2013 \"UDP\", \"pickle\" 2004 \"TCP\"";
    assert_eq!(ports.as_deref(), Some(expected));
    let ports = service(json!([
        {"name": "a", "port": 1, "plaintext": both},
        {"name": "a-udp", "port": 2, "plaintext": both},
    ]));
    let expected =
        "\"a\" 1 \"TCP\", \"udp-1\" 1 \"UDP\", \"a-udp\" 2 \"TCP\", \"a-udp-udp\" 2 \"UDP\"";
    assert_eq!(ports.as_deref(), Some(expected));
    let local = json!({"name": "local", "unixSocket": {"path": "/run/a.sock"}, "plaintext": {}});
    assert_eq!(service(json!([local])), None);
}

#[test]
fn the_spool_decides_what_runs_the_pods() {
    let spooling = |spool| workload_of(json!({"spool": spool}), "a", &Live::default());
    let persistent = spooling(json!({"persistent": {"size": "20Gi", "storageClassName": "fast"}}));
    assert_eq!(persistent["kind"], "StatefulSet");
    let claim = &persistent["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["storageClassName"], "fast");
    assert_eq!(claim["resources"]["requests"]["storage"], "20Gi");
    let ephemeral = spooling(json!({"ephemeral": {"sizeLimit": "5Gi"}}));
    assert_eq!(ephemeral["kind"], "Deployment");
    let volumes = &ephemeral["spec"]["template"]["spec"]["volumes"];
    assert_eq!(
        volumes[0],
        json!({"name": "state", "emptyDir": {"sizeLimit": "5Gi"}})
    );
    let none = spooling(json!({"none": {}}));
    let arguments = none["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap();
    assert!(arguments.contains(&json!("--no-spool")));
}

#[test]
fn people_may_change_pods_but_not_whose_they_are() {
    let over = json!({"podTemplate": {
        "metadata": {"labels": {"team": "a", (RELAY_LABEL): "other"}, "annotations": {"b": "c"}},
        "spec": {
            "priorityClassName": "high",
            "containers": [{"name": "relay", "resources": {"limits": {"memory": "2Gi"}}}],
        },
    }});
    let template = workload_of(over, "a", &Live::default())["spec"]["template"].clone();
    let labels = &template["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels[RELAY_LABEL]),
        (&json!("a"), &json!("edge"))
    );
    assert_eq!(template["metadata"]["annotations"], json!({"b": "c"}));
    assert_eq!(template["spec"]["priorityClassName"], "high");
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(container["image"], "a");
}
