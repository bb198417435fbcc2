use relay_proto::ObjectRef;
use tokio::time::advance;

use super::*;
use crate::fixture::{ALL, GRAPHITE, RELAY, apply};
use crate::publish::publication;

const GRACE: Duration = Duration::from_secs(45);

#[tokio::test]
async fn relays_outside_a_cluster_count_while_they_are_connected() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    let b = roster.join(edge("b"), None);
    assert_eq!(said(&roster, &[]), "0/2");
    a.acknowledge(1, version());
    b.acknowledge(1, version());
    assert_eq!(said(&roster, &[]), "2/2");
    drop(b);
    assert_eq!(said(&roster, &[]), "1/1");
}

#[tokio::test]
async fn pods_count_before_they_connect_and_not_when_they_go() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    a.acknowledge(1, version());
    let of_another = pod("x", "metadata: {labels: {carbonway.io/relay: core}}");
    let pods = [pod("a", ""), pod("b", ""), of_another];
    assert_eq!(said(&roster, &pods), "1/2");
    let over = pod("b", "status: {phase: Succeeded}");
    assert_eq!(said(&roster, &[pod("a", ""), over]), "1/1");
    let leaving = pod("a", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}");
    assert_eq!(said(&roster, &[leaving]), "0/0");
}

#[tokio::test]
async fn an_old_revision_does_not_count() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    a.acknowledge(0, version());
    assert_eq!(said(&roster, &[]), "0/1");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lost_its_connection_counts_for_the_grace_period() {
    let roster = Roster::new(GRACE);
    let pods = [pod("a", "")];
    let a = roster.join(edge("a"), None);
    a.acknowledge(1, version());
    assert_eq!(said(&roster, &pods), "1/1");
    assert_eq!(roster.until_next_loss(), None);
    drop(a);
    advance(GRACE - Duration::from_secs(1)).await;
    assert_eq!(said(&roster, &pods), "1/1");
    assert_eq!(roster.until_next_loss(), Some(Duration::from_secs(1)));
    advance(Duration::from_secs(1)).await;
    assert_eq!(said(&roster, &pods), "0/1");
    assert_eq!(roster.until_next_loss(), None);
}

#[tokio::test]
async fn a_pod_that_was_made_anew_has_yet_to_say_what_it_runs() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    a.acknowledge(1, version());
    assert_eq!(said(&roster, &[pod("a", "metadata: {uid: first}")]), "1/1");
    drop(a);
    assert_eq!(said(&roster, &[pod("a", "metadata: {uid: second}")]), "0/1");
}

#[tokio::test]
async fn a_relay_that_comes_back_counts_if_it_still_runs_what_it_acknowledged() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    a.acknowledge(1, version());
    drop(a);
    let same = roster.join(edge("a"), Some(version()));
    assert_eq!(said(&roster, &[]), "1/1");
    drop(same);
    let _other = roster.join(edge("a"), None);
    assert_eq!(said(&roster, &[]), "0/1");
}

#[tokio::test]
async fn a_second_stream_of_a_pod_takes_over() {
    let roster = Roster::new(GRACE);
    let mut first = roster.join(edge("a"), None);
    let second = roster.join(edge("a"), None);
    assert!((&mut first.taken_over).await.is_err());
    // What the first says, and its end, concern nobody.
    first.acknowledge(1, version());
    drop(first);
    assert_eq!(said(&roster, &[]), "0/1");
    second.acknowledge(1, version());
    assert_eq!(said(&roster, &[]), "1/1");
}

#[tokio::test]
async fn a_refusal_is_laid_at_the_door_of_the_object_that_caused_it() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    let error = |source: Option<ObjectRef>, field: &str| ObjectError {
        source,
        field: field.into(),
        message: "cannot".into(),
    };
    a.refuse(1, &[error(Some(route().to_ref()), "match.regex")]);
    let rejection = |text: &str| {
        Some(Rejection {
            pod: "a".into(),
            message: text.into(),
        })
    };
    let progress = |key: &Key| progress_of(&roster, &[], key);
    assert_eq!(
        progress(&route()).rejection,
        rejection("spec.match.regex: cannot")
    );
    assert_eq!(progress(&relay()).rejection, None);
    a.refuse(1, &[error(None, "")]);
    assert_eq!(progress(&route()).rejection, None);
    assert_eq!(progress(&relay()).rejection, rejection("cannot"));
    a.acknowledge(1, version());
    assert_eq!(progress(&relay()).rejection, None);
}

#[tokio::test]
async fn a_refusal_of_what_was_mended_since_is_over() {
    let roster = Roster::new(GRACE);
    let a = roster.join(edge("a"), None);
    let error = ObjectError {
        source: Some(route().to_ref()),
        ..ObjectError::default()
    };
    a.refuse(0, &[error]);
    assert_eq!(progress_of(&roster, &[], &route()).rejection, None);
}

#[tokio::test]
async fn it_is_known_who_is_missing_only_where_pods_are_objects() {
    let roster = Roster::new(GRACE);
    let publication = publication(apply(&[RELAY, GRAPHITE, ALL]));
    let verdict = &publication.verdicts[&route()];
    let is_complete = |pods: &[Arc<Pod>]| roster.view(pods).is_complete(verdict);
    assert!(!is_complete(&[]));
    let a = roster.join(edge("a"), None);
    // what it runs is not known yet
    assert!(!is_complete(&[pod("a", "")]));
    let published = &publication.fleets[&relay()];
    a.acknowledge(published.revision, published.version);
    assert!(!is_complete(&[]));
    assert!(!is_complete(&[pod("a", ""), pod("b", "")]));
    assert!(is_complete(&[pod("a", "")]));
}

fn edge(name: &str) -> RelayPod {
    RelayPod {
        fleet: relay(),
        name: name.into(),
    }
}

fn relay() -> Key {
    Key::new(Kind::Relay, "d", "edge")
}

fn route() -> Key {
    Key::new(Kind::Route, "d", "all")
}

fn version() -> Version {
    Version::of(b"a snapshot")
}

/// A pod of `edge`, with `more` fields.
fn pod(name: &str, more: &str) -> Arc<Pod> {
    let mut pod: Pod =
        serde_saphyr::from_str(&format!("kind: Pod\napiVersion: v1\n{more}")).unwrap();
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("d".into());
    pod.labels_mut()
        .entry(RELAY_LABEL.into())
        .or_insert_with(|| "edge".into());
    Arc::new(pod)
}

fn progress_of(roster: &Roster, pods: &[Arc<Pod>], key: &Key) -> Progress {
    let publication = publication(apply(&[RELAY, GRAPHITE, ALL]));
    let verdict = &publication.verdicts[key];
    roster
        .view(pods)
        .progress(key, &verdict.fleets, &publication)
}

fn said(roster: &Roster, pods: &[Arc<Pod>]) -> String {
    progress_of(roster, pods, &route()).to_string()
}

#[tokio::test]
async fn how_things_stand_is_known_when_every_relay_that_is_connected_has_reported() {
    let roster = Roster::new(GRACE);
    let fleet = edge("a").fleet;
    let known = |had_time| roster.view(&[]).have_reported([&fleet], had_time);
    assert!(!known(false) && known(true), "nobody is there");
    let is_known = || known(true);
    let [a, b] = ["a", "b"].map(|pod| roster.join(edge(pod), None));
    a.report(Reported::default());
    assert!(!is_known(), "b has yet to report");
    b.report(Reported::default());
    assert!(is_known());
    let again = roster.join(edge("b"), None);
    assert!(!is_known(), "b has yet to report on its new stream");
    again.report(Reported::default());
    assert!(is_known());
}
