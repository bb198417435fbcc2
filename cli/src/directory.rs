//! A directory of resources: every `*.yaml` and `*.yml` in it, several documents a file if need be. Directories within it
//! are not read.
//!
//! Objects without a namespace are in `default`. Secrets, Services and EndpointSlices are there for resources to refer to, and
//! Namespaces for their labels. Other documents of other API groups (a kustomization, a ConfigMap) are passed over. What is
//! wrong is collected, not thrown, so that all of it is said at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use operator::inputs::{
    Inputs, Key, Kind, Objects, SERVICE_LABEL, Secret, SecretName, ServiceName,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::finding::Finding;
use crate::schema::Schemas;

const DEFAULT_NAMESPACE: &str = "default";

/// What a directory holds.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) inputs: Inputs,
    /// Where each object stands.
    pub(crate) origins: BTreeMap<Key, Origin>,
    /// What is wrong with the files themselves.
    pub(crate) findings: Vec<Finding>,
}

/// Where an object stands.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    file: PathBuf,
    line: usize,
}

impl Origin {
    /// Something wrong at this place.
    pub(crate) fn finding(
        &self,
        object: Option<&Key>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        let (file, object) = (self.file.clone(), object.cloned());
        Finding {
            file,
            line: self.line,
            object,
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The text of every file, by path: what a directory is made of.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// Reads the files of a directory, or one file.
///
/// # Errors
/// The directory or one of its files cannot be read.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Files> {
    if directory.is_file() {
        let text = fs::read_to_string(directory);
        let text = text.with_context(|| format!("cannot read {}", directory.display()))?;
        return Ok(Files::from([(directory.to_owned(), text)]));
    }
    let listing = fs::read_dir(directory)
        .with_context(|| format!("cannot read the directory {}", directory.display()))?;
    let mut files = Files::new();
    for entry in listing {
        let path = entry?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !is_yaml {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => drop(files.insert(path, text)),
            // A directory of that name, or a file that went while we looked.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::IsADirectory | io::ErrorKind::NotFound
                ) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    Ok(files)
}

/// Makes resources of files.
pub(crate) fn parse(files: &Files, schemas: &Schemas) -> Directory {
    let mut parser = Parser {
        schemas,
        directory: Directory::default(),
        objects: Objects::default(),
    };
    for (path, text) in files {
        for (line, document) in documents(text) {
            parser.document(
                Origin {
                    file: path.clone(),
                    line,
                },
                document,
            );
        }
    }
    let Parser {
        mut directory,
        objects,
        ..
    } = parser;
    directory.inputs = Inputs::new(objects);
    directory
}

fn text_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default()
}

struct Parser<'a> {
    schemas: &'a Schemas,
    directory: Directory,
    objects: Objects,
}

impl Parser<'_> {
    fn document(&mut self, origin: Origin, text: &str) {
        let object: Value = match serde_saphyr::from_str(text) {
            Ok(Value::Null) => return,
            Ok(object) => object,
            Err(error) => {
                let within = error
                    .location()
                    .map_or(0, |location| location.line().saturating_sub(1));
                // The message without its place, which counts from the document's start.
                let message = UserMessageFormatter.format_message(error.without_snippet());
                let at = Origin {
                    line: origin.line + within as usize,
                    ..origin
                };
                let finding = at.finding(None, "", format!("not YAML: {}", message));
                return self.directory.findings.push(finding);
            }
        };
        let text_at = |pointer: &str| text_at(&object, pointer);
        let (api_version, kind) = (text_at("/apiVersion"), text_at("/kind"));
        if api_version.is_empty() || kind.is_empty() {
            let message = "apiVersion and kind are missing: is this a resource?";
            return self
                .directory
                .findings
                .push(origin.finding(None, "", message));
        }
        match (api_version, kind) {
            ("v1", "Secret") => self.secret(&origin, object),
            ("v1", "Service") => self.service(&origin, object),
            ("discovery.k8s.io/v1", "EndpointSlice") => self.endpoint_slice(&origin, object),
            ("v1", "Namespace") => self.namespace(&origin, object),
            _ if api_version.split('/').next() == Some(crds::GROUP) => {
                self.resource(origin, &object);
            }
            _ => {}
        }
    }

    // One of our group.
    fn resource(&mut self, origin: Origin, object: &Value) {
        let text_at = |pointer: &str| text_at(object, pointer);
        let (api_version, kind) = (text_at("/apiVersion"), text_at("/kind"));
        let Some(known) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else {
            let message = format!(
                "there is no kind '{kind}' in {}: it has {}",
                crds::GROUP,
                crds::KINDS.join(", ")
            );
            return self
                .directory
                .findings
                .push(origin.finding(None, "kind", message));
        };
        let namespace = match text_at("/metadata/namespace") {
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        };
        let key = Key::new(known, namespace, text_at("/metadata/name"));
        if api_version != format!("{}/v1alpha1", crds::GROUP) {
            let message = format!(
                "'{api_version}' is not served: write {}/v1alpha1",
                crds::GROUP
            );
            return self
                .directory
                .findings
                .push(origin.finding(Some(&key), "apiVersion", message));
        }
        self.object(origin, key, object);
    }

    // What is wrong is said without the words of the parser, which may quote what it has read.
    fn secret(&mut self, origin: &Origin, object: Value) {
        let refuse = |field: &str, message: &str| origin.finding(None, field, message);
        let findings = &mut self.directory.findings;
        let Ok(object) = serde_json::from_value::<v1::Secret>(object) else {
            let message = "not a Secret: data is in base64, stringData is plain text";
            return findings.push(refuse("", message));
        };
        let namespace = object.metadata.namespace.as_deref();
        let name = SecretName {
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let message = format!("{name} is there twice");
        let before = self.objects.secrets.insert(name, Secret::of(&object));
        if before.is_some() {
            findings.push(refuse("metadata.name", &message));
        }
    }

    fn service(&mut self, origin: &Origin, object: Value) {
        let object = match serde_path_to_error::deserialize::<_, v1::Service>(object) {
            Ok(object) => object,
            Err(error) => return self.undecodable(origin, &error),
        };
        let namespace = object.metadata.namespace.as_deref();
        let name = ServiceName {
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let services = &mut self.objects.services;
        services.entry(name).or_default().set_service(Some(&object));
    }

    fn endpoint_slice(&mut self, origin: &Origin, object: Value) {
        let object = match serde_path_to_error::deserialize::<_, EndpointSlice>(object) {
            Ok(object) => object,
            Err(error) => return self.undecodable(origin, &error),
        };
        let namespace = object.metadata.namespace.as_deref();
        match ServiceName::of_slice(&object, namespace.unwrap_or(DEFAULT_NAMESPACE)) {
            Some(name) => {
                let services = &mut self.objects.services;
                services.entry(name).or_default().put_slice(&object);
            }
            None => {
                let message = format!("it is no Service's: name one in the label {SERVICE_LABEL}");
                let finding = origin.finding(None, "metadata.labels", message);
                self.directory.findings.push(finding);
            }
        }
    }

    fn namespace(&mut self, origin: &Origin, object: Value) {
        match serde_path_to_error::deserialize::<_, v1::Namespace>(object) {
            Ok(object) => {
                let labels = object.metadata.labels.unwrap_or_default();
                let name = object.metadata.name.unwrap_or_default();
                self.objects.namespaces.insert(name, labels);
            }
            Err(error) => self.undecodable(origin, &error),
        }
    }

    fn undecodable(
        &mut self,
        origin: &Origin,
        error: &serde_path_to_error::Error<serde_json::Error>,
    ) {
        let (field, message) = (error.path().to_string(), error.inner().to_string());
        let finding = origin.finding(None, field, message);
        self.directory.findings.push(finding);
    }

    fn object(&mut self, origin: Origin, key: Key, object: &Value) {
        if let Some(first) = self.directory.origins.get(&key) {
            let message = format!(
                "the object is there twice, first at {}:{}",
                first.file.display(),
                first.line
            );
            return self.directory.findings.push(origin.finding(
                Some(&key),
                "metadata.name",
                message,
            ));
        }
        self.directory.origins.insert(key.clone(), origin.clone());
        let checked = match self.schemas.check(key.kind.as_str(), object) {
            Some(Ok(checked)) => checked,
            Some(Err(violations)) => {
                let findings = violations.into_iter().map(|violation| {
                    origin.finding(Some(&key), violation.field, violation.message)
                });
                return self.directory.findings.extend(findings);
            }
            None => return,
        };
        let objects = &mut self.objects;
        let decoded = match key.kind {
            Kind::Relay => decode(checked, &key, &mut objects.relays),
            Kind::Destination => decode(checked, &key, &mut objects.destinations),
            Kind::Route => decode(checked, &key, &mut objects.routes),
            Kind::Blocklist => decode(checked, &key, &mut objects.blocklists),
            Kind::Rewriter => decode(checked, &key, &mut objects.rewriters),
            Kind::Aggregator => decode(checked, &key, &mut objects.aggregators),
        };
        if let Err(error) = decoded {
            let (field, message) = (error.path().to_string(), error.inner().to_string());
            self.directory
                .findings
                .push(origin.finding(Some(&key), field, message));
        }
    }
}

fn decode<K: DeserializeOwned + kube::ResourceExt>(
    object: Value,
    key: &Key,
    objects: &mut Vec<Arc<K>>,
) -> Result<(), serde_path_to_error::Error<serde_json::Error>> {
    let mut object: K = serde_path_to_error::deserialize(object)?;
    object.meta_mut().namespace = Some(key.namespace.clone());
    objects.push(Arc::new(object));
    Ok(())
}

// The documents of a file, each with the line that it begins at.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut begin, mut begin_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_separator = line.trim_end() == "---" || line.starts_with("--- ");
        if is_separator {
            documents.push((begin_line, &text[begin..offset]));
            (begin, begin_line) = (offset + line.len(), index + 2);
        }
        offset += line.len();
    }
    documents.push((begin_line, &text[begin..]));
    documents.retain(|(_, document)| !document.trim().is_empty());
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "apiVersion: carbonway.io/v1alpha1\nkind: Route\nmetadata: {name: a}\nspec: {destinations: [{name: d}]}\n";

    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let files = Files::from([(PathBuf::from("f.yaml"), text.to_owned())]);
        let directory = parse(&files, &Schemas::new().unwrap());
        let objects = directory
            .inputs
            .objects()
            .routes
            .iter()
            .map(|route| Key::of(Kind::Route, &**route).to_string());
        (
            objects.collect(),
            directory.findings.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn several_documents_a_file() {
        let text = format!(
            "# a comment\n---\n{ROUTE}---\n\n{}",
            ROUTE.replace("name: a", "name: b, namespace: x")
        );
        assert_eq!(
            parsed(&text),
            (vec!["Route default/a".into(), "Route x/b".into()], vec![])
        );
    }

    #[test]
    fn other_api_groups_are_passed_over() {
        let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
        assert_eq!(parsed(text), (vec![], vec![]));
    }

    #[test]
    fn secrets_are_kept_for_those_who_refer_to_them() {
        let secret =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {tls.key: aHVzaA==}\n";
        let text = format!(
            "{secret}---\n{}",
            secret.replace("{name: a}", "{name: a, namespace: x}")
        );
        let files = Files::from([(PathBuf::from("f.yaml"), text)]);
        let directory = parse(&files, &Schemas::new().unwrap());
        assert_eq!(directory.findings, []);
        let secrets = &directory.inputs.objects().secrets;
        let found: Vec<_> = secrets
            .iter()
            .map(|(name, secret)| (name.to_string(), secret.get("tls.key")))
            .collect();
        let key = Some(b"hush".as_slice());
        assert_eq!(
            found,
            [
                ("Secret default/a".to_owned(), key),
                ("Secret x/a".to_owned(), key)
            ]
        );

        let bad = format!(
            "{secret}---\n{secret}---\n{}",
            secret.replace("aHVzaA==", "hush!")
        );
        assert_eq!(
            parsed(&bad).1,
            [
                "f.yaml:6: metadata.name: Secret default/a is there twice",
                "f.yaml:11: not a Secret: data is in base64, stringData is plain text",
            ]
        );
    }

    #[test]
    fn services_and_their_slices_are_kept_for_those_who_refer_to_them() {
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: g-1, labels: {kubernetes.io/service-name: g}}\naddressType: IPv4\nendpoints: []\n";
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: h, namespace: x}\nspec: {ports: [{port: 2003}]}\n";
        let files = Files::from([(PathBuf::from("f.yaml"), format!("{slice}---\n{service}"))]);
        let directory = parse(&files, &Schemas::new().unwrap());
        assert_eq!(directory.findings, []);
        let services = &directory.inputs.objects().services;
        let found: Vec<_> = services.keys().map(ToString::to_string).collect();
        assert_eq!(found, ["Service default/g", "Service x/h"]);

        let nobodys = slice.replace("kubernetes.io/service-name", "app");
        let bad = format!("{nobodys}---\n{}", service.replace("2003", "plain"));
        let (_, findings) = parsed(&bad);
        assert_eq!(
            findings[0],
            "f.yaml:1: metadata.labels: it is no Service's: name one in the label kubernetes.io/service-name"
        );
        assert!(findings[1].contains("spec.ports[0].port"), "{findings:?}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            (
                ROUTE.replace("kind: Route", "kind: Rout"),
                "f.yaml:1: kind: there is no kind 'Rout' in carbonway.io: it has Relay, Destination, Route, Blocklist, Rewriter, Aggregator",
            ),
            (
                ROUTE.replace("v1alpha1", "v2"),
                "f.yaml:1: Route default/a: apiVersion: 'carbonway.io/v2' is not served: write carbonway.io/v1alpha1",
            ),
            (
                format!("{ROUTE}---\n{ROUTE}"),
                "f.yaml:6: Route default/a: metadata.name: the object is there twice, first at f.yaml:1",
            ),
            (
                "a: 1\n".to_owned(),
                "f.yaml:1: apiVersion and kind are missing: is this a resource?",
            ),
            (
                ROUTE.replace("destinations", "destination"),
                "f.yaml:1: Route default/a: spec.destination: there is no such field: there are consistentHash, destinations, distribution, match, onMatch, priority, relayRefs, unmatchedOnly",
            ),
        ] {
            assert_eq!(
                parsed(&text).1.first().map(String::as_str),
                Some(said),
                "{text}"
            );
        }
        let (_, findings) = parsed(&format!("{ROUTE}---\na: 1\nb: [\n"));
        assert!(
            findings[0].starts_with("f.yaml:8: not YAML")
                || findings[0].starts_with("f.yaml:7: not YAML"),
            "{findings:?}"
        );
    }
}
