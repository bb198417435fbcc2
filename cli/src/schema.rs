//! What the API server would say of a resource: its CRD's schema, with defaults and CEL rules, and unknown fields.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

/// What patterns of names begin with.
const NAME: &str = "^[a-z0-9]([-a-z0-9";

/// The schemas of all kinds.
pub(crate) struct Schemas(BTreeMap<String, Schema>);

struct Schema {
    // As the CRD has it: for defaults and CEL.
    open_api: Value,
    // The same in JSON Schema, which refuses unknown fields.
    structural: Validator,
}

/// Something that a schema does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `spec.match.regex`; empty for the whole object.
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Schemas {
    /// Compiles the schemas of the CRDs that this program was built with.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let schemas = crds::all().into_iter().map(|crd| {
            let kind = crd.spec.names.kind;
            let version = crd.spec.versions.into_iter().next();
            let open_api = version
                .and_then(|version| version.schema?.open_api_v3_schema)
                .with_context(|| format!("the CRD of {kind} has no schema"))?;
            let open_api = serde_json::to_value(open_api)?;
            let structural = jsonschema::validator_for(&to_json_schema(&open_api))
                .map_err(|error| anyhow::anyhow!("the schema of {kind}: {error}"))?;
            Ok((
                kind,
                Schema {
                    open_api,
                    structural,
                },
            ))
        });
        schemas.collect::<anyhow::Result<_>>().map(Self)
    }

    /// Checks an object of `kind` and fills in its defaults. An object of a kind that is not known comes back as `None`.
    pub(crate) fn check(
        &self,
        kind: &str,
        object: &Value,
    ) -> Option<Result<Value, Vec<Violation>>> {
        let schema = self.0.get(kind)?;
        let object = kube_cel::apply_defaults(&schema.open_api, &without_nulls(object));
        let mut violations: Vec<_> = schema
            .structural
            .iter_errors(&object)
            .flat_map(|error| explain(&error, &schema.open_api))
            .collect();
        if violations.is_empty()
            && let Err(errors) =
                kube_cel::Validator::new().validate(&schema.open_api, &object, None)
        {
            violations.extend(errors.iter().map(|error| Violation {
                field: error.field_path.clone(),
                message: error.message.clone(),
            }));
        }
        Some(if violations.is_empty() {
            Ok(object)
        } else {
            Err(violations)
        })
    }
}

// To the API server a field that is null is one that is not there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn explain(error: &jsonschema::ValidationError<'_>, open_api: &Value) -> Vec<Violation> {
    let field = dotted(error.instance_path().as_str());
    // What the schema has of the field: the last part of the path is the word that it breaks.
    let schema_path = error.schema_path().as_str();
    let (schema_path, _) = schema_path.rsplit_once('/').unwrap_or_default();
    let schema = open_api.pointer(schema_path).unwrap_or(&Value::Null);
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
        let message = match schema["properties"].as_object() {
            Some(known) => {
                let known = listed(known.keys().cloned());
                format!("there is no such field: there are {known}")
            }
            None => "there is no such field".to_owned(),
        };
        let unknown = |name: &String| Violation {
            field: match field.as_str() {
                "" => name.clone(),
                field => format!("{field}.{name}"),
            },
            message: message.clone(),
        };
        return unexpected.iter().map(unknown).collect();
    }
    let instance = error.instance();
    let message = if let ValidationErrorKind::Enum { options } = error.kind() {
        let options = options.as_array().into_iter().flatten();
        let text = |option: &Value| option.as_str().map(str::to_owned);
        let options = options.map(|option| text(option).unwrap_or_else(|| option.to_string()));
        format!("{instance} is not one of {}", listed(options))
    } else if let ValidationErrorKind::Pattern { pattern } = error.kind() {
        let list = schema_path.strip_suffix("/items");
        let list = list.and_then(|path| open_api.pointer(path));
        let mut described = [Some(schema), list].into_iter().flatten();
        let described = described.find_map(|schema| schema["description"].as_str());
        let what = expected(pattern, described.unwrap_or("see the pattern"));
        format!("{instance} is not what is expected here: {what} (pattern {pattern})")
    } else {
        error.to_string()
    };
    vec![Violation { field, message }]
}

fn listed(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

// What a pattern stands for, in words.
fn expected<'a>(pattern: &str, described: &'a str) -> &'a str {
    match pattern {
        crds::Duration::PATTERN => "a duration, such as 30s or 1h30m",
        crds::Size::PATTERN => "a number of bytes, such as 64Mi",
        name if name.starts_with(NAME) => "a name of lower-case letters, digits and -",
        _ => {
            let first = described.split_once(". ").map(|(first, _)| first);
            first.unwrap_or(described).trim_end_matches('.')
        }
    }
}

// `/spec/listeners/0/port` as people write it: `spec.listeners[0].port`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path += &format!("[{part}]");
        } else {
            let separator = if path.is_empty() { "" } else { "." };
            path += separator;
            path += part;
        }
    }
    path
}

// OpenAPI's `nullable` and Kubernetes' int-or-string in JSON Schema's words, and no field beyond those that are named.
fn to_json_schema(open_api: &Value) -> Value {
    let mut root = convert(open_api);
    if let Some(Value::Object(properties)) = root.get_mut("properties") {
        properties.insert("apiVersion".to_owned(), json!({ "type": "string" }));
        properties.insert("kind".to_owned(), json!({ "type": "string" }));
        properties.insert("metadata".to_owned(), metadata());
    }
    root
}

fn metadata() -> Value {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" },
            "namespace": { "type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" },
            "labels": strings,
            "annotations": strings,
        },
    })
}

fn convert(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut fields: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), convert(value)))
                .collect();
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                fields
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                fields.insert("type".to_owned(), json!(["integer", "string"]));
            }
            if fields.remove("nullable") == Some(Value::Bool(true)) {
                match fields.get_mut("type") {
                    Some(Value::Array(types)) => types.push(json!("null")),
                    Some(one) => *one = json!([one, "null"]),
                    None => {}
                }
            }
            Value::Object(fields)
        }
        Value::Array(items) => Value::Array(items.iter().map(convert).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(kind: &str, spec: Value) -> Vec<(String, String)> {
        let object = json!({
            "apiVersion": "carbonway.io/v1alpha1",
            "kind": kind,
            "metadata": { "name": "x" },
            "spec": spec,
        });
        let checked = Schemas::new()
            .unwrap()
            .check(kind, &object)
            .expect("the kind is known");
        let violations = checked.err().unwrap_or_default();
        violations
            .into_iter()
            .map(|violation| (violation.field, violation.message))
            .collect()
    }

    fn one(kind: &str, spec: Value) -> (String, String) {
        let [violation] = violations(kind, spec).try_into().expect("one violation");
        violation
    }

    #[test]
    fn what_is_valid_passes_with_its_defaults_filled_in() {
        let object =
            json!({ "metadata": { "name": "x" }, "spec": { "destinations": [{ "name": "a" }] } });
        let checked = Schemas::new()
            .unwrap()
            .check("Route", &object)
            .unwrap()
            .unwrap();
        assert_eq!(checked["spec"]["distribution"], "All");
        let listener = json!({ "name": "a", "port": 2003, "plaintext": {} });
        assert_eq!(violations("Relay", json!({ "listeners": [listener] })), []);
        let queue = json!({ "maxBytes": 1_048_576 });
        assert_eq!(
            violations(
                "Destination",
                json!({ "file": { "path": "/x" }, "queue": queue })
            ),
            []
        );
    }

    #[test]
    fn unknown_fields_are_named() {
        let spec = json!({ "destinations": [{ "name": "a" }], "match": { "prefx": "a" } });
        assert_eq!(
            one("Route", spec),
            (
                "spec.match.prefx".into(),
                "there is no such field: there are contains, glob, notContains, notPrefix, notRegex, prefix, regex, suffix, tags"
                    .into()
            )
        );
    }

    #[test]
    fn types_patterns_and_limits_are_checked() {
        for (kind, spec, field) in [
            ("Route", json!({ "destinations": "a" }), "spec.destinations"),
            ("Route", json!({ "destinations": [] }), "spec.destinations"),
            (
                "Route",
                json!({ "destinations": [{ "name": "a" }], "onMatch": "Halt" }),
                "spec.onMatch",
            ),
            (
                "Relay",
                json!({ "listeners": [{ "name": "a", "port": 0, "plaintext": {} }] }),
                "spec.listeners[0].port",
            ),
            (
                "Destination",
                json!({ "carbon": { "address": "graphite" } }),
                "spec.carbon.address",
            ),
            (
                "Destination",
                json!({ "file": { "path": "/x" }, "queue": { "maxBytes": "many" } }),
                "spec.queue.maxBytes",
            ),
        ] {
            assert_eq!(one(kind, spec.clone()).0, field, "{spec}");
        }
    }

    #[test]
    fn what_would_do_is_said() {
        let route = json!({ "destinations": [{ "name": "a" }], "onMatch": "Halt" });
        let said = one("Route", route).1;
        assert_eq!(said, "\"Halt\" is not one of Continue, Stop");
        let carbon = |more: Value| {
            let mut carbon = json!({ "address": "graphite" });
            carbon
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            one("Destination", json!({ "carbon": carbon })).1
        };
        let said = carbon(json!({}));
        let expected = "\"graphite\" is not what is expected here: host:port, or [address]:port for IPv6 (pattern ^";
        assert!(said.starts_with(expected), "{said}");
        let said = carbon(json!({ "address": "a:1", "connectTimeout": "soon" }));
        let expected = "\"soon\" is not what is expected here: a duration, such as 30s or 1h30m (";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn cel_rules_are_checked() {
        let none = json!({});
        let both = json!({ "carbon": { "address": "a:1" }, "file": { "path": "/x" } });
        for spec in [none, both] {
            let (field, message) = one("Destination", spec);
            assert_eq!(
                (field.as_str(), message.as_str()),
                ("spec", "set exactly one endpoint, such as carbon or file")
            );
        }
        let (_, message) = one(
            "Blocklist",
            json!({ "entries": [{ "prefix": "a" }, { "prefix": "" }] }),
        );
        assert!(
            message.starts_with("an entry has no condition"),
            "{message}"
        );
        let listener = |name: &str| json!({ "name": name, "port": 2003, "plaintext": {} });
        let (_, message) = one(
            "Relay",
            json!({ "listeners": [listener("a"), listener("b")] }),
        );
        assert_eq!(
            message,
            "two listeners have the same port: give each its own"
        );
        let socket = json!({ "path": "/run/a.sock" });
        for (listener, expected) in [
            (json!({ "port": 1 }), "set exactly one protocol"),
            (
                json!({ "port": 1, "plaintext": {}, "pickle": {} }),
                "set exactly one protocol",
            ),
            (
                json!({ "pickle": {} }),
                "set exactly one of port and unixSocket, and none with amqp",
            ),
            (
                json!({ "unixSocket": socket, "plaintext": { "transport": "Udp" } }),
                "datagrams come to a port",
            ),
            (
                json!({ "port": 1, "compression": "Gzip", "plaintext": { "transport": "TcpAndUdp" } }),
                "datagrams come to a port",
            ),
            (
                json!({ "unixSocket": socket, "pickle": {}, "allowedSources": ["10.0.0.0/8"] }),
                "who connects to a unixSocket",
            ),
        ] {
            let mut listener = listener;
            listener["name"] = json!("a");
            let (field, message) = one("Relay", json!({ "listeners": [listener] }));
            assert_eq!(field, "spec.listeners[0]");
            assert!(message.starts_with(expected), "{message}");
        }
        let rule = json!({ "name": "a", "literal": "x", "with": "", "unless": {} });
        let (field, message) = one("Rewriter", json!({ "rules": [rule] }));
        assert_eq!(field, "spec.rules[0].unless");
        assert!(message.starts_with("no condition is set"), "{message}");
    }

    #[test]
    fn durations_are_compared_by_cel() {
        let aggregator = |interval: &str, wait: &str| {
            let spec = json!({
                "match": { "regex": "^raw" },
                "functions": ["Sum"],
                "output": "agg",
                "interval": interval,
                "wait": wait,
            });
            let violations = violations("Aggregator", spec).into_iter();
            violations.map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(aggregator("10s", "12s"), Vec::<String>::new());
        assert_eq!(aggregator("1h", "60m"), Vec::<String>::new());
        assert_eq!(aggregator("744h", "744h"), Vec::<String>::new());
        assert_eq!(aggregator("1h", "59m"), ["spec.wait"]);
        assert_eq!(aggregator("0s", "1s"), ["spec.interval"]);
        assert_eq!(aggregator("1500ms", "2s"), ["spec.interval"]);
        assert_eq!(aggregator("1s", "745h"), ["spec.wait"]);
    }

    #[test]
    fn a_null_is_an_absent_field() {
        let listener = json!({ "name": "a", "port": 2003, "plaintext": {} });
        let spec = json!({ "listeners": [listener], "validation": { "maxPast": null } });
        assert_eq!(violations("Relay", spec), []);
        let rule = json!({ "name": "a", "literal": "x", "with": "", "regex": null, "max": null, "unless": null });
        assert_eq!(violations("Rewriter", json!({ "rules": [rule] })), []);
    }
}
