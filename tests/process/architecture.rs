//! The invariants of the architecture: what is deliberately absent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::finish;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

// The names of all packages that `package` links, itself included, with these features.
fn linked(package: &str, features: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(repository())
        .args(["tree", "--offline", "--locked", "--package", package]);
    command
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features);
    let tree = finish(&mut command);
    assert_eq!(tree.code, Some(0), "{}", tree.stderr);
    let names = tree
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[track_caller]
fn assert_never_links(package: &str, features: &[&str], absent: &[&str]) {
    let linked = linked(package, features);
    assert!(linked.contains(package), "{linked:?}");
    let found: Vec<_> = absent
        .iter()
        .filter(|name| linked.contains(**name))
        .collect();
    assert!(found.is_empty(), "{package} links {found:?}");
}

const KUBERNETES: [&str; 6] = [
    "kube",
    "kube-client",
    "kube-core",
    "kube-runtime",
    "k8s-openapi",
    "crds",
];

#[test]
fn the_relay_needs_nothing_of_kubernetes() {
    assert_never_links("relay", &["--all-features"], &KUBERNETES);
    assert_never_links("relay", &["--all-features"], &["operator"]);
}

#[test]
fn the_engine_has_no_io_and_no_runtime() {
    let absent = ["tokio", "tonic", "hyper", "socket2", "mio", "async-trait"];
    assert_never_links("relay-engine", &["--all-features"], &absent);
    assert_never_links("relay-engine", &["--all-features"], &KUBERNETES);
}

#[test]
fn cryptography_is_no_business_of_the_engine_and_needs_no_runtime() {
    assert_never_links("relay-engine", &["--all-features"], &["rustls", "ring"]);
    let absent = ["tokio", "mio", "relay-engine", "relay-proto"];
    assert_never_links("relay-tls", &["--all-features"], &absent);
    let linked = linked("relay", &["--all-features"]);
    for absent in ["openssl", "openssl-sys", "aws-lc-rs", "aws-lc-sys"] {
        assert!(!linked.contains(absent), "relay links {absent}");
    }
}

#[test]
fn what_reads_the_bytes_of_strangers_needs_no_runtime() {
    let absent = ["tokio", "mio", "relay-engine", "relay-proto"];
    assert_never_links("relay-wire", &["--all-features"], &absent);
}

#[test]
fn the_spool_has_no_runtime() {
    let absent = ["tokio", "mio", "relay-engine", "relay-proto"];
    assert_never_links("relay-spool", &["--all-features"], &absent);
}

#[test]
fn the_contract_is_plain_messages_unless_the_service_is_asked_for() {
    assert_never_links(
        "relay-proto",
        &[],
        &["tokio", "tonic", "hyper", "kube-core", "crds"],
    );
    assert!(linked("relay-proto", &["--features", "grpc"]).contains("tonic"));
}

#[test]
fn the_api_types_know_neither_the_contract_nor_a_client() {
    let absent = [
        "tonic",
        "prost",
        "relay-proto",
        "relay-engine",
        "kube-client",
        "kube-runtime",
    ];
    assert_never_links("crds", &["--all-features"], &absent);
}

#[test]
fn compiling_resources_needs_no_cluster() {
    let absent = [
        "kube-client",
        "kube-runtime",
        "tonic",
        "axum",
        "tokio",
        "relay",
    ];
    assert_never_links("operator", &["--no-default-features"], &absent);
    assert_never_links("operator", &["--all-features"], &["relay"]);
}

#[test]
fn the_command_line_tool_has_no_kubernetes_client() {
    assert_never_links(
        "carbonway",
        &["--all-features"],
        &["kube-client", "kube-runtime"],
    );
}

#[test]
fn only_the_engine_compiles_patterns() {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(repository())
        .args(["metadata", "--offline", "--locked", "--no-deps"]);
    let metadata = finish(command.args(["--format-version", "1"]));
    assert_eq!(metadata.code, Some(0), "{}", metadata.stderr);
    let metadata: serde_json::Value = serde_json::from_str(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let users = packages.filter(|package| {
        let mut dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies.any(|dependency| {
            dependency["name"] == "regex" || dependency["name"] == "regex-automata"
        })
    });
    let users: Vec<_> = users
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["relay-engine"]);
}

// The lines of a source file, or of all files under a directory, that have one of these words in them.
fn mentions(path: &Path, words: &[&str]) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        return entries.flat_map(|entry| mentions(&entry, words)).collect();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"));
    let found = code.filter(|line| words.iter().any(|word| line.contains(word)));
    found
        .map(|line| format!("{}: {line}", path.display()))
        .collect()
}

const NONE: [String; 0] = [];

#[test]
fn the_engine_opens_nothing_and_never_asks_the_time() {
    let words = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "Instant",
        "SystemTime",
    ];
    assert_eq!(
        mentions(&repository().join("relay/engine/src"), &words),
        NONE
    );
}

#[test]
fn the_spool_has_no_thread_and_never_asks_the_time() {
    let words = ["std::thread", "Instant", "SystemTime"];
    assert_eq!(
        mentions(&repository().join("relay/spool/src"), &words),
        NONE
    );
}

#[test]
fn compile_never_awaits_and_never_reads_a_clock() {
    let words = [
        ".await",
        "async ",
        "Client",
        "Instant",
        "SystemTime",
        "Timestamp::now",
    ];
    for path in [
        "inputs.rs",
        "inputs",
        "compile.rs",
        "compile",
        "conditions.rs",
    ] {
        let path = repository().join("operator/src").join(path);
        assert_eq!(mentions(&path, &words), NONE);
    }
}
