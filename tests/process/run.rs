//! `carbonway run`: how it starts, and when it does not.

use std::net::TcpListener;
use std::process::Command;

use harness::{DEADLINE, Directory, Process, RelayProcess, carbon, get, own_address, relay, route};
use serde_json::{Value, json};

fn to_nowhere() -> [String; 2] {
    let nowhere = ([127, 0, 0, 1], 1).into();
    [
        carbon("a", nowhere, ""),
        route("all", "destinations: [{name: a}]"),
    ]
}

// Runs a directory that cannot be run. Returns standard error.
fn refusal(directory: &Directory) -> String {
    let own = own_address();
    let mut command = Command::new(harness::binary("carbonway"));
    command.arg("run").arg(directory.path());
    command.args([
        "--listen-address",
        &own.to_string(),
        "--admin-address",
        &format!("{own}:8080"),
    ]);
    let mut process = Process::start(command.env("CARBONWAY_LOG_FORMAT", "text"));
    assert_eq!(process.wait(DEADLINE).code(), Some(1));
    process.stderr().join("\n")
}

#[test]
fn a_directory_with_a_finding_is_not_run() {
    let [a, _] = to_nowhere();
    let directory = Directory::of([
        relay("", ""),
        a,
        route("all", "match: {regex: '('}, destinations: [{name: a}]"),
    ]);
    let stderr = refusal(&directory);
    let path = directory.file("resources.yaml");
    let finding = format!(
        "{}:11: Route default/all: spec.match.regex: ",
        path.display()
    );
    assert!(stderr.contains(&finding), "{stderr}");
}

#[test]
fn a_directory_without_a_relay_or_with_several_is_not_run_unless_one_is_named() {
    let [a, all] = to_nowhere();
    let without = refusal(&Directory::of([a.clone()]));
    assert!(without.contains("there is no Relay"), "{without}");
    let other = relay("", "")
        .replace("edge", "other")
        .replace("\"true\"", "\"false\"");
    let directory = Directory::of([relay("", ""), other, a, all]);
    let several = refusal(&directory);
    assert!(several.contains("--relay NAMESPACE/NAME"), "{several}");
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    let [a, all] = to_nowhere();
    let directory = Directory::of([relay("", ""), a, all]);
    let own = own_address();
    let _taken = TcpListener::bind((own, 2003)).unwrap();
    let mut command = Command::new(harness::binary("carbonway"));
    command.arg("run").arg(directory.path());
    command.args([
        "--listen-address",
        &own.to_string(),
        "--admin-address",
        &format!("{own}:8080"),
    ]);
    let mut process = Process::start(&mut command);
    assert_eq!(process.wait(DEADLINE).code(), Some(1));
    let stderr = process.stderr().join("\n");
    assert!(
        stderr.contains(&format!("cannot listen on {own}:2003")),
        "{stderr}"
    );
}

#[test]
fn conditions_of_every_object_are_served_on_the_admin_port() {
    let [a, all] = to_nowhere();
    let relay = RelayProcess::run(&Directory::of([relay("", ""), a, all]));
    let response = get(relay.admin(), "/conditions").unwrap();
    let objects: Vec<Value> = serde_json::from_str(&response.body).unwrap();
    let true_ = |type_: &str| json!({"type": type_, "status": "True"});
    let told = objects.iter().map(|object| {
        let conditions = object["conditions"].as_array().unwrap().iter();
        let conditions = conditions.map(|c| json!({"type": c["type"], "status": c["status"]}));
        json!({"kind": object["kind"], "name": object["name"], "conditions": conditions.collect::<Vec<_>>()})
    });
    let all_true = ["Accepted", "ResolvedRefs", "Programmed", "Ready"].map(true_);
    let expected = [("Relay", "edge"), ("Destination", "a"), ("Route", "all")];
    let expected =
        expected.map(|(kind, name)| json!({"kind": kind, "name": name, "conditions": all_true}));
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn logs_are_json_without_a_terminal() {
    let [a, all] = to_nowhere();
    let directory = Directory::of([relay("", ""), a, all]);
    let own = own_address();
    let mut command = Command::new(harness::binary("carbonway"));
    command.arg("run").arg(directory.path());
    command.args([
        "--listen-address",
        &own.to_string(),
        "--admin-address",
        &format!("{own}:8080"),
    ]);
    let process = Process::start(&mut command);
    process.wait_for_stderr(DEADLINE, 0, &["snapshot applied"]);
    for line in process.stderr() {
        let log: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            log["level"].is_string() && log["timestamp"].is_string(),
            "{line}"
        );
    }
}
