//! `carbonway check`: what it says of a directory, and its exit code.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use harness::{
    Directory, Finished, aggregator, binary, blocklist, carbon, destination, file, finish, object,
    relay, rewriter, route,
};
use serde_json::Value;

fn check(directory: &Path, arguments: &[&str]) -> Finished {
    finish(
        Command::new(binary("carbonway"))
            .arg("check")
            .arg(directory)
            .args(arguments),
    )
}

// A finding: "file:line object field", and its message.
type Finding = (String, String);

// What is wrong with a directory, by its JSON, which must agree with its text.
fn findings(directory: &Directory) -> Vec<Finding> {
    let json = check(directory.path(), &["--output", "json"]);
    let report: Value = serde_json::from_str(&json.stdout).expect("one document on stdout");
    let findings = report["findings"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = findings.iter().map(|finding| {
        let path = text(&finding["file"]);
        let name = Path::new(&path)
            .strip_prefix(directory.path())
            .unwrap()
            .display();
        let (object, field) = (text(&finding["object"]), text(&finding["field"]));
        let place = format!("{name}:{} {object} {field}", finding["line"]);
        (place.trim_end().to_owned(), text(&finding["message"]))
    });
    let read: Vec<_> = read.collect();
    assert_eq!(report["ok"], Value::Bool(read.is_empty()));
    assert_eq!(json.code, Some(i32::from(!read.is_empty())));

    let text = check(directory.path(), &[]);
    assert_eq!((text.code, &text.stdout[..]), (json.code, ""));
    if !read.is_empty() {
        assert_eq!(text.stderr.lines().count(), read.len(), "{}", text.stderr);
        for (line, (place, message)) in text.stderr.lines().zip(&read) {
            let (position, _) = place.split_once(' ').unwrap_or((place, ""));
            let begin = format!("{}/{position}: ", directory.path().display());
            assert!(
                line.starts_with(&begin) && line.ends_with(message),
                "{line}"
            );
        }
    }
    read
}

// A directory in which all is well but for what the test adds, in the file more.yaml.
fn good() -> Directory {
    Directory::of([
        relay("", ""),
        carbon("a", sink(), ""),
        route("all", "destinations: [{name: a}]"),
    ])
}

fn sink() -> SocketAddr {
    ([127, 0, 0, 1], 2103).into()
}

// What check says of an object that is added to a good directory: the places, and the messages in one.
fn findings_of(object: &str) -> (Vec<String>, String) {
    let directory = good();
    directory.write("more.yaml", object);
    let (places, messages): (Vec<_>, Vec<_>) = findings(&directory).into_iter().unzip();
    (places, messages.join("\n"))
}

#[test]
fn a_directory_in_which_all_is_well_gives_zero() {
    assert_eq!(findings(&good()), []);
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/quickstart");
    let finished = check(&quickstart, &[]);
    assert_eq!(
        (finished.code, &finished.stdout[..]),
        (Some(0), ""),
        "{}",
        finished.stderr
    );
}

#[test]
fn what_is_valid_and_hardly_meant_is_a_warning() {
    let directory = good();
    directory.write(
        "more.yaml",
        &[
            route("all-first", "priority: 1, onMatch: Stop, destinations: [{name: a}]"),
            carbon("b", ([127, 0, 0, 1], 2104).into(), ""),
            route(
                "ring",
                "priority: 2, distribution: ConsistentHash, consistentHash: {algorithm: CarbonCRelay}, \
                 destinations: [{name: a}, {name: b}]",
            ),
        ]
        .join("---\n"),
    );
    assert_eq!(findings(&directory), []);
    let json = check(directory.path(), &["--output", "json"]);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let warnings = report["warnings"].as_array().unwrap();
    let said: Vec<_> = warnings
        .iter()
        .map(|warning| {
            (
                warning["object"].as_str().unwrap(),
                warning["field"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("Route default/ring", Some("spec.destinations[1]")),
            ("Route default/all", None),
        ]
    );
    let text = check(directory.path(), &[]);
    let shadowed = "Route default/all: no line reaches it in Relay default/edge: Route default/all-first comes first";
    assert!(
        text.stderr.contains("warning: ") && text.stderr.contains(shadowed),
        "{}",
        text.stderr
    );
    assert_eq!(text.code, Some(0));
}

#[test]
fn a_directory_that_cannot_be_read_gives_one_and_says_why() {
    let finished = check(Path::new("/not/there"), &[]);
    assert_eq!((finished.code, &finished.stdout[..]), (Some(1), ""));
    assert!(
        finished
            .stderr
            .contains("cannot read the directory /not/there"),
        "{}",
        finished.stderr
    );
}

#[test]
fn findings_name_the_object_and_the_field() {
    let long = "x".repeat(1025);
    let cases = [
        // patterns, which the engine compiles
        (
            route("r", "match: {regex: '(abc'}, destinations: [{name: a}]"),
            "Route default/r spec.match.regex",
            "unclosed group",
        ),
        (
            route("r", "destinations: [{name: a, match: {notRegex: 'aaa)'}}]"),
            "Route default/r spec.destinations[0].match.notRegex",
            "unopened group",
        ),
        (
            route(
                "r",
                r"match: {regex: '(\pL{200}){200}'}, destinations: [{name: a}]",
            ),
            "Route default/r spec.match.regex",
            "",
        ),
        (
            blocklist("b", "{prefix: x}, {regex: '['}"),
            "Blocklist default/b spec.entries[1].regex",
            "",
        ),
        (
            rewriter("w", "{name: a, regex: (x), with: $1y}"),
            "Rewriter default/w spec.rules[0].with",
            "${1}y",
        ),
        (
            aggregator(
                "g",
                "match: {regex: a}, functions: [Sum], output: $1, interval: 10s, wait: 12s",
            ),
            "Aggregator default/g spec.output",
            "no group",
        ),
        // references
        (
            route("r", "destinations: [{name: a}, {name: nowhere}]"),
            "Route default/r spec.destinations[1].name",
            "nowhere",
        ),
        (
            rewriter(
                "w",
                "{name: a, literal: x, with: z}], relayRefs: [{name: other}",
            ),
            "Rewriter default/w spec.relayRefs",
            "other",
        ),
        (
            route("r", "relayRefs: [{name: other}], destinations: [{name: a}]"),
            "Route default/r spec.relayRefs",
            "other",
        ),
        // schema
        (
            route("r", "destinations: [{name: a}], prority: 1"),
            "Route default/r spec.prority",
            "no such field",
        ),
        (
            route("r", "match: {prefx: a}, destinations: [{name: a}]"),
            "Route default/r spec.match.prefx",
            "no such field",
        ),
        (
            route("r", "destinations: []"),
            "Route default/r spec.destinations",
            "",
        ),
        (
            route("r", "destinations: [{name: a}], onMatch: Halt"),
            "Route default/r spec.onMatch",
            "Halt",
        ),
        (
            route("r", "destinations: [{name: a}], priority: high"),
            "Route default/r spec.priority",
            "integer",
        ),
        (
            route(
                "r",
                &format!("match: {{prefix: {long}}}, destinations: [{{name: a}}]"),
            ),
            "Route default/r spec.match.prefix",
            "1024",
        ),
        (
            route("Not_A_Name", "destinations: [{name: a}]"),
            "Route default/Not_A_Name metadata.name",
            "",
        ),
        (
            destination("d", "carbon: {address: graphite}"),
            "Destination default/d spec.carbon.address",
            "",
        ),
        (
            destination("d", "carbon: {address: 'graphite:99999'}"),
            "Destination default/d spec.carbon.address",
            "",
        ),
        (
            destination("d", "file: {path: relative}"),
            "Destination default/d spec.file.path",
            "",
        ),
        (
            destination("d", "file: {path: /x}, queue: {maxBytes: many}"),
            "Destination default/d spec.queue.maxBytes",
            "",
        ),
        (
            destination("d", "file: {path: /x}, queue: {maxBytes: 1Ki}"),
            "Destination default/d spec.queue.maxBytes",
            "",
        ),
        (
            destination("d", "carbon: {address: 'a:1', connectTimeout: soon}"),
            "Destination default/d spec.carbon.connectTimeout",
            "",
        ),
        // CEL
        (
            destination("d", ""),
            "Destination default/d spec",
            "set exactly one endpoint, such as carbon or file",
        ),
        (
            destination("d", "file: {path: /x}, carbon: {address: 'a:1'}"),
            "Destination default/d spec",
            "set exactly one endpoint, such as carbon or file",
        ),
        (
            blocklist("b", "{prefix: a}, {prefix: ''}"),
            "Blocklist default/b spec",
            "would drop every line",
        ),
        (
            rewriter("w", "{name: a, literal: x, with: z, unless: {}}"),
            "Rewriter default/w spec.rules[0].unless",
            "would leave every name alone",
        ),
        (
            rewriter("w", "{name: a, literal: x, regex: x, with: z}"),
            "Rewriter default/w spec.rules[0]",
            "set exactly one of literal and regex",
        ),
        (
            aggregator(
                "g",
                "match: {regex: a}, functions: [Sum], output: b, interval: 10s, wait: 9s",
            ),
            "Aggregator default/g spec.wait",
            "make it at least the interval",
        ),
        (
            aggregator(
                "g",
                "match: {prefix: a}, functions: [Sum], output: b, interval: 10s, wait: 12s",
            ),
            "Aggregator default/g spec.match.regex",
            "set regex",
        ),
        (
            object(
                "Relay",
                "other",
                "listeners: [{name: a, port: 1, plaintext: {}}, {name: b, port: 1, plaintext: {}}]",
            ),
            "Relay default/other spec",
            "two listeners have the same port",
        ),
        // the envelope
        (
            object("Rout", "r", "destinations: [{name: a}]"),
            " kind",
            "there is no kind 'Rout'",
        ),
        (
            route("r", "destinations: [{name: a}]").replace("v1alpha1", "v9"),
            "Route default/r apiVersion",
            "v1alpha1",
        ),
    ];
    for (object, place, word) in cases {
        let (places, messages) = findings_of(&object);
        assert_eq!(
            places,
            [format!("more.yaml:1 {place}")],
            "{object}{messages}"
        );
        assert!(
            !messages.is_empty() && messages.contains(word),
            "{object}{messages}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_files() {
    let directory = Directory::of([
        relay("", ""),
        route("bad", "match: {regex: '('}, destinations: [{name: a}]"),
        destination("worse", "colour: red, file: {path: /x}, queue: {size: 1}"),
        carbon("a", sink(), ""),
    ]);
    directory.write(
        "another.yml",
        &route("dangling", "destinations: [{name: nowhere}]"),
    );
    let places: Vec<_> = findings(&directory)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    let expected = [
        "another.yml:1 Route default/dangling spec.destinations[0].name",
        "resources.yaml:6 Route default/bad spec.match.regex",
        "resources.yaml:11 Destination default/worse spec.queue.size",
        "resources.yaml:11 Destination default/worse spec.colour",
    ];
    assert_eq!(places, expected);
}

#[test]
fn one_bad_object_is_not_a_finding_of_others() {
    let directory = good();
    directory.write(
        "more.yaml",
        &route("r", "match: {regex: '('}, destinations: [{name: a}]"),
    );
    assert_eq!(findings(&directory).len(), 1);
    // but what refers to a bad one is told so
    directory.write(
        "more.yaml",
        &[
            file("d", Path::new("relative")),
            route("r", "destinations: [{name: d}]"),
        ]
        .join("---\n"),
    );
    let places: Vec<_> = findings(&directory)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    let expected = [
        "more.yaml:1 Destination default/d spec.file.path",
        "more.yaml:6 Route default/r spec.destinations[0].name",
    ];
    assert_eq!(places, expected);
}

#[test]
fn the_same_object_twice_is_a_finding_wherever_the_two_are() {
    let again = route("all", "destinations: [{name: a}]");
    let (places, message) = findings_of(&again);
    assert_eq!(
        places,
        ["resources.yaml:11 Route default/all metadata.name"]
    );
    assert!(message.contains("more.yaml:1"), "{message}");
    // in another namespace it is another object
    let (places, _) = findings_of(&again.replace("name: all", "name: all, namespace: other"));
    assert_eq!(places, ["more.yaml:1 Route other/all"]);
}

#[test]
fn a_file_that_is_no_yaml_is_named_with_the_line() {
    let directory = good();
    directory.write(
        "broken.yaml",
        &format!(
            "{}---\nkind: Route\nspec: {{a: [}}\n",
            route("r", "destinations: [{name: a}]")
        ),
    );
    let [(place, message)] = &findings(&directory)[..] else {
        panic!("one finding")
    };
    assert_eq!(place, "broken.yaml:7");
    assert!(message.starts_with("not YAML: "), "{message}");
}

#[test]
fn only_yaml_files_of_the_directory_itself_are_read() {
    let directory = good();
    fs::create_dir(directory.file("sub.yaml")).unwrap();
    fs::create_dir(directory.file("sub")).unwrap();
    for name in [
        "notes.txt",
        "resources.yaml~",
        ".yaml",
        "sub/bad.yaml",
        "README.md",
    ] {
        fs::write(directory.file(name), "kind: [\n").unwrap();
    }
    assert_eq!(findings(&directory), []);
}

#[test]
fn objects_of_other_api_groups_and_empty_documents_are_passed_over() {
    let others = "# a comment\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\n---\n\
        apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n";
    assert_eq!(findings_of(others), (vec![], String::new()));
}
