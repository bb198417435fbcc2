use std::collections::BTreeSet;

use super::*;
use crate::compile::Finding;
use crate::inputs::{Key, Kind};

#[test]
fn a_status_speaks_of_the_generation_that_was_compiled() {
    let status = status(&verdict(7), &progress(2, 2), &Status::default(), at(10));
    let said: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| {
            let since = condition.last_transition_time.0.as_second();
            (
                condition.type_.as_str(),
                condition.status.as_str(),
                condition.observed_generation,
                since,
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("Accepted", "True", Some(7), 10),
            ("ResolvedRefs", "True", Some(7), 10),
            ("Programmed", "True", Some(7), 10),
            ("Ready", "True", Some(7), 10),
        ]
    );
    assert_eq!(
        (status.observed_generation, status.programmed_pods.as_str()),
        (7, "2/2")
    );
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let before = status(&verdict(1), &progress(2, 1), &Status::default(), at(10));
    let after = status(&verdict(2), &progress(2, 2), &before, at(20));
    let since = |type_| {
        find(&after, type_)
            .unwrap()
            .last_transition_time
            .0
            .as_second()
    };
    assert_eq!(since(ConditionType::Accepted), 10);
    assert_eq!(since(ConditionType::Programmed), 20);
}

#[test]
fn times_and_conditions_of_others_make_no_difference() {
    let ours = status(&verdict(1), &progress(2, 2), &Status::default(), at(10));
    let mut theirs = status(&verdict(1), &progress(2, 2), &Status::default(), at(20));
    theirs.conditions.reverse();
    let mut foreign = theirs.conditions[0].clone();
    foreign.type_ = "Healthy".into();
    theirs.conditions.push(foreign);
    assert!(is_same(&ours, &theirs));

    let pending = status(&verdict(1), &progress(2, 1), &Status::default(), at(10));
    assert!(!is_same(&ours, &pending));
    let newer = status(&verdict(2), &progress(2, 2), &Status::default(), at(10));
    assert!(!is_same(&ours, &newer));
    let mut cleared = ours.clone();
    cleared.conditions.pop();
    assert!(!is_same(&ours, &cleared));
}

#[test]
fn only_the_number_of_pods_can_wait_for_relays_to_come_back() {
    let before = status(&verdict(1), &progress(2, 2), &Status::default(), at(10));
    let held = |verdict: &Verdict, progress: &Progress| {
        is_about_pods_alone(&before, &status(verdict, progress, &before, at(20)))
    };
    assert!(held(&verdict(1), &progress(2, 1)));
    assert!(held(&verdict(1), &progress(1, 1)));
    assert!(held(&verdict(1), &progress(0, 0)));
    assert!(!held(&verdict(2), &progress(2, 1)));
    assert!(!held(&refused(1), &progress(2, 2)));
    let pending = status(&verdict(1), &progress(2, 1), &Status::default(), at(10));
    let now = status(&verdict(1), &progress(2, 0), &pending, at(20));
    assert!(!is_about_pods_alone(&pending, &now));
}

#[test]
fn an_event_tells_of_a_change_of_ready() {
    let nothing = Status::default();
    let pending = status(&verdict(1), &progress(2, 1), &nothing, at(1));
    let ready = status(&verdict(1), &progress(2, 2), &pending, at(2));
    let more = status(&verdict(1), &progress(3, 3), &ready, at(3));
    let bad = status(&refused(2), &progress(3, 3), &more, at(4));
    let told = |before, after| {
        event(before, after).map(|event| (event.type_ == EventType::Warning, event.reason))
    };
    assert_eq!(told(&nothing, &pending), None);
    assert_eq!(told(&pending, &ready), Some((false, "Ready".into())));
    assert_eq!(told(&ready, &more), None);
    assert_eq!(told(&more, &bad), Some((true, "InvalidPattern".into())));
    assert_eq!(told(&bad, &bad), None);
}

#[test]
fn health_that_is_not_known_yet_stays_as_it_was_told() {
    let finding = Finding::new(Reason::NotConnected, "1 of 2 relay pods cannot connect");
    let degraded = Progress {
        degraded: Some(finding),
        ..progress(2, 2)
    };
    let health = Health {
        connected_pods: "1/2".to_owned(),
        ..Health::default()
    };
    let told = Status {
        health: Some(health),
        ..status(&verdict(1), &degraded, &Status::default(), at(1))
    };
    let mut unknown = status(&verdict(1), &progress(2, 2), &told, at(2));
    assert!(!is_same(&told, &unknown));
    keep_health(&mut unknown, &told, Kind::Destination);
    assert!(is_same(&told, &unknown));
}

#[test]
fn an_events_note_fits() {
    let mut long = refused(1);
    long.accepted.message = "é".repeat(2000);
    let status = status(&long, &progress(0, 0), &Status::default(), at(1));
    let note = event(&Status::default(), &status).unwrap().note.unwrap();
    assert!(note.len() <= NOTE_BYTES_MAX && note.len() > NOTE_BYTES_MAX - 3);
}

fn verdict(generation: i64) -> Verdict {
    Verdict {
        generation,
        accepted: Finding::new(Reason::Accepted, "valid"),
        resolved_refs: Finding::new(Reason::ResolvedRefs, "every reference resolves"),
        fleets: BTreeSet::from([Key::new(Kind::Relay, "d", "edge")]),
        warnings: Vec::new(),
    }
}

fn refused(generation: i64) -> Verdict {
    Verdict {
        accepted: Finding::at("match.regex", Reason::InvalidPattern, "unclosed group"),
        fleets: BTreeSet::new(),
        warnings: Vec::new(),
        ..verdict(generation)
    }
}

fn progress(pods: usize, active: usize) -> Progress {
    Progress {
        pods,
        active,
        ..Progress::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}
