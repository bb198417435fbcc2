use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{ObjectRef, Route, Snapshot};

fn snapshot(routes: impl IntoIterator<Item = usize>) -> Bytes {
    let route = |number: usize| Route {
        source: Some(ObjectRef::new("Route", "d", format!("route-{number}"))),
        ..Route::default()
    };
    let snapshot = Snapshot {
        schema: 1,
        routes: routes.into_iter().map(route).collect(),
        ..Snapshot::default()
    };
    snapshot.encode_to_vec().into()
}

fn named(bytes: &Bytes) -> (Version, &Bytes) {
    (Version::of(bytes), bytes)
}

// Sends `new` to one who has `base`, and says how many bytes travel.
fn send(new: &Bytes, base: Option<&Bytes>) -> usize {
    let delta = Delta::new(named(new), base.map(named));
    let offer = delta.offer(1);
    let mut travelled = offer.encoded_len();
    let mut assembly = Assembly::new(offer, base.map(named)).unwrap();
    for index in 1.. {
        let Some(parts) = delta.more(index) else {
            break;
        };
        assert!(parts.encoded_len() < 512 << 10);
        assert!(!assembly.is_complete());
        travelled += parts.encoded_len();
        assembly.add(parts.parts).unwrap();
    }
    assert!(assembly.is_complete());
    assert_eq!(assembly.finish().unwrap(), (Version::of(new), new.clone()));
    travelled
}

#[test]
fn one_route_of_ten_thousand_is_all_that_travels() {
    let base = snapshot(0..10_000);
    assert!(send(&base, None) > base.len());
    let mut routes: Vec<usize> = (0..10_000).collect();
    routes[5_000] = 77_777;
    assert!(send(&snapshot(routes.clone()), Some(&base)) < 200);
    routes.remove(3);
    routes.insert(9_000, 88_888);
    assert!(send(&snapshot(routes.clone()), Some(&base)) < 300);
    // another order is what it copies in
    routes.rotate_left(2_000);
    assert!(send(&snapshot(routes), Some(&base)) < 300);
}

#[test]
fn what_is_large_travels_in_several_messages() {
    let large = snapshot(0..100_000);
    assert!(large.len() > 2 << 20);
    assert!(send(&large, None) > large.len());
    // every other route: as many copies
    let half = snapshot((0..100_000).step_by(2));
    send(&half, Some(&large));
}

#[test]
fn what_is_not_as_it_says_is_refused() {
    let (old, new) = (snapshot(0..3), snapshot(0..4));

    let delta = Delta::new(named(&new), Some(named(&old)));
    let offer = || delta.offer(1);
    let assemble = |offer, base| {
        Assembly::new(offer, base)
            .and_then(Assembly::finish)
            .unwrap_err()
    };
    assert_eq!(assemble(offer(), None), Damage::UnknownBase);
    assert_eq!(assemble(offer(), Some(named(&new))), Damage::UnknownBase);
    let too_large = Offer {
        size: 1 << 40,
        ..offer()
    };
    assert_eq!(
        assemble(too_large, Some(named(&old))),
        Damage::TooLarge(1 << 40)
    );
    let too_small = Offer { size: 3, ..offer() };
    assert_eq!(assemble(too_small, Some(named(&old))), Damage::TooMuch);
    let part = |part| Offer {
        parts: vec![Part { part }],
        ..offer()
    };
    let beyond = Copied {
        offset: u64::MAX,
        length: 2,
    };
    for no_part in [
        None,
        Some(part::Part::Copied(beyond)),
        Some(part::Part::Data(Bytes::new())),
    ] {
        assert_eq!(
            assemble(part(no_part), Some(named(&old))),
            Damage::NoSuchPart
        );
    }
    let other = part(Some(part::Part::Data(Bytes::from_static(b"x"))));
    assert_eq!(assemble(other, Some(named(&old))), Damage::OtherVersion);
}

proptest! {
    #[test]
    fn whatever_the_bytes_they_arrive(base: Vec<u8>, new: Vec<u8>) {
        prop_assume!(!new.is_empty());
        send(&new.into(), Some(&base.into()));
    }

    #[test]
    fn whatever_the_records_they_arrive(
        base in prop::collection::vec(0_usize..20, 0..40),
        new in prop::collection::vec(0_usize..20, 0..40),
    ) {
        send(&snapshot(new), Some(&snapshot(base)));
    }
}
