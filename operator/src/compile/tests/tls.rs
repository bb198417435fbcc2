//! Certificates and keys by reference.

use rcgen::generate_simple_self_signed;
use relay_proto::destination::Endpoint;

use super::*;

const TLS_RELAY: &str = "
kind: Relay
metadata: {name: edge, labels: {carbonway.io/default: 'true'}}
spec: {listeners: [{name: plain, port: 2003, plaintext: {}, tls: {certificate: {name: relay}, clientCa: {name: ca}}}]}
";

const TLS_GRAPHITE: &str = "
kind: Destination
metadata: {name: graphite}
spec: {carbon: {address: 'graphite:2003', tls: {ca: {name: ca}, certificate: {name: relay}, serverName: g.example}}}
";

struct Pair {
    certificate: String,
    key: String,
}

fn pair() -> Pair {
    let generated = generate_simple_self_signed(["graphite".to_owned()]).unwrap();
    Pair {
        certificate: generated.cert.pem(),
        key: generated.signing_key.serialize_pem(),
    }
}

fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("{key}: {value:?}"))
        .collect();
    let entries = entries.join(", ");
    format!("\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{{entries}}}\n")
}

fn secret_of(name: &str, pair: &Pair) -> String {
    secret(
        name,
        &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)],
    )
}

fn graphite() -> Key {
    Key::new(Kind::Destination, "d", "graphite")
}

#[test]
fn secrets_travel_with_what_refers_to_them() {
    let (pair, ca) = (pair(), self::pair().certificate);
    let compiled = apply(&[
        TLS_RELAY,
        TLS_GRAPHITE,
        ALL,
        &secret_of("relay", &pair),
        &secret("ca", &[("ca.crt", &ca), ("tls.key", "hush")]),
    ]);
    for verdict in compiled.verdicts.values() {
        assert_eq!(verdict.failure(), None);
    }
    let snapshot = &compiled.fleets[&relay("edge")].snapshot;
    let identity = Some(relay_proto::Identity {
        certificate: pair.certificate.into(),
        key: pair.key.into(),
    });
    assert_eq!(
        snapshot.listeners[0].tls,
        Some(relay_proto::ListenerTls {
            identity: identity.clone(),
            client_ca: ca.clone().into(),
        })
    );
    let Some(Endpoint::Carbon(carbon)) = &snapshot.destinations[0].endpoint else {
        panic!("it is a carbon server")
    };
    assert_eq!(
        carbon.tls,
        Some(relay_proto::PeerTls {
            ca: ca.into(),
            identity,
            server_name: "g.example".into(),
        })
    );
}

#[test]
fn a_secret_that_is_missing_or_cannot_be_used_is_said_without_its_content() {
    let (good, other) = (pair(), pair());
    let ca = secret("ca", &[("ca.crt", &good.certificate)]);
    let mixed = Pair {
        certificate: good.certificate.clone(),
        key: other.key,
    };
    let at_certificate = "carbon.tls.certificate.name";
    for (secrets, reason, field, message) in [
        (
            vec![ca.clone()],
            Reason::SecretNotFound,
            at_certificate,
            "Secret d/relay does not exist, or must not be read: create it",
        ),
        (
            vec![
                ca.clone(),
                secret("relay", &[("tls.crt", &good.certificate)]),
            ],
            Reason::InvalidSecret,
            at_certificate,
            "Secret d/relay: there is no tls.key",
        ),
        (
            vec![
                ca.clone(),
                secret("relay", &[("tls.crt", "hush"), ("tls.key", "hush")]),
            ],
            Reason::InvalidSecret,
            at_certificate,
            "Secret d/relay: tls.crt is not a certificate in PEM",
        ),
        (
            vec![ca, secret_of("relay", &mixed)],
            Reason::InvalidSecret,
            at_certificate,
            "Secret d/relay: tls.key is not the key of the certificate in tls.crt",
        ),
        (
            vec![
                secret_of("relay", &good),
                secret("ca", &[("ca.crt", "hush")]),
            ],
            Reason::InvalidSecret,
            "carbon.tls.ca.name",
            "Secret d/ca: ca.crt is not a certificate in PEM",
        ),
    ] {
        let manifests: Vec<&str> = [RELAY, TLS_GRAPHITE, ALL]
            .into_iter()
            .chain(secrets.iter().map(String::as_str))
            .collect();
        let compiled = apply(&manifests);
        let verdict = &compiled.verdicts[&graphite()];
        assert_eq!(verdict.accepted, Finding::new(Reason::Accepted, "valid"));
        assert_eq!(
            verdict.resolved_refs,
            Finding::at(field, reason, message),
            "{message}"
        );
        assert_eq!(
            *failure(&compiled, &route("all")),
            Finding::at(
                "destinations[0].name",
                Reason::DestinationNotAccepted,
                "Destination d/graphite lacks a Secret, so the whole route is left out: see its status",
            )
        );
        let snapshot = &compiled.fleets[&relay("edge")].snapshot;
        assert_eq!((snapshot.routes.len(), snapshot.destinations.len()), (0, 0));
    }
}

#[test]
fn a_relay_without_its_secret_gets_nothing_new() {
    let compiled = apply(&[TLS_RELAY, GRAPHITE, ALL]);
    assert!(compiled.fleets.is_empty());
    let verdict = &compiled.verdicts[&relay("edge")];
    assert_eq!(
        (verdict.accepted.reason, verdict.resolved_refs.text()),
        (
            Reason::Accepted,
            "spec.listeners[plain].tls.certificate.name: Secret d/relay does not exist, or must not be read: create it"
                .to_owned()
        )
    );
    let route = &compiled.verdicts[&route("all")].resolved_refs;
    assert_eq!(
        (route.reason, route.message.as_str()),
        (
            Reason::RelayNotAccepted,
            "Relay d/edge lacks a Secret, so its pods get nothing new: see its status"
        )
    );
}

#[test]
fn a_server_must_have_a_name_that_a_certificate_can_have() {
    let tls = |address: &str, tls: &str| {
        let graphite = GRAPHITE.replace(
            "{address: 'graphite:2003'}",
            &format!("{{address: '{address}', tls: {{{tls}}}}}"),
        );
        let compiled = apply(&[RELAY, &graphite, ALL]);
        compiled.verdicts[&self::graphite()].failure().cloned()
    };
    for (address, name) in [
        ("graphite-0.graphite:2003", ""),
        ("[::1]:2003", ""),
        ("a!b:2003", "serverName: graphite"),
        ("graphite:2003", "serverName: 10.0.0.1"),
    ] {
        assert_eq!(tls(address, name), None, "{address} {name}");
    }
    for (address, name, bad) in [
        ("a!b:2003", "", "a!b"),
        ("graphite:2003", "serverName: 'a:1'", "a:1"),
    ] {
        let message = format!(
            "'{bad}' is neither a host name nor an IP address: name the server as its certificate does"
        );
        let expected = Finding::at("carbon.tls.serverName", Reason::UnsupportedValue, message);
        assert_eq!(tls(address, name), Some(expected));
    }
}
