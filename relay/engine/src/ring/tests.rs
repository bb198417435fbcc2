mod properties;

use super::*;

fn member<'a>(host: &'a str, port: u16, instance: impl Into<Option<&'a str>>) -> Member<'a> {
    Member {
        host,
        port,
        instance: instance.into(),
    }
}

fn config(algorithm: Algorithm, replication_factor: u32) -> Config {
    Config {
        algorithm,
        replication_factor: NonZeroU32::new(replication_factor).unwrap(),
        diverse_replicas: false,
    }
}

fn owners(ring: &Ring, key: impl AsRef<[u8]>) -> Vec<u32> {
    let mut owners = Vec::new();
    ring.owners(key.as_ref(), &mut owners);
    owners
}

// carbon-relay-ng's own test.
#[test]
fn two_points_a_member_as_carbon_relay_ng_tests_them() {
    let mut members = vec![
        member("10.0.0.1", 2003, None),
        member("127.0.0.1", 2003, "a"),
        member("127.0.0.1", 2004, "b"),
    ];
    let pairs = |members: &[Member<'_>]| -> Vec<(u32, u32)> {
        let ring = Ring::with_points(config(Algorithm::CarbonRelayNg, 1), members, 2).unwrap();
        let points = ring.points().iter();
        points.map(|point| (point.position, point.member)).collect()
    };
    assert_eq!(
        pairs(&members),
        [
            (7885, 1),
            (10461, 2),
            (24043, 1),
            (35540, 0),
            (46982, 0),
            (54295, 2)
        ]
    );
    members.push(member("127.0.0.1", 2005, "c"));
    members.push(member("10.0.0.2", 2003, None));
    assert_eq!(
        pairs(&members),
        [
            (6639, 4),
            (7885, 1),
            (10461, 2),
            (24043, 1),
            (24467, 3),
            (35540, 0),
            (46982, 0),
            (52177, 4),
            (53472, 3),
            (54295, 2),
        ]
    );
    let ring = Ring::with_points(config(Algorithm::CarbonRelayNg, 1), &members, 2).unwrap();
    for (key, owner, position) in [
        ("a.b.c.d", 4, (54437, 6639)),
        ("a.b.c..d", 1, (21103, 24043)),
        ("collectd.bar.memory.free", 3, (53115, 53472)),
    ] {
        let (key_position, point) = position;
        assert_eq!(owners(&ring, key), [owner], "{key}");
        assert_eq!(
            ring.position(key.as_bytes()),
            Position::Ring {
                key: key_position,
                point
            }
        );
    }
}

#[test]
fn owners_are_appended() {
    let members = [member("a", 1, None), member("b", 1, None)];
    for algorithm in Algorithm::ALL {
        let ring = Ring::new(config(algorithm, 2), &members).unwrap();
        let mut found = vec![7, 8];
        ring.owners(b"x", &mut found);
        found[2..].sort_unstable();
        assert_eq!(found, [7, 8, 0, 1], "{algorithm}");
    }
}

// Computed with another implementation, in Python. They are for ever.
#[test]
fn rendezvous_never_changes() {
    let members = [
        member("graphite-0.graphite", 2003, None),
        member("graphite-1.graphite", 2003, "b"),
        member("2001:db8::1", 2003, None),
        member("10.0.0.4", 2004, "d"),
    ];
    let ring = Ring::new(config(Algorithm::Rendezvous, 4), &members).unwrap();
    for (key, order, position) in [
        (
            "a.b.c",
            [2, 0, 1, 3],
            "hash 022a7cd9aee21f27, score e1f01f880076543a",
        ),
        (
            "",
            [3, 1, 0, 2],
            "hash ef46db3751d8e999, score 9ceeeb93fed20794",
        ),
        (
            "servers.web01.cpu.user",
            [3, 1, 2, 0],
            "hash c0d3d1077e657ae0, score b3f0f54c56161166",
        ),
        (
            "disk.used;datacenter=dc1;rack=a1;server=web01",
            [3, 1, 0, 2],
            "hash de52cc427dc028c8, score da24b4588567e73b",
        ),
    ] {
        assert_eq!(owners(&ring, key), order, "{key}");
        assert_eq!(ring.position(key.as_bytes()).to_string(), position, "{key}");
    }
}

#[test]
fn members_that_another_one_hides_are_idle() {
    let members = [
        member("a", 1, "x"),
        member("b", 1, "x"),
        member("a", 2, "x"),
        member("a", 3, "y"),
    ];
    let idle = |algorithm| {
        let ring = Ring::new(config(algorithm, 2), &members).unwrap();
        ring.idle_members()
    };
    assert_eq!(idle(Algorithm::CarbonCRelay), [2]);
    assert_eq!(idle(Algorithm::Fnv1aCRelay), [1, 2]);
    assert_eq!(idle(Algorithm::JumpFnv1a), [0; 0]);
}

#[test]
fn diverse_replicas_are_on_different_hosts() {
    let members = [
        member("a", 1, "1"),
        member("a", 2, "2"),
        member("b", 1, "3"),
        member("b", 2, "4"),
    ];
    for algorithm in [
        Algorithm::Carbon,
        Algorithm::Fnv1aCarbon,
        Algorithm::Rendezvous,
    ] {
        let mut config = config(algorithm, 2);
        let any = Ring::new(config, &members).unwrap();
        config.diverse_replicas = true;
        let diverse = Ring::new(config, &members).unwrap();
        let mut same_host = 0;
        for i in 0..100 {
            let key = format!("key.{i}");
            let host = |owner: &u32| members[*owner as usize].host;
            let hosts: Vec<&str> = owners(&diverse, &key).iter().map(host).collect();
            assert!(
                matches!(hosts[..], ["a", "b"] | ["b", "a"]),
                "{algorithm}: {hosts:?}"
            );
            let any = owners(&any, &key);
            assert_eq!(any[0], owners(&diverse, &key)[0]);
            same_host += usize::from(host(&any[0]) == host(&any[1]));
        }
        assert!(same_host > 10, "{algorithm}: {same_host}");
    }
}

#[test]
fn what_cannot_be_hashed_says_where_and_why() {
    let (a, b) = (member("a", 1, None), member("b", 1, None));
    let a_again = member("a", 2, None);
    let (x, x_again) = (member("a", 1, "x"), member("b", 2, "x"));
    let number = |instance| member("a", 1, instance);
    let refused = |algorithm, factor, members: &[Member<'_>]| {
        let error = Ring::new(config(algorithm, factor), members).unwrap_err();
        format!("{}: {error}", error.field())
    };
    use Algorithm::{Carbon, CarbonRelayNg, CarbonRelayNgV2, Fnv1aCRelay, JumpFnv1a, Rendezvous};
    for (refusal, expected) in [
        (
            refused(Carbon, 1, &[]),
            "destinations: there is nobody to share the lines out to: name at least one destination",
        ),
        (
            refused(CarbonRelayNgV2, 1, &vec![a; 656]),
            "destinations: 656 are more than the 655 that a ring has room for: use Rendezvous or JumpFnv1a",
        ),
        (
            refused(Rendezvous, 1, &[a, member("b c", 1, None)]),
            "destinations[1]: the host 'b c' cannot be hashed: use printable ASCII without spaces, quotes and backslashes",
        ),
        (
            refused(Carbon, 1, &[a, member("b", 1, "it's")]),
            "destinations[1].instance: 'it's' cannot be hashed: use printable ASCII without spaces, quotes and backslashes, \
             or leave it out",
        ),
        (
            refused(Carbon, 1, &[a, b, a_again]),
            "destinations[2].instance: Carbon cannot tell it from destinations[0], which has the same host and instance: \
             give each an instance of its own",
        ),
        (
            refused(
                CarbonRelayNg,
                1,
                &[member("::1", 1, None), member("::2", 1, None)],
            ),
            "destinations[1].instance: CarbonRelayNg cannot tell it from destinations[0], which has the same host and \
             instance: give each an instance of its own",
        ),
        (
            refused(Rendezvous, 1, &[x, x_again]),
            "destinations[1].instance: Rendezvous cannot tell it from destinations[0], which has the same instance, or host \
             and port: give each an instance of its own",
        ),
        (
            refused(JumpFnv1a, 1, &[number("10"), number("9"), number("1a")]),
            "destinations: the instances have no order, for JumpFnv1a sorts two numbers by value, all else as text: use \
             numbers alone or no numbers",
        ),
        (
            refused(Carbon, 3, &[a, b]),
            "consistentHash.replicationFactor: 3 is more than the number of destinations, 2: lower it or name more destinations",
        ),
        (
            refused(Fnv1aCRelay, 2, &[x, x_again]),
            "consistentHash.replicationFactor: 2 is more than the number of different instances, 1: lower it or give each \
             destination an instance of its own",
        ),
    ] {
        assert_eq!(refusal, expected);
    }
}

#[test]
fn diverse_replicas_need_hosts_and_an_algorithm_that_looks_at_them() {
    let members = [member("a", 1, "1"), member("a", 2, "2")];
    let mut config = config(Algorithm::Carbon, 2);
    config.diverse_replicas = true;
    let error = Ring::new(config, &members).unwrap_err();
    assert_eq!(
        format!("{}: {error}", error.field()),
        "consistentHash.replicationFactor: 2 is more than the number of hosts, 1: lower it, name destinations on more hosts or \
         leave diverseReplicas out"
    );
    config.algorithm = Algorithm::CarbonCRelay;
    let error = Ring::new(config, &members).unwrap_err();
    assert_eq!(
        format!("{}: {error}", error.field()),
        "consistentHash.diverseReplicas: CarbonCRelay does not look at hosts: leave it out, or use Carbon, Fnv1aCarbon or \
         Rendezvous"
    );
}

#[test]
fn algorithms_are_read_as_they_are_written() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
    }
    let error = "carbon_ch".parse::<Algorithm>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "'carbon_ch' is not known to this release: use Carbon, CarbonRelayNg, CarbonRelayNgV2, CarbonCRelay, Fnv1aCRelay, \
         Fnv1aCarbon, JumpFnv1a or Rendezvous"
    );
}
