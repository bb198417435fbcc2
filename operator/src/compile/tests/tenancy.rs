//! Who may refer to whom across namespaces, and what those hear who may not.

use super::*;

const TEAM_ROUTE: &str = "
kind: Route
metadata: {name: web, namespace: team, generation: 2}
spec: {relayRefs: [{name: edge, namespace: d}], destinations: [{name: graphite, namespace: d}]}
";

const TEAM_LABELLED: &str = "
kind: Namespace
metadata: {name: team, labels: {tier: trusted}}
";

fn relay_that_allows(allowed: &str) -> String {
    RELAY.replace(
        "spec: {",
        &format!("spec: {{allowedNamespaces: {allowed}, "),
    )
}

fn graphite_that_allows(allowed: &str) -> String {
    GRAPHITE.replace("spec: {", &format!("spec: {{allowedFrom: {allowed}, "))
}

fn team_route() -> Key {
    Key::new(Kind::Route, "team", "web")
}

fn said(compiled: &Compiled, key: &Key) -> [String; 2] {
    let verdict = &compiled.verdicts[key];
    [&verdict.accepted, &verdict.resolved_refs]
        .map(|finding| format!("{}: {}", finding.reason, finding.text()))
}

#[test]
fn a_route_of_another_namespace_runs_where_relay_and_destination_allow_it() {
    let compiled = apply(&[
        &relay_that_allows("{from: All}"),
        &graphite_that_allows("{namespaces: All}"),
        TEAM_ROUTE,
    ]);
    let snapshot = &compiled.fleets[&relay("edge")].snapshot;
    let target = snapshot.routes[0].targets[0].destination.clone();
    let graphite = relay_proto::ObjectRef::new("Destination", "d", "graphite");
    assert_eq!(target, Some(graphite.clone()));
    assert_eq!(snapshot.destinations[0].source, Some(graphite));
    assert_eq!(compiled.verdicts[&team_route()].failure(), None);
    assert_eq!(
        compiled.verdicts[&team_route()].fleets,
        BTreeSet::from([relay("edge")])
    );
}

#[test]
fn without_leave_of_the_relay_it_is_not_accepted_and_cannot_tell_whether_the_relay_exists() {
    let allowed = graphite_that_allows("{namespaces: All}");
    let forbidden = apply(&[RELAY, &allowed, TEAM_ROUTE]);
    let absent = apply(&[&allowed, TEAM_ROUTE]);
    assert_eq!(
        said(&forbidden, &team_route()),
        [
            "NotAllowedByRelay: spec.relayRefs: Relay d/edge does not exist or does not allow namespace team: its \
             spec.allowedNamespaces is to include it",
            "ResolvedRefs: every reference resolves",
        ]
    );
    assert_eq!(
        said(&absent, &team_route()),
        said(&forbidden, &team_route())
    );
    assert!(forbidden.verdicts[&team_route()].is_forbidden());
    assert_eq!(forbidden.fleets[&relay("edge")].snapshot.routes, []);
}

#[test]
fn without_leave_of_the_destination_it_is_left_out_and_cannot_tell_whether_the_destination_exists()
{
    let allowed = relay_that_allows("{from: All}");
    let forbidden = apply(&[&allowed, GRAPHITE, TEAM_ROUTE]);
    let absent = apply(&[&allowed, TEAM_ROUTE]);
    assert_eq!(
        said(&forbidden, &team_route())[1],
        "RefNotPermitted: spec.destinations[0]: Destination d/graphite does not exist or does not allow namespace team, so \
         the whole route is left out: its spec.allowedFrom is to include it"
    );
    assert_eq!(
        said(&absent, &team_route()),
        said(&forbidden, &team_route())
    );
    assert!(forbidden.verdicts[&team_route()].is_forbidden());
    let snapshot = &forbidden.fleets[&relay("edge")].snapshot;
    assert_eq!((snapshot.routes.len(), snapshot.destinations.len()), (0, 0));
}

#[test]
fn a_selector_asks_the_labels_of_the_namespace_and_its_name() {
    let is_allowed = |selector: &str, manifests: &[&str]| {
        let relay = relay_that_allows(&format!("{{from: Selector, selector: {selector}}}"));
        let graphite =
            graphite_that_allows(&format!("{{namespaces: Selector, selector: {selector}}}"));
        let mut all = vec![relay.as_str(), graphite.as_str(), TEAM_ROUTE];
        all.extend(manifests);
        let compiled = apply(&all);
        compiled.verdicts[&team_route()].failure().is_none()
    };
    let by_label = "{matchLabels: {tier: trusted}}";
    assert!(is_allowed(by_label, &[TEAM_LABELLED]));
    assert!(!is_allowed(by_label, &[]));
    assert!(!is_allowed(
        by_label,
        &[&TEAM_LABELLED.replace("trusted", "x")]
    ));
    let by_name = |operator: &str| {
        format!(
            "{{matchExpressions: [{{key: kubernetes.io/metadata.name, operator: {operator}, values: [team]}}]}}"
        )
    };
    assert!(is_allowed(&by_name("In"), &[]));
    assert!(!is_allowed(&by_name("NotIn"), &[]));
    let liar = TEAM_LABELLED.replace("tier: trusted", "kubernetes.io/metadata.name: other");
    assert!(is_allowed(&by_name("In"), &[&liar]));
    let by_presence =
        |operator: &str| format!("{{matchExpressions: [{{key: tier, operator: {operator}}}]}}");
    assert!(is_allowed(&by_presence("Exists"), &[TEAM_LABELLED]));
    assert!(!is_allowed(&by_presence("DoesNotExist"), &[TEAM_LABELLED]));
    assert!(is_allowed("{}", &[]), "an empty selector selects all");
}

#[test]
fn an_object_runs_on_those_of_its_relays_that_allow_it() {
    let own = RELAY.replace("name: edge,", "name: own, namespace: team,");
    let both = TEAM_ROUTE.replace(
        "[{name: edge, namespace: d}]",
        "[{name: own}, {name: edge, namespace: d}]",
    );
    let compiled = apply(&[
        RELAY,
        &own,
        &graphite_that_allows("{namespaces: All}"),
        &both,
    ]);
    assert_eq!(
        said(&compiled, &team_route()),
        [
            "Accepted: valid and attached to Relay team/own",
            "NotAllowedByRelay: spec.relayRefs: Relay d/edge does not exist or does not allow namespace team: its \
             spec.allowedNamespaces is to include it",
        ]
    );
}

#[test]
fn one_that_is_shadowed_hears_nothing_of_the_route_of_another_namespace() {
    let catch_all = ALL.replace("spec: {", "spec: {priority: 9, onMatch: Stop, ");
    let compiled = apply(&[
        &relay_that_allows("{from: All}"),
        &graphite_that_allows("{namespaces: All}"),
        &catch_all,
        TEAM_ROUTE,
    ]);
    let warnings = &compiled.verdicts[&team_route()].warnings;
    assert_eq!(
        warnings[0].message,
        "no line reaches it in Relay d/edge: a Route of another namespace takes all that this one could"
    );
}

#[test]
fn what_is_bad_in_two_fleets_of_two_namespaces_is_left_out_of_both() {
    let far = RELAY.replace("name: edge,", "name: far, namespace: zone,");
    let far = far.replace("spec: {", "spec: {allowedNamespaces: {from: All}, ");
    let bad = ALL.replace(
        "spec: {",
        "spec: {match: {regex: '('}, relayRefs: [{name: edge}, {name: far, namespace: zone}], ",
    );
    let good = ALL.replace("name: all,", "name: good,");
    let good = good.replace(
        "spec: {",
        "spec: {relayRefs: [{name: edge}, {name: far, namespace: zone}], ",
    );
    let compiled = apply(&[RELAY, &far, GRAPHITE, &bad, &good]);
    assert_eq!(routes_of(&compiled, "edge"), ["good"]);
    let far = Key::new(Kind::Relay, "zone", "far");
    assert_eq!(compiled.fleets[&far].snapshot.routes.len(), 1);
    assert_eq!(
        failure(&compiled, &route("all")).reason,
        Reason::InvalidPattern
    );
}
