//! What a request asks for.

use axum::http::Uri;
use serde_json::Value;

use super::store::{Change, Key, RESOURCES, Resource};

/// A request's path and query, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) watch: bool,
    pub(super) resource_version: u64,
    pub(super) field_manager: bool,
    selector: Option<String>,
}

impl Call {
    /// `None` if it is for nothing that the double serves.
    pub(super) fn parse(uri: &Uri) -> Option<Self> {
        let mut path = uri.path().split('/').skip(1);
        let api_version = match path.next()? {
            "api" => path.next()?.to_owned(),
            "apis" => format!("{}/{}", path.next()?, path.next()?),
            _ => return None,
        };
        let mut plural = path.next()?;
        let mut namespace = None;
        if plural == "namespaces" {
            namespace = Some(path.next()?.to_owned());
            plural = path.next()?;
        }
        let served =
            |resource: &Resource| resource.plural == plural && resource.api_version == api_version;
        let query = |name: &str| {
            let pairs = uri.query().unwrap_or_default().split('&');
            let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        Some(Self {
            resource: RESOURCES.into_iter().find(served)?,
            namespace,
            name: path.next().map(str::to_owned),
            subresource: path.next().map(str::to_owned),
            watch: query("watch").is_some_and(|value| value == "true" || value == "1"),
            resource_version: query("resourceVersion")
                .and_then(|v| v.parse().ok())
                .unwrap_or(0),
            field_manager: query("fieldManager").is_some(),
            selector: query("labelSelector").map(|text| text.replace("%2F", "/")),
        })
    }

    pub(super) fn is(&self, plural: &str) -> bool {
        self.resource.plural == plural
    }

    /// The one object that it is about, if it is.
    pub(super) fn key(&self) -> Option<Key> {
        Some((self.resource, self.namespace.clone()?, self.name.clone()?))
    }

    /// Whether a watch sees a change.
    pub(super) fn covers(&self, change: &Change) -> bool {
        let here = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == change.namespace);
        here && change.resource == self.resource && self.selects(&change.object)
    }

    /// Whether an object has the label that is asked for; only that a label exists can be asked.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.selector
            .as_ref()
            .is_none_or(|label| labels.get(label).is_some())
    }
}
