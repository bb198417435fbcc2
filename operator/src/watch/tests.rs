use super::*;

#[test]
fn a_write_of_a_status_is_no_reason_to_compile() {
    let store = Store::default();
    let route = |generation: i64, version: &str| {
        let mut route = Route::new("r", spec());
        route.metadata.namespace = Some("d".into());
        route.metadata.generation = Some(generation);
        route.metadata.resource_version = Some(version.into());
        route
    };
    let put = |route: Route| store.put(Name::of(&route), route);
    assert_eq!(put(route(1, "10")), Change::Object);
    assert_eq!(put(route(1, "11")), Change::Status);
    assert_eq!(put(route(2, "12")), Change::Object);
    let mut labelled = route(2, "13");
    labelled.labels_mut().insert("a".into(), "b".into());
    assert_eq!(put(labelled), Change::Object);
    let mut anew = route(2, "14");
    anew.metadata.uid = Some("another".into());
    assert_eq!(put(anew.clone()), Change::Object);
    assert_eq!(store.all(), [Arc::new(anew.clone())]);
    assert_eq!(store.remove(&Name::of(&anew)), Change::Object);
    assert_eq!(store.remove(&Name::of(&anew)), Change::Nothing);
}

#[test]
fn a_list_replaces_what_was_there() {
    let stores = Stores::default();
    assert_eq!(
        stores.unlisted(),
        [
            "Relay",
            "Destination",
            "Route",
            "Blocklist",
            "Rewriter",
            "Aggregator",
            "Pod"
        ]
    );
    let route = Route::new("old", spec());
    stores.routes.put(Name::of(&route), route);
    assert_eq!(stores.routes.replace(BTreeMap::new()), Change::List);
    assert_eq!(stores.routes.all(), []);
    assert_eq!(
        stores.unlisted(),
        [
            "Relay",
            "Destination",
            "Blocklist",
            "Rewriter",
            "Aggregator",
            "Pod"
        ]
    );
}

#[test]
fn of_a_pod_its_identity_and_phase_are_kept() {
    let mut pod: Pod = serde_saphyr::from_str(
        "
apiVersion: v1
kind: Pod
metadata: {name: edge-0, uid: u, labels: {carbonway.io/relay: edge}, annotations: {a: b}, managedFields: [{manager: m}]}
spec: {containers: [{name: relay}]}
status: {phase: Running, podIP: 10.0.0.1}
",
    )
    .unwrap();
    keep_identity_and_phase(&mut pod);
    let kept: Pod = serde_saphyr::from_str(
        "
apiVersion: v1
kind: Pod
metadata: {name: edge-0, uid: u, labels: {carbonway.io/relay: edge}, annotations: {}, managedFields: []}
status: {phase: Running}
",
    )
    .unwrap();
    assert_eq!(pod, kept);
}

fn spec() -> crds::RouteSpec {
    serde_saphyr::from_str("destinations: [{name: x}]").unwrap()
}
