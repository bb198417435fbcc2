//! The older relays' own decisions: `data/hashing.json` says who owns which key in each of them, some of it from their genuine
//! code.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use relay_engine::ring::{Algorithm, Config, HashKey, Member, Point, Ring};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

#[derive(Deserialize)]
struct Vectors {
    node_sets: BTreeMap<String, Vec<Node>>,
    metrics: Vec<String>,
    primitives: Vec<Primitive>,
    configs: Vec<Case>,
    disagreements: Vec<Disagreement>,
    tag_normalisation: Vec<Normalisation>,
}

#[derive(Deserialize)]
struct Node {
    host: String,
    port: u16,
    instance: Option<String>,
}

#[derive(Deserialize)]
struct Primitive {
    input: String,
    carbon_md5_position: u16,
    fnv1a_32_folded_16: u16,
    fnv1a_64: String,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    node_set: String,
    settings: Settings,
    hash_key_rule: String,
    ring: Option<Points>,
    // By metric, then by replica.
    chosen: Vec<Vec<u32>>,
}

#[derive(Default, Deserialize)]
struct Settings {
    #[serde(rename = "DIVERSE_REPLICAS", default)]
    diverse_replicas: bool,
}

#[derive(Deserialize)]
struct Points {
    entries: usize,
    sha256_of_lines: String,
}

#[derive(Deserialize)]
struct Disagreement {
    node_set: String,
    key_positions_that_differ_of_65536: BTreeMap<String, usize>,
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    metric: String,
    position: u16,
    python: u32,
    c_relay: u32,
    crng_v1: u32,
    crng_v2: u32,
}

#[derive(Deserialize)]
struct Normalisation {
    input: String,
    normalised: Option<String>,
}

impl Node {
    fn member(&self) -> Member<'_> {
        Member {
            host: &self.host,
            port: self.port,
            instance: self.instance.as_deref(),
        }
    }
}

impl Vectors {
    fn load() -> Self {
        serde_json::from_str(include_str!("data/hashing.json")).expect("its shape is ours")
    }

    fn members(&self, node_set: &str) -> Vec<Member<'_>> {
        self.node_sets[node_set].iter().map(Node::member).collect()
    }
}

// The begin of a case's id tells whose way it is; `None` for the ways that we do not have.
fn algorithm(case: &str) -> Option<Algorithm> {
    let dialects = [
        ("py.carbon_ch.", Some(Algorithm::Carbon)),
        ("py.fnv1a_ch.", Some(Algorithm::Fnv1aCarbon)),
        ("py.fast-hashing.", None),
        ("crng.consistentHashing.", Some(Algorithm::CarbonRelayNg)),
        (
            "crng.consistentHashing-v2.",
            Some(Algorithm::CarbonRelayNgV2),
        ),
        ("crelay.carbon_ch.", Some(Algorithm::CarbonCRelay)),
        ("crelay.fnv1a_ch.", Some(Algorithm::Fnv1aCRelay)),
        ("crelay.jump_fnv1a_ch.", Some(Algorithm::JumpFnv1a)),
        ("crelay.any_of.", None),
        ("nanotube.jump.", Some(Algorithm::JumpFnv1a)),
        ("nanotube.lb.", None),
    ];
    let dialect = dialects.iter().find(|(begin, _)| case.starts_with(begin));
    dialect.expect("every case is somebody's").1
}

fn config(algorithm: Algorithm, replication_factor: usize) -> Config {
    Config {
        algorithm,
        replication_factor: NonZeroU32::new(replication_factor as u32).expect("some copies"),
        diverse_replicas: false,
    }
}

fn owners(ring: &Ring, key: &[u8]) -> Vec<u32> {
    let mut owners = Vec::new();
    ring.owners(key, &mut owners);
    owners
}

#[test]
fn every_case_is_decided_as_its_relay_decides_it() {
    let vectors = Vectors::load();
    let mut checked: BTreeMap<Algorithm, usize> = BTreeMap::new();
    for case in &vectors.configs {
        let Some(algorithm) = algorithm(&case.id) else {
            continue;
        };
        let members = vectors.members(&case.node_set);
        let mut config = config(algorithm, case.chosen[0].len());
        config.diverse_replicas = case.settings.diverse_replicas;
        let ring = Ring::new(config, &members).unwrap();
        if let Some(points) = &case.ring {
            assert_eq!(ring.points().len(), points.entries, "{}", case.id);
            let line = |point: &Point| format!("{} {}", point.position, point.member);
            let lines: Vec<String> = ring.points().iter().map(line).collect();
            assert_eq!(
                sha256(&lines.join("\n")),
                points.sha256_of_lines,
                "{}",
                case.id
            );
        }
        assert_eq!(case.chosen.len(), vectors.metrics.len());
        for (metric, chosen) in vectors.metrics.iter().zip(&case.chosen) {
            let found = owners(&ring, &key(&case.hash_key_rule, metric));
            assert_eq!(&found, chosen, "{}: {metric}", case.id);
        }
        *checked.entry(algorithm).or_default() += 1;
    }
    assert_eq!(
        checked,
        BTreeMap::from([
            (Algorithm::Carbon, 7),
            (Algorithm::CarbonRelayNg, 6),
            (Algorithm::CarbonRelayNgV2, 6),
            (Algorithm::CarbonCRelay, 6),
            (Algorithm::Fnv1aCRelay, 5),
            (Algorithm::Fnv1aCarbon, 2),
            (Algorithm::JumpFnv1a, 10),
        ])
    );
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(rule: &str, metric: &str) -> Vec<u8> {
    match rule {
        "full" => HashKey::Series.of(metric.as_bytes()).into_owned(),
        "before_semicolon" => HashKey::Name.of(metric.as_bytes()).into_owned(),
        _ => {
            assert_eq!(rule, "nanotube_normalised");
            metric.replace([';', '='], "_").into_bytes()
        }
    }
}

#[test]
fn keys_fall_where_they_do_in_the_older_relays() {
    let vectors = Vectors::load();
    let members = vectors.members("A_3_hosts_no_instance");
    let position = |algorithm, key: &str| {
        let ring = Ring::new(config(algorithm, 1), &members).unwrap();
        ring.position(key.as_bytes()).to_string()
    };
    for primitive in &vectors.primitives {
        let key = match primitive.input.strip_suffix("... (300 bytes)") {
            Some(begin) => begin[..1].repeat(300),
            None => primitive.input.clone(),
        };
        let md5 = format!("position {},", primitive.carbon_md5_position);
        let fnv1a = format!("position {},", primitive.fnv1a_32_folded_16);
        let jump = format!("hash {:016x},", primitive.fnv1a_64.parse::<u64>().unwrap());
        assert!(position(Algorithm::Carbon, &key).starts_with(&md5), "{key}");
        assert!(
            position(Algorithm::Fnv1aCRelay, &key).starts_with(&fnv1a),
            "{key}"
        );
        assert!(
            position(Algorithm::JumpFnv1a, &key).starts_with(&jump),
            "{key}"
        );
    }
}

#[test]
fn relays_disagree_where_they_are_known_to() {
    let vectors = Vectors::load();
    for set in &vectors.disagreements {
        let mut members = vectors.members(&set.node_set);
        let by =
            |algorithm, members: &[Member<'_>]| Ring::new(config(algorithm, 1), members).unwrap();
        let python = by(Algorithm::Carbon, &members);
        let c_relay = by(Algorithm::CarbonCRelay, &members);
        let crng_v1 = by(Algorithm::CarbonRelayNg, &members);
        let crng_v2 = by(Algorithm::CarbonRelayNgV2, &members);
        members.reverse();
        let reversed = by(Algorithm::Carbon, &members);
        for example in &set.examples {
            let owner = |ring| owners(ring, example.metric.as_bytes());
            assert_eq!(owner(&python), [example.python]);
            assert_eq!(owner(&c_relay), [example.c_relay]);
            assert_eq!(owner(&crng_v1), [example.crng_v1]);
            assert_eq!(owner(&crng_v2), [example.crng_v2]);
            let position = python.position(example.metric.as_bytes()).to_string();
            assert!(position.starts_with(&format!("position {},", example.position)));
        }
        let last = members.len() as u32 - 1;
        let mut python_reversed = owner_by_position(&reversed);
        python_reversed
            .iter_mut()
            .for_each(|owner| *owner = last - *owner);
        let python = owner_by_position(&python);
        let differ = |other: &[u32]| python.iter().zip(other).filter(|(a, b)| a != b).count();
        assert_eq!(
            BTreeMap::from([
                ("py_vs_c".to_owned(), differ(&owner_by_position(&c_relay))),
                (
                    "py_vs_crng_v1".to_owned(),
                    differ(&owner_by_position(&crng_v1))
                ),
                (
                    "py_vs_crng_v2".to_owned(),
                    differ(&owner_by_position(&crng_v2))
                ),
                (
                    "py_vs_py_reversed_config_order".to_owned(),
                    differ(&python_reversed)
                ),
            ]),
            set.key_positions_that_differ_of_65536,
            "{}",
            set.node_set
        );
    }
}

// A ring looked up the slow way.
fn owner_by_position(ring: &Ring) -> Vec<u32> {
    let points = ring.points();
    let owner = |position| {
        let point = points.iter().find(|point| point.position >= position);
        point.unwrap_or(&points[0]).member
    };
    (0..65536).map(owner).collect()
}

// From a careful reading of carbon-relay-ng; its two ways and carbon's agree on these.
#[test]
fn carbon_relay_ng_and_carbon_agree() {
    let vectors = Vectors::load();
    let graphite: Vec<String> = (0..4)
        .map(|i| format!("graphite-{i}.graphite.svc.cluster.local"))
        .collect();
    let graphite: Vec<Member<'_>> = graphite
        .iter()
        .map(|host| Member {
            host,
            port: 2003,
            instance: None,
        })
        .collect();
    let sets = [
        vectors.members("A_3_hosts_no_instance"),
        vectors.members("B_1_host_3_instances"),
        vectors.members("E_14_hosts_from_crng_issue335"),
        graphite,
    ];
    for algorithm in [
        Algorithm::Carbon,
        Algorithm::CarbonRelayNg,
        Algorithm::CarbonRelayNgV2,
    ] {
        let rings = sets
            .each_ref()
            .map(|members| Ring::new(config(algorithm, 1), members).unwrap());
        for (key, expected) in [
            ("a.b.c.d", [2, 0, 8, 3]),
            ("collectd.bar.memory.free", [2, 1, 11, 2]),
            ("servers.web01.cpu.user", [1, 0, 5, 3]),
            ("servers.web02.cpu.user", [2, 0, 11, 2]),
            ("stats.timers.app1.requests.count", [2, 0, 8, 0]),
            ("carbon.agents.host1.cpuUsage", [1, 0, 2, 1]),
            ("foo", [2, 2, 6, 1]),
            ("foo.bar.baz", [1, 0, 7, 1]),
            ("foo.bar;env=prod", [0, 2, 5, 0]),
            ("x.y.z", [2, 1, 12, 3]),
            ("metric.0", [0, 2, 12, 2]),
            ("metric.1", [0, 0, 1, 0]),
            ("metric.2", [2, 1, 5, 2]),
            ("metric.3", [2, 2, 2, 3]),
            ("metric.4", [2, 2, 7, 1]),
            ("metric.5", [0, 0, 5, 1]),
            ("metric.6", [2, 2, 11, 0]),
            ("metric.7", [0, 2, 11, 3]),
            ("metric.8", [1, 1, 9, 1]),
            ("metric.9", [0, 0, 7, 3]),
        ] {
            let found = rings.each_ref().map(|ring| owners(ring, key.as_bytes())[0]);
            assert_eq!(found, expected, "{algorithm}: {key}");
        }
    }
}

#[test]
fn carbon_relay_ng_differs_from_itself_and_from_carbon() {
    let vectors = Vectors::load();
    let members = vectors.members("E_14_hosts_from_crng_issue335");
    let rings = [
        Algorithm::CarbonRelayNg,
        Algorithm::CarbonRelayNgV2,
        Algorithm::Carbon,
    ]
    .map(|algorithm| Ring::new(config(algorithm, 1), &members).unwrap());
    for (key, expected) in [
        ("disc.148", [12, 0, 0]),
        ("disc.1866", [12, 4, 4]),
        ("disc.1971", [12, 4, 4]),
        ("disc.2173", [12, 8, 8]),
        ("disc.2413", [12, 10, 10]),
        ("disc.263420", [5, 9, 9]),
        ("disc.2539", [7, 7, 1]),
        ("disc.8958", [7, 7, 1]),
        ("disc.9482", [7, 7, 1]),
        ("disc.38727", [3, 3, 5]),
    ] {
        let found = rings.each_ref().map(|ring| owners(ring, key.as_bytes())[0]);
        assert_eq!(found, expected, "{key}");
    }
}

#[test]
fn tags_are_normalised_as_carbon_does_it() {
    for case in Vectors::load().tag_normalisation {
        let key = HashKey::Normalised.of(case.input.as_bytes()).into_owned();
        // carbon goes on with a series that it cannot normalise as it is.
        let expected = case.normalised.unwrap_or_else(|| case.input.clone());
        assert_eq!(String::from_utf8_lossy(&key), expected, "{}", case.input);
    }
    for (series, expected) in [
        ("m;a=1;a-b=2", "m;a-b=2;a=1"),
        (r#"m{b="\\\"",a="x=y"}"#, r#"m;a=x=y;b=\""#),
        (r#"m{b="1":,a="2",}"#, r#"m{b="1":,a="2",}"#),
        (r#"m{b="1":,a="2"}"#, "m;a=2;b=1"),
        (r#"m{b="1"a="2"}"#, r#"m{b="1"a="2"}"#),
        (r#"m{n{b="1"}"#, r#"m{n{b="1"}"#),
        (r#"{b="1"}"#, r#"{b="1"}"#),
    ] {
        let key = HashKey::Normalised.of(series.as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&key), expected, "{series}");
    }
}

#[test]
fn a_name_ends_at_its_tags() {
    for (series, name) in [("a.b", "a.b"), ("a;b=c;d=e", "a"), (";b", ""), ("", "")] {
        assert_eq!(*HashKey::Name.of(series.as_bytes()), *name.as_bytes());
        assert_eq!(*HashKey::Series.of(series.as_bytes()), *series.as_bytes());
    }
}
