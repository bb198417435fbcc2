//! What no list of examples can show.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_key_has_as_many_distinct_owners_as_asked_for(
        config in any_config(),
        members in proptest::collection::vec(any_member(), 0..12),
        keys in proptest::collection::vec(any_key(), 1..20),
    ) {
        let members = borrowed(&members);
        let Ok(ring) = Ring::new(config, &members) else { return Ok(()) };
        let again = Ring::new(config, &members).unwrap();
        let idle = ring.idle_members();
        for key in &keys {
            let found = owners(&ring, key);
            prop_assert_eq!(&found, &owners(&again, key));
            prop_assert_eq!(ring.position(key), again.position(key));
            prop_assert_eq!(found.len(), config.replication_factor.get() as usize);
            let mut distinct = found.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), found.len());
            prop_assert!(found.iter().all(|owner| (*owner as usize) < members.len()));
            prop_assert!(!found.iter().any(|owner| idle.contains(owner)));
        }
    }

    // Of the owners before, only those stay away whom a new member pushed out; the order of the others stays.
    #[test]
    fn rendezvous_moves_no_key_but_to_a_new_member(
        members in distinct_members(),
        new in any::<proptest::sample::Index>(),
        replicas in 1_u32..4,
        keys in proptest::collection::vec(any_key(), 1..50),
    ) {
        let new = new.index(members.len());
        let mut fewer = members.clone();
        fewer.remove(new);
        let replicas = replicas.min(fewer.len() as u32);
        prop_assume!(replicas > 0);
        let before = Ring::new(config(Algorithm::Rendezvous, replicas), &borrowed(&fewer)).unwrap();
        let after = Ring::new(config(Algorithm::Rendezvous, replicas), &borrowed(&members)).unwrap();
        for key in &keys {
            let before = owners(&before, key);
            let after = owners(&after, key);
            let as_before = |owner: &u32| match (*owner as usize).cmp(&new) {
                Ordering::Less => Some(*owner),
                Ordering::Equal => None,
                Ordering::Greater => Some(*owner - 1),
            };
            let stayed: Vec<u32> = after.iter().filter_map(as_before).collect();
            prop_assert_eq!(&before[..stayed.len()], &stayed[..]);
            prop_assert!(stayed.len() + 1 >= replicas as usize);
        }
    }

    #[test]
    fn rendezvous_does_not_depend_on_the_order(
        (members, shuffled) in distinct_members()
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
        keys in proptest::collection::vec(any_key(), 1..20),
    ) {
        let (members, shuffled) = (borrowed(&members), borrowed(&shuffled));
        let config = config(Algorithm::Rendezvous, members.len() as u32);
        let (ring, other) = (Ring::new(config, &members).unwrap(), Ring::new(config, &shuffled).unwrap());
        for key in &keys {
            let names = |members: &[Member<'_>], owners: Vec<u32>| -> Vec<String> {
                owners.iter().map(|owner| members[*owner as usize].host.to_owned()).collect()
            };
            prop_assert_eq!(names(&members, owners(&ring, key)), names(&shuffled, owners(&other, key)));
        }
    }

    // Where it is the last: without an instance, or with the highest.
    #[test]
    fn jump_moves_no_key_but_to_a_new_last_member(
        count in 1_u16..100,
        keys in proptest::collection::vec(any_key(), 1..50),
    ) {
        let members: Vec<Member<'_>> = (0..=count)
            .map(|port| Member { host: "a", port, instance: None })
            .collect();
        let (new, fewer) = members.split_last().unwrap();
        let before = Ring::new(config(Algorithm::JumpFnv1a, 1), fewer).unwrap();
        let after = Ring::new(config(Algorithm::JumpFnv1a, 1), &members).unwrap();
        for key in &keys {
            let (before, after) = (owners(&before, key), owners(&after, key));
            prop_assert!(after == before || after == [u32::from(new.port)]);
        }
    }

    #[test]
    fn normalising_again_changes_nothing(series in "[a~]{1,2}(;[a-c!]{1,2}=[0-9~]{0,2}){0,4}|a\\{([ab]=\"[^{}]{1,3}\",?){1,3}\\}") {
        let once = HashKey::Normalised.of(series.as_bytes()).into_owned();
        let twice = HashKey::Normalised.of(&once).into_owned();
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn rendezvous_shares_keys_out_evenly() {
    let hosts: Vec<String> = (0..10).map(|i| format!("graphite-{i}")).collect();
    let members: Vec<Member<'_>> = hosts
        .iter()
        .map(|host| Member {
            host,
            port: 2003,
            instance: None,
        })
        .collect();
    let ring = Ring::new(config(Algorithm::Rendezvous, 2), &members).unwrap();
    let mut shares = [[0_u32; 2]; 10];
    for i in 0..100_000 {
        let found = owners(&ring, format!("servers.web{i}.cpu.user").as_bytes());
        for (replica, owner) in found.into_iter().enumerate() {
            shares[owner as usize][replica] += 1;
        }
    }
    // 10,000 each; four standard deviations of a fair draw are 380.
    assert!(
        shares
            .as_flattened()
            .iter()
            .all(|keys| keys.abs_diff(10_000) < 400),
        "{shares:?}"
    );
}

#[derive(Clone, Debug)]
struct OwnMember {
    host: String,
    port: u16,
    instance: Option<String>,
}

fn borrowed(members: &[OwnMember]) -> Vec<Member<'_>> {
    members.iter().map(OwnMember::borrow).collect()
}

impl OwnMember {
    fn borrow(&self) -> Member<'_> {
        Member {
            host: &self.host,
            port: self.port,
            instance: self.instance.as_deref(),
        }
    }
}

// Few hosts and instances, so that they meet; now and then any text at all.
fn any_member() -> impl Strategy<Value = OwnMember> {
    let host = prop_oneof![8 => "[ab]\\.c", 4 => "::[12]", 1 => any::<String>()];
    let instance =
        prop_oneof![6 => "[0-9]{1,2}", 6 => "[a-c]", 2 => "-?[0-9]{1,24}", 1 => any::<String>()];
    (host, 1_u16..4, proptest::option::of(instance)).prop_map(|(host, port, instance)| OwnMember {
        host,
        port,
        instance,
    })
}

fn any_config() -> impl Strategy<Value = Config> {
    let algorithm = proptest::sample::select(&Algorithm::ALL[..]);
    (algorithm, 1_u32..5, proptest::bool::weighted(0.2)).prop_map(
        |(algorithm, replication_factor, diverse_replicas)| Config {
            algorithm,
            replication_factor: NonZeroU32::new(replication_factor).unwrap(),
            diverse_replicas,
        },
    )
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,3}(\\.[a-z0-9]{1,6}){1,4}(;[a-c]=[0-9]){0,3}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..80),
    ]
}

// Members that every algorithm takes, with instances in any order.
fn distinct_members() -> impl Strategy<Value = Vec<OwnMember>> {
    let member = |(index, has_instance): (usize, bool)| OwnMember {
        host: format!("graphite-{index}"),
        port: 2003,
        instance: has_instance.then(|| format!("i{index}")),
    };
    proptest::collection::vec((0_usize..1000, any::<bool>()), 2..20).prop_map(move |mut members| {
        let mut seen = BTreeSet::new();
        members.retain(|(index, _)| seen.insert(*index));
        members.into_iter().map(member).collect()
    })
}
