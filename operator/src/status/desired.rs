//! What a status should be, and how it differs from what it is. Pure.

use crds::{ConditionType, Health, Reason, Status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, EventType};

use crate::compile::Verdict;
use crate::conditions::{Progress, conditions};
use crate::inputs::Kind;

/// An event's text, in bytes; the API takes no more.
const NOTE_BYTES_MAX: usize = 1024;

/// Every type of condition that is ours.
const TYPES: [ConditionType; 9] = [
    ConditionType::Accepted,
    ConditionType::ResolvedRefs,
    ConditionType::Programmed,
    ConditionType::Ready,
    ConditionType::Stalled,
    ConditionType::Reconciling,
    ConditionType::Shadowed,
    ConditionType::PartiallyInvalid,
    ConditionType::Degraded,
];

/// The status of an object. A condition that stays as it was in `current` keeps its time.
pub(super) fn status(
    verdict: &Verdict,
    progress: &Progress,
    current: &Status,
    now: Timestamp,
) -> Status {
    let conditions = conditions(verdict, progress).into_iter().map(|condition| {
        let type_ = condition.type_.as_str().to_owned();
        let status = if condition.is_true { "True" } else { "False" };
        let since = find(current, condition.type_)
            .filter(|before| before.status == status)
            .map_or(Time(now), |before| before.last_transition_time.clone());
        Condition {
            type_,
            status: status.to_owned(),
            reason: condition.reason.as_str().to_owned(),
            message: condition.message,
            observed_generation: Some(verdict.generation),
            last_transition_time: since,
        }
    });
    Status {
        observed_generation: verdict.generation,
        conditions: conditions.collect(),
        programmed_pods: match verdict.fleets.is_empty() {
            true => String::new(),
            false => progress.to_string(),
        },
        relays: Vec::new(),
        snapshot_version: String::new(),
        replicas: None,
        ready_replicas: None,
        selector: String::new(),
        health: None,
        orphaned_spools: None,
    }
}

/// Leaves what relay pods said as it was last told.
pub(super) fn keep_health(status: &mut Status, current: &Status, kind: Kind) {
    status.health.clone_from(&current.health);
    status.orphaned_spools.clone_from(&current.orphaned_spools);
    let is_theirs = |condition: &Condition| match kind {
        Kind::Destination => condition.type_ == ConditionType::Degraded.as_str(),
        // The other reasons are about its fleet, and known.
        Kind::Relay => {
            condition.type_ == ConditionType::Degraded.as_str()
                && condition.reason == Reason::NotConnected.as_str()
        }
        Kind::Route | Kind::Blocklist | Kind::Rewriter | Kind::Aggregator => false,
    };
    status.conditions.retain(|condition| !is_theirs(condition));
    if find(status, ConditionType::Degraded).is_some() {
        return;
    }
    let degraded = find(current, ConditionType::Degraded).filter(|degraded| is_theirs(degraded));
    let degraded = degraded.cloned();
    status
        .conditions
        .extend(degraded.map(|condition| Condition {
            observed_generation: Some(status.observed_generation),
            ..condition
        }));
}

/// Whether two statuses say the same, whenever it came to be. Conditions of others are not looked at.
pub(super) fn is_same(a: &Status, b: &Status) -> bool {
    a.observed_generation == b.observed_generation
        && a.programmed_pods == b.programmed_pods
        && a.relays == b.relays
        && a.snapshot_version == b.snapshot_version
        && size(a) == size(b)
        && timeless(a.health.as_ref()) == timeless(b.health.as_ref())
        && a.orphaned_spools == b.orphaned_spools
        && have_same_conditions(a, b)
}

/// Whether nothing but figures differs that go up and down by themselves.
pub(super) fn is_about_figures_alone(current: &Status, desired: &Status) -> bool {
    let pods = |status: &Status| {
        let health = status.health.as_ref();
        health.map(|health| (health.connected_pods.clone(), health.dropping.clone()))
    };
    let orphans = |status: &Status| status.orphaned_spools.as_ref().map(|spools| spools.count);
    current.observed_generation == desired.observed_generation
        && current.programmed_pods == desired.programmed_pods
        && current.relays == desired.relays
        && current.snapshot_version == desired.snapshot_version
        && size(current) == size(desired)
        && pods(current) == pods(desired)
        && orphans(current) == orphans(desired)
        && have_same_conditions(current, desired)
}

fn size(status: &Status) -> (Option<i32>, Option<i32>, &str) {
    (status.replicas, status.ready_replicas, &status.selector)
}

// The same failure a moment later is no news.
fn timeless(health: Option<&Health>) -> Option<Health> {
    let mut health = health?.clone();
    if let Some(error) = &mut health.last_error {
        error.time = Time(Timestamp::UNIX_EPOCH);
    }
    Some(health)
}

fn have_same_conditions(a: &Status, b: &Status) -> bool {
    TYPES
        .into_iter()
        .all(|type_| match (find(a, type_), find(b, type_)) {
            (Some(a), Some(b)) => {
                (&a.status, &a.reason, &a.message, a.observed_generation)
                    == (&b.status, &b.reason, &b.message, b.observed_generation)
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        })
}

/// Whether an object that relays ran when it was last looked at is just as it was, and all that changes is on how many.
pub(super) fn is_about_pods_alone(current: &Status, desired: &Status) -> bool {
    let is_counting = find(desired, ConditionType::Programmed).is_some_and(|condition| {
        [Reason::Programmed, Reason::Pending, Reason::NoRelays]
            .map(Reason::as_str)
            .contains(&condition.reason.as_str())
    });
    is_counting
        && is_true(current, ConditionType::Programmed)
        && current.observed_generation == desired.observed_generation
        && current.snapshot_version == desired.snapshot_version
        && [ConditionType::Accepted, ConditionType::ResolvedRefs]
            .into_iter()
            .all(|type_| is_true(current, type_) == is_true(desired, type_))
}

/// What is to be told of a change of Ready, if it changed, or else of what degrades a Destination.
pub(super) fn event(current: &Status, desired: &Status) -> Option<Event> {
    ready_event(current, desired).or_else(|| degraded_event(current, desired))
}

fn degraded_event(current: &Status, desired: &Status) -> Option<Event> {
    let degraded = find(desired, ConditionType::Degraded)?;
    let before = find(current, ConditionType::Degraded);
    let is_news = before.is_none_or(|before| before.reason != degraded.reason);
    is_news.then(|| told(degraded, EventType::Warning, "Deliver"))
}

// That relays have yet to answer is no news.
fn ready_event(current: &Status, desired: &Status) -> Option<Event> {
    let ready = find(desired, ConditionType::Ready)?;
    let before = find(current, ConditionType::Ready);
    let is_news = before
        .is_none_or(|before| (&before.status, &before.reason) != (&ready.status, &ready.reason));
    if !is_news || ready.reason == Reason::Pending.as_str() {
        return None;
    }
    let type_ = match is_true(desired, ConditionType::Ready) {
        true => EventType::Normal,
        false => EventType::Warning,
    };
    Some(told(ready, type_, "Program"))
}

fn told(condition: &Condition, type_: EventType, action: &str) -> Event {
    let message = &condition.message;
    Event {
        type_,
        reason: condition.reason.clone(),
        note: Some(message[..message.floor_char_boundary(NOTE_BYTES_MAX)].to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

fn find(status: &Status, type_: ConditionType) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == type_.as_str())
}

fn is_true(status: &Status, type_: ConditionType) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests;
