use super::*;
use crate::fixture::{ALL, GRAPHITE, RELAY, apply};
use crate::inputs::Kind;

const WEB: &str = "
kind: Route
metadata: {name: web, generation: 1}
spec: {match: {prefix: web.}, destinations: [{name: graphite}]}
";

#[test]
fn the_same_resources_are_the_same_publication() {
    let first = first(&[RELAY, GRAPHITE, ALL]);
    assert_eq!(first.after(apply(&[ALL, GRAPHITE, RELAY])), first);
}

#[test]
fn an_edited_route_does_not_touch_the_others() {
    let first = first(&[RELAY, GRAPHITE, ALL, WEB]);
    let edited = WEB
        .replace("web.", "www.")
        .replace("generation: 1", "generation: 2");
    let second = first.after(apply(&[RELAY, GRAPHITE, ALL, &edited]));
    let published = &second.fleets[&relay()];
    assert_eq!(published.revision, 2);
    assert_ne!(published.version, first.fleets[&relay()].version);
    assert_eq!(
        [&relay(), &destination(), &route("all"), &route("web")].map(|key| published.since(key)),
        [Some(1), Some(1), Some(1), Some(2)]
    );
}

#[test]
fn what_a_relay_lets_in_is_the_relays_own_and_a_rule_its_rewriters() {
    let rewriter = "
kind: Rewriter
metadata: {name: dc, generation: 1}
spec: {rules: [{name: dc, literal: dc1, with: ams}]}
";
    let first = first(&[RELAY, GRAPHITE, ALL, rewriter]);
    let strict = RELAY.replace("spec: {", "spec: {validation: {level: Strict}, ");
    let second = first.after(apply(&[&strict, GRAPHITE, ALL, rewriter]));
    let renamed = rewriter
        .replace("ams", "fra")
        .replace("generation: 1", "generation: 2");
    let third = second.after(apply(&[&strict, GRAPHITE, ALL, &renamed]));
    let of_rewriter = Key::new(Kind::Rewriter, "d", "dc");
    let keys = [&relay(), &route("all"), &of_rewriter];
    assert_eq!(
        keys.map(|key| second.fleets[&relay()].since(key)),
        [Some(2), Some(1), Some(1)]
    );
    assert_eq!(
        keys.map(|key| third.fleets[&relay()].since(key)),
        [Some(2), Some(1), Some(3)]
    );
}

#[test]
fn a_new_place_in_the_order_is_to_be_acknowledged() {
    let first = first(&[RELAY, GRAPHITE, ALL, WEB]);
    let moved = WEB
        .replace("spec: {", "spec: {priority: 1, ")
        .replace("generation: 1", "generation: 2");
    let second = first.after(apply(&[RELAY, GRAPHITE, ALL, &moved]));
    let published = &second.fleets[&relay()];
    assert_eq!(published.since(&route("web")), Some(2));
    assert_eq!(published.since(&route("all")), Some(1));
}

#[test]
fn a_new_generation_that_relays_need_not_hear_of_is_active_already() {
    let first = first(&[RELAY, GRAPHITE, ALL]);
    let same_order = ALL
        .replace("spec: {", "spec: {priority: 1, ")
        .replace("generation: 3", "generation: 4");
    let second = first.after(apply(&[RELAY, GRAPHITE, &same_order]));
    let published = &second.fleets[&relay()];
    assert_eq!(
        (published.revision, published.since(&route("all"))),
        (1, Some(1))
    );

    // And it stays so when something else changes.
    let third = second.after(apply(&[RELAY, GRAPHITE, &same_order, WEB]));
    let published = &third.fleets[&relay()];
    assert_eq!(
        (published.revision, published.since(&route("all"))),
        (2, Some(1))
    );
}

#[test]
fn what_was_away_must_be_acknowledged_anew() {
    let first = first(&[RELAY, GRAPHITE, ALL, WEB]);
    let second = first.after(apply(&[RELAY, GRAPHITE, ALL]));
    assert_eq!(second.fleets[&relay()].since(&route("web")), None);
    let third = second.after(apply(&[RELAY, GRAPHITE, ALL, WEB]));
    assert_eq!(third.fleets[&relay()].since(&route("web")), Some(3));
    assert_eq!(
        third.fleets[&relay()].version,
        first.fleets[&relay()].version
    );
}

#[test]
fn a_fleet_that_is_made_anew_does_not_begin_with_revisions_that_were_used() {
    let first = first(&[RELAY, GRAPHITE, ALL]);
    let second = first.after(apply(&[GRAPHITE, ALL]));
    assert_eq!(second.fleets.len(), 0);
    let third = second.after(apply(&[RELAY, GRAPHITE, ALL]));
    assert_eq!(third.fleets[&relay()].since(&route("all")), Some(2));
}

#[test]
fn an_unchanged_publication_wakes_nobody() {
    let (publications, mut seen) = watch::channel(None);
    let metrics = Metrics::new();
    publish(
        &publications,
        apply(&[RELAY, GRAPHITE, ALL]),
        Duration::ZERO,
        &metrics,
    );
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    publish(
        &publications,
        apply(&[RELAY, GRAPHITE, ALL]),
        Duration::ZERO,
        &metrics,
    );
    assert!(!seen.has_changed().unwrap());
    // A finding is news, even where the snapshot is the same.
    let unused = GRAPHITE.replace("name: graphite", "name: unused");
    publish(
        &publications,
        apply(&[RELAY, GRAPHITE, ALL, &unused]),
        Duration::ZERO,
        &metrics,
    );
    assert!(seen.has_changed().unwrap());
}

#[test]
fn nothing_at_all_is_published_too() {
    let (publications, seen) = watch::channel(None);
    publish(&publications, apply(&[]), Duration::ZERO, &Metrics::new());
    assert_eq!(seen.borrow().as_deref(), Some(&Publication::default()));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_changes_is_waited_for_but_not_for_ever() {
    let changed = Notify::new();
    let begun = Instant::now();
    quiet(&changed, QUIET, QUIET_AWAITED_MAX).await;
    assert_eq!(begun.elapsed(), QUIET);

    let begun = Instant::now();
    let mut ticks = tokio::time::interval(QUIET / 2);
    tokio::select! {
        () = quiet(&changed, QUIET, QUIET_AWAITED_MAX) => {}
        () = async { loop { ticks.tick().await; changed.notify_one(); } } => {}
    }
    assert_eq!(begun.elapsed(), QUIET_AWAITED_MAX);
}

fn first(manifests: &[&str]) -> Publication {
    publication(apply(manifests))
}

fn relay() -> Key {
    Key::new(Kind::Relay, "d", "edge")
}

fn destination() -> Key {
    Key::new(Kind::Destination, "d", "graphite")
}

fn route(name: &str) -> Key {
    Key::new(Kind::Route, "d", name)
}

const HOLD: Duration = Duration::from_secs(30);

impl Publication {
    // What comes next where nothing is held.
    fn after(&self, compiled: Compiled) -> Self {
        self.next(compiled, Duration::ZERO, Instant::now())
    }
}

// A fleet with so many routes; `edited` of them are not as they were.
fn fleet(routes: usize, edited: usize) -> Compiled {
    let routes = (0..routes).map(|number| {
        let prefix = if number < edited { "edited" } else { "a" };
        ALL.replace("name: all", &format!("name: route-{number}"))
            .replace("spec: {", &format!("spec: {{match: {{prefix: {prefix}}}, "))
    });
    let routes: Vec<String> = routes.collect();
    let mut manifests = vec![RELAY, GRAPHITE];
    manifests.extend(routes.iter().map(String::as_str));
    apply(&manifests)
}

#[test]
fn a_fleet_that_loses_most_of_its_routes_goes_on_with_them_for_a_while() {
    let now = Instant::now();
    let relay = Key::new(Kind::Relay, "d", "edge");
    let version = |publication: &Publication| publication.fleets[&relay].version;
    let first = publication(fleet(20, 0));
    // half of them may go
    let half = first.next(fleet(10, 0), HOLD, now);
    assert_ne!(version(&half), version(&first));

    let held = first.next(fleet(9, 1), HOLD, now);
    assert_eq!(version(&held), version(&first));
    assert_eq!(held.held[&relay].routes, (20, 9));
    // of those that are left, the one that was changed is active nowhere
    let since = |route: &str| held.fleets[&relay].since(&Key::new(Kind::Route, "d", route));
    assert_eq!((since("route-0"), since("route-1")), (Some(NEVER), Some(1)));

    // what happens meanwhile does not make it longer
    let later = held.next(fleet(8, 1), HOLD, now + HOLD / 2);
    assert_eq!(later.held[&relay].until, now + HOLD);
    let back = later.next(fleet(20, 0), HOLD, now + HOLD / 2);
    assert_eq!(
        (&back.held, version(&back)),
        (&BTreeMap::new(), version(&first))
    );
    assert_eq!(
        back.fleets[&relay].since(&Key::new(Kind::Route, "d", "route-0")),
        Some(1)
    );
    let over = later.next(fleet(8, 1), HOLD, now + HOLD);
    assert!(over.held.is_empty());
    assert_ne!(version(&over), version(&first));
}

#[test]
fn routes_that_are_no_longer_allowed_go_at_once() {
    let now = Instant::now();
    let relay = Key::new(Kind::Relay, "d", "edge");
    let fleet = |allowed: &str| {
        let relay = RELAY.replace(
            "spec: {",
            &format!("spec: {{allowedNamespaces: {{from: {allowed}}}, "),
        );
        let open = GRAPHITE.replace("spec: {", "spec: {allowedFrom: {namespaces: All}, ");
        let routes = (0..20).map(|number| {
            ALL.replace(
                "name: all",
                &format!("name: route-{number}, namespace: team"),
            )
            .replace(
                "spec: {",
                "spec: {relayRefs: [{name: edge, namespace: d}], ",
            )
            .replace("name: graphite", "name: graphite, namespace: d")
        });
        let routes: Vec<String> = routes.collect();
        let mut manifests = vec![relay.as_str(), &open];
        manifests.extend(routes.iter().map(String::as_str));
        apply(&manifests)
    };
    let first = publication(fleet("All"));
    assert_eq!(first.fleets[&relay].routes, 20);
    let next = first.next(fleet("Same"), HOLD, now);
    assert_eq!((next.fleets[&relay].routes, next.held.len()), (0, 0));
}
