//! The control plane at scale: 10,000 Routes and 1,000 Destinations, and simulated relays that speak real gRPC. Prints figures,
//! fails at nothing but a relay that does not come to what it should. By hand, with `make bench-operator`.
//!
//! The API server is the harness's double, in this process, as are the relays: they share the machine with the operator.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on says so by panicking"
)]

mod fleet;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{ApiServer, Metrics, Process, binary, get, own_address};
use serde_json::{Value, json};

use crate::fleet::Fleet;

const ROUTES: usize = 10_000;
const DESTINATIONS: usize = 1_000;
const RELAYS: usize = 100;
const STORM: usize = 1_000;
const CHANGES: usize = 50;
const QUIET: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let api = ApiServer::start();
    api.apply(json!({
        "apiVersion": "carbonway.io/v1alpha1",
        "kind": "Relay",
        "metadata": {"name": "edge", "labels": {"carbonway.io/default": "true"}},
        "spec": {"listeners": [{"name": "plain", "port": 2003, "plaintext": {}}]},
    }));
    for number in 0..DESTINATIONS {
        api.apply(json!({
            "apiVersion": "carbonway.io/v1alpha1",
            "kind": "Destination",
            "metadata": {"name": format!("d{number}")},
            "spec": {"carbon": {"address": format!("10.0.{}.{}:2003", number / 250, number % 250)}},
        }));
    }
    for number in 0..ROUTES {
        api.apply(route(number, 0));
    }
    let address = own_address();
    let mut operator = start_operator(&api, address);
    let began = Instant::now();
    while !get((address, 8080).into(), "/readyz").is_ok_and(|response| response.status == 200) {
        assert!(began.elapsed() < PATIENCE, "the operator is not ready");
        pause();
    }
    println!("ready after {:.2?}", began.elapsed());
    wait_for_metric(
        address,
        "carbonway_operator_compile_duration_seconds_count",
        |count| count >= 1.0,
    );
    let metrics = metrics(address);
    let seconds = metrics
        .get("carbonway_operator_compile_duration_seconds_sum", &[])
        .unwrap();
    let count = metrics
        .get("carbonway_operator_compile_duration_seconds_count", &[])
        .unwrap();
    println!(
        "compile: {:.0} ms ({ROUTES} Routes, {DESTINATIONS} Destinations)",
        seconds / count * 1000.0
    );

    let sync = SocketAddr::from((address, 8090));
    let began = Instant::now();
    let fleet = Fleet::start(sync, RELAYS);
    let first = fleet.wait_for_all(PATIENCE);
    println!(
        "{RELAYS} relays have {} KiB each after {:.2?}",
        fleet.snapshot_bytes() >> 10,
        began.elapsed()
    );
    for number in 0..ROUTES {
        wait_until_programmed(&api, &format!("r{number}"), RELAYS, began);
    }
    println!("every Route says so after {:.2?}", began.elapsed());
    let mut took = Vec::new();
    let mut last = first;
    fleet.forget_bytes();
    for change in 1..=CHANGES {
        let number = change * 37 % ROUTES;
        let began = Instant::now();
        api.apply(route(number, change));
        last = fleet.wait_for_another(last, PATIENCE);
        wait_until_programmed(&api, &format!("r{number}"), RELAYS, began);
        took.push(began.elapsed());
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!(
        "one Route of {ROUTES}: Programmed on {RELAYS} relays after {:.0?} (median), {:.0?} (p99), {:.0?} (most); {} bytes to each",
        at(0.5),
        at(0.99),
        at(1.0),
        fleet.bytes() / (CHANGES * RELAYS) as u64
    );
    // What was changed last is still to be told in an event.
    std::thread::sleep(Duration::from_secs(2));
    let before = api.writes();
    std::thread::sleep(QUIET);
    println!(
        "a quiet minute, with {} objects: {} writes",
        ROUTES + DESTINATIONS + 1,
        api.writes() - before
    );
    drop(fleet);

    let began = Instant::now();
    let storm = Fleet::start(sync, STORM);
    storm.wait_for_all(PATIENCE);
    println!(
        "{STORM} relays that connect at once, and have nothing: settled after {:.2?}",
        began.elapsed()
    );
    operator.kill();
    storm.forget_streams();
    operator = start_operator(&api, address);
    let began = Instant::now();
    storm.wait_for_all_to_come_back(PATIENCE);
    println!(
        "{STORM} relays after the operator was killed: back after {:.2?}",
        began.elapsed()
    );
    println!(
        "the operator's memory: {} MiB at most",
        peak_memory(&operator) >> 20
    );
    operator.kill();
}

fn route(number: usize, change: usize) -> Value {
    json!({
        "apiVersion": "carbonway.io/v1alpha1",
        "kind": "Route",
        "metadata": {"name": format!("r{number}")},
        "spec": {
            "match": {
                "prefix": format!("team{}.service{number}.", number % 100),
                "notRegex": format!(r"\.tmp{change}\."),
            },
            "destinations": [{"name": format!("d{}", number % DESTINATIONS)}],
        },
    })
}

fn start_operator(api: &ApiServer, address: Ipv4Addr) -> Process {
    let mut command = Command::new(binary("carbonway-operator"));
    command
        .args(["--sync-address", &format!("{address}:8090")])
        .args(["--admin-address", &format!("{address}:8080")])
        .arg("--log-level=warn")
        .env("KUBECONFIG", api.kubeconfig());
    Process::start(&mut command)
}

fn metrics(address: Ipv4Addr) -> Metrics {
    Metrics::parse(&get((address, 8080).into(), "/metrics").unwrap().body).unwrap()
}

fn wait_for_metric(address: Ipv4Addr, name: &str, is_met: impl Fn(f64) -> bool) {
    let began = Instant::now();
    while !metrics(address).get(name, &[]).is_some_and(&is_met) {
        assert!(began.elapsed() < PATIENCE, "{name} stays as it is");
        pause();
    }
}

fn wait_until_programmed(api: &ApiServer, name: &str, relays: usize, began: Instant) {
    let all = format!("{relays}/{relays}");
    loop {
        let route = api.get("Route", name).unwrap();
        let (status, generation) = (&route["status"], &route["metadata"]["generation"]);
        if status["programmedPods"] == all.as_str() && status["observedGeneration"] == *generation {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{name} stays at {status}");
        pause();
    }
}

fn peak_memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes << 10
}

fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
