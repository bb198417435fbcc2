//! [`conditions`]: what compiling found and what relays acknowledged → what an object says of itself.
//!
//! The one definition of `Accepted`, `ResolvedRefs`, `Programmed` and `Ready`, in a cluster and without one. Pure: who
//! writes a status brings the time.
//!
//! | condition      | there       | true when                                                        |
//! |----------------|-------------|------------------------------------------------------------------|
//! | `Accepted`     | always      | the object is valid and a Relay runs it                          |
//! | `ResolvedRefs` | always      | everything that it refers to exists and is accepted              |
//! | `Programmed`   | always      | every relay pod concerned acknowledged a snapshot that holds it   |
//! | `Ready`        | always      | all of these; else the first that failed, with its reason        |
//! | `Stalled`      | while true  | a person is needed: not accepted, or a relay cannot take it       |
//! | `Reconciling`  | while true  | relays have yet to answer, or pods of a Relay are about to go     |
//! | `Shadowed`     | while true  | no line can reach it, because another object takes them all      |
//! | `PartiallyInvalid` | while true | a part of it has no effect                                    |
//! | `Degraded`     | while true  | relay pods do not get or deliver all that an object is about      |
//!
//! The last three are warnings: what has them may well be Ready, which is about what is applied. A reference that does not resolve is not `Stalled`: what it names may be applied a second later.

use std::fmt;

use crds::{ConditionType, Reason};

use crate::compile::{Finding, Verdict};

// The API takes 32768 characters; a person reads far less.
const MESSAGE_CHARS_MAX: usize = 1024;

/// How far the relay pods of an object's fleets have come with its present generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The relay pods concerned.
    pub pods: usize,
    /// Those that acknowledged a snapshot that holds the object as it is.
    pub active: usize,
    /// The first refusal that names the object.
    pub rejection: Option<Rejection>,
    /// That a relay pod cannot read what this operator writes.
    pub unable: Option<String>,
    /// What hinders a Destination, as relay pods report it; or a Relay's pods, as the API server has it.
    pub degraded: Option<Finding>,
    /// What is yet to happen to a Relay: its pods are about to go, or its snapshot is held.
    pub unfinished: Option<Finding>,
}

/// A relay pod refused a snapshot because of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The pod's name.
    pub pod: String,
    /// Where in the object's spec, and what is wrong, in the relay's words.
    pub message: String,
}

impl fmt::Display for Progress {
    /// `6/6`, as `status.programmedPods` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.active, self.pods)
    }
}

/// One condition; without times and generations, which are its writer's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is claimed.
    pub type_: ConditionType,
    /// Whether it is so.
    pub is_true: bool,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = if self.is_true { "True" } else { "False" };
        write!(
            f,
            "{}={status} {}: {}",
            self.type_, self.reason, self.message
        )
    }
}

/// The conditions of an object, in the order of the table above.
pub fn conditions(verdict: &Verdict, progress: &Progress) -> Vec<Condition> {
    let programmed = programmed(verdict, progress);
    let failure = verdict
        .failure()
        .or_else(|| Some(&programmed).filter(|finding| !finding.is_true()));
    let ready = match failure {
        Some(failure) => failure.clone(),
        None => Finding::new(Reason::Ready, programmed.message.clone()),
    };
    let mut conditions = vec![
        condition(ConditionType::Accepted, &verdict.accepted),
        condition(ConditionType::ResolvedRefs, &verdict.resolved_refs),
        condition(ConditionType::Programmed, &programmed),
        condition(ConditionType::Ready, &ready),
    ];
    let stalled = Some(&verdict.accepted)
        .filter(|finding| !finding.is_true())
        .or_else(|| {
            let needs_a_person = [Reason::Rejected, Reason::SchemaUnsupported];
            Some(&programmed).filter(|finding| needs_a_person.contains(&finding.reason))
        });
    if let Some(finding) = stalled {
        conditions.push(present(ConditionType::Stalled, finding));
    }
    let unfinished = Some(&programmed).filter(|finding| finding.reason == Reason::Pending);
    if let Some(finding) = unfinished.or(progress.unfinished.as_ref()) {
        conditions.push(present(ConditionType::Reconciling, finding));
    }
    for warning in &verdict.warnings {
        let type_ = if warning.reason == Reason::Shadowed {
            ConditionType::Shadowed
        } else {
            ConditionType::PartiallyInvalid
        };
        conditions.push(present(type_, warning));
    }
    if let Some(finding) = &progress.degraded {
        conditions.push(present(ConditionType::Degraded, finding));
    }
    conditions
}

/// Whether all is well with the object.
pub fn is_ready(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == ConditionType::Ready && condition.is_true)
}

fn programmed(verdict: &Verdict, progress: &Progress) -> Finding {
    if verdict.fleets.is_empty() {
        return left_out(verdict);
    }
    if let Some(Rejection { pod, message }) = &progress.rejection {
        return Finding::new(
            Reason::Rejected,
            format!("active on {progress} relay pods; {pod} refused it: {message}"),
        );
    }
    if let Some(why) = &progress.unable {
        let message = format!("active on {progress} relay pods; {why}");
        return Finding::new(Reason::SchemaUnsupported, message);
    }
    match progress {
        // Without their names: a Destination may be in those of other namespaces.
        Progress { pods: 0, .. } => Finding::new(
            Reason::NoRelays,
            match verdict.fleets.len() {
                1 => "the Relay that runs it has no relay pods".to_owned(),
                relays => format!("the {relays} Relays that run it have no relay pods"),
            },
        ),
        Progress { pods, active, .. } => Finding::new(
            if active == pods {
                Reason::Programmed
            } else {
                Reason::Pending
            },
            format!("active on {progress} relay pods"),
        ),
    }
}

// An object without a fault that no snapshot holds is a Destination: the other kinds are attached or not accepted.
fn left_out(verdict: &Verdict) -> Finding {
    match verdict.failure() {
        Some(failure) => Finding::new(
            failure.reason,
            "not active on any relay pod: it is left out of what they run",
        ),
        None => Finding::new(
            Reason::NotReferenced,
            "no active Route names this Destination: name it in the destinations of a Route",
        ),
    }
}

fn condition(type_: ConditionType, finding: &Finding) -> Condition {
    Condition {
        type_,
        is_true: finding.is_true(),
        reason: finding.reason,
        message: short(finding.text()),
    }
}

fn present(type_: ConditionType, finding: &Finding) -> Condition {
    Condition {
        is_true: true,
        ..condition(type_, finding)
    }
}

fn short(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::inputs::{Key, Kind};

    #[test]
    fn active_on_all_pods_is_ready() {
        assert_eq!(
            said(&accepted(), &progress(2, 2)),
            [
                "Accepted=True Accepted: valid",
                "ResolvedRefs=True ResolvedRefs: every reference resolves",
                "Programmed=True Programmed: active on 2/2 relay pods",
                "Ready=True Ready: active on 2/2 relay pods",
            ]
        );
    }

    #[test]
    fn outstanding_answers_are_reconciling() {
        assert_eq!(
            said(&accepted(), &progress(2, 1))[2..],
            [
                "Programmed=False Pending: active on 1/2 relay pods",
                "Ready=False Pending: active on 1/2 relay pods",
                "Reconciling=True Pending: active on 1/2 relay pods",
            ]
        );
    }

    #[test]
    fn a_fleet_without_pods_is_said_and_is_nobodys_fault() {
        assert_eq!(
            said(&accepted(), &progress(0, 0))[2..],
            [
                "Programmed=False NoRelays: the Relay that runs it has no relay pods",
                "Ready=False NoRelays: the Relay that runs it has no relay pods",
            ]
        );
    }

    #[test]
    fn a_refusal_names_the_pod_and_needs_a_person() {
        let progress = Progress {
            rejection: Some(Rejection {
                pod: "edge-0".into(),
                message: "match.regex: too large".into(),
            }),
            ..progress(2, 1)
        };
        let message = "active on 1/2 relay pods; edge-0 refused it: match.regex: too large";
        assert_eq!(
            said(&accepted(), &progress)[2..],
            [
                format!("Programmed=False Rejected: {message}"),
                format!("Ready=False Rejected: {message}"),
                format!("Stalled=True Rejected: {message}"),
            ]
        );
    }

    #[test]
    fn a_relay_of_another_time_is_said_and_needs_a_person() {
        let progress = Progress {
            unable: Some("edge-0 reads snapshots up to schema 0".into()),
            ..progress(2, 1)
        };
        let message = "active on 1/2 relay pods; edge-0 reads snapshots up to schema 0";
        assert_eq!(
            said(&accepted(), &progress)[2..],
            ["Programmed=False", "Ready=False", "Stalled=True"]
                .map(|is| format!("{is} SchemaUnsupported: {message}"))
        );
    }

    #[test]
    fn what_is_not_accepted_is_stalled_and_what_does_not_resolve_is_not() {
        let bad = Verdict {
            accepted: Finding::at("match.regex", Reason::InvalidPattern, "unclosed group"),
            fleets: BTreeSet::new(),
            ..accepted()
        };
        assert_eq!(
            said(&bad, &progress(0, 0)),
            [
                "Accepted=False InvalidPattern: spec.match.regex: unclosed group",
                "ResolvedRefs=True ResolvedRefs: every reference resolves",
                "Programmed=False InvalidPattern: not active on any relay pod: it is left out of what they run",
                "Ready=False InvalidPattern: spec.match.regex: unclosed group",
                "Stalled=True InvalidPattern: spec.match.regex: unclosed group",
            ]
        );
        let dangling = Verdict {
            resolved_refs: Finding::new(Reason::DestinationNotFound, "no Destination d/x"),
            fleets: BTreeSet::new(),
            ..accepted()
        };
        assert_eq!(
            said(&dangling, &progress(0, 0))[1..],
            [
                "ResolvedRefs=False DestinationNotFound: no Destination d/x",
                "Programmed=False DestinationNotFound: not active on any relay pod: it is left out of what they run",
                "Ready=False DestinationNotFound: no Destination d/x",
            ]
        );
    }

    #[test]
    fn a_destination_that_nothing_names_says_so() {
        let unused = Verdict {
            fleets: BTreeSet::new(),
            ..accepted()
        };
        let conditions = conditions(&unused, &progress(0, 0));
        assert_eq!(conditions[2].reason, Reason::NotReferenced);
        assert!(!is_ready(&conditions));
    }

    #[test]
    fn a_message_without_end_is_cut() {
        let bad = Verdict {
            accepted: Finding::new(Reason::UnsupportedValue, "é".repeat(40_000)),
            ..accepted()
        };
        let conditions = conditions(&bad, &progress(1, 1));
        assert_eq!(conditions[0].message.chars().count(), 1025);
    }

    fn accepted() -> Verdict {
        Verdict {
            generation: 1,
            accepted: Finding::new(Reason::Accepted, "valid"),
            resolved_refs: Finding::new(Reason::ResolvedRefs, "every reference resolves"),
            warnings: Vec::new(),
            fleets: BTreeSet::from([Key::new(Kind::Relay, "d", "edge")]),
        }
    }

    fn progress(pods: usize, active: usize) -> Progress {
        Progress {
            pods,
            active,
            ..Progress::default()
        }
    }

    fn said(verdict: &Verdict, progress: &Progress) -> Vec<String> {
        let conditions = conditions(verdict, progress);
        conditions.iter().map(Condition::to_string).collect()
    }
}
