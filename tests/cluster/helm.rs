//! Helm's own engine, through helm.py.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{skip, tools};
use serde_json::{Value, json};

/// Helm, and our chart.
#[derive(Clone, Debug)]
pub(crate) struct Helm {
    python: PathBuf,
}

/// What a template gave: a manifest, by the path of its template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) template: String,
    pub(crate) object: Value,
}

impl Helm {
    /// Helm, or `None` with a message on a machine that does not have it.
    pub(crate) fn find() -> Option<Self> {
        let python = tools("python");
        if let Err(why) = &python {
            skip(&format!("Helm's engine not found: {why}"));
        }
        Some(Self {
            python: python.ok()?,
        })
    }

    /// The chart's directory.
    pub(crate) fn chart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/carbonway")
    }

    /// Does one of the actions in helm.py with the chart; or Helm's words on why not.
    pub(crate) fn call(&self, action: &str, mut arguments: Value) -> Result<Value, String> {
        if !["rollback", "test", "uninstall"].contains(&action) {
            arguments["chart"] = json!(Self::chart());
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/helm.py");
        let mut child = Command::new(&self.python)
            .arg(script)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python can be started");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        write!(stdin, "{arguments}").expect("helm.py reads its arguments");
        drop(stdin);
        let output = child.wait_with_output().expect("a child can be waited for");
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).expect("helm.py prints JSON"));
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What Helm installs, in the order of the templates; or Helm's words on why not.
    pub(crate) fn try_render(
        &self,
        namespace: &str,
        values: Value,
    ) -> Result<Vec<Manifest>, String> {
        let release = json!({"name": "cw", "namespace": namespace, "values": values});
        let templates = self.call("render", release)?;
        let templates = templates.as_object().expect("templates by path").iter();
        let templates = templates.filter(|(path, _)| path.ends_with(".yaml"));
        let is_hook = |manifest: &Manifest| {
            let annotations = &manifest.object["metadata"]["annotations"];
            annotations.get("helm.sh/hook").is_some()
        };
        Ok(templates
            .flat_map(|(path, text)| manifests(path, text))
            .filter(|manifest| !is_hook(manifest))
            .collect())
    }

    /// What Helm installs, in the order of the templates.
    pub(crate) fn render(&self, namespace: &str, values: Value) -> Vec<Manifest> {
        let rendered = self.try_render(namespace, values);
        rendered.unwrap_or_else(|error| panic!("Helm refuses: {error}"))
    }
}

/// The manifests in a text that tells people to `kubectl apply` them, between <<'EOF' and EOF.
pub(crate) fn here_document(text: &str) -> String {
    let lines = text
        .lines()
        .skip_while(|line| !line.ends_with("<<'EOF'"))
        .skip(1);
    let lines = lines.take_while(|line| line.trim() != "EOF");
    // indented, to stand out
    lines
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect()
}

fn manifests(path: &str, text: &Value) -> Vec<Manifest> {
    let text = text.as_str().expect("a template gives text");
    let objects: Vec<Value> = serde_saphyr::from_multiple(text)
        .unwrap_or_else(|error| panic!("{path} does not give YAML: {error}\n{text}"));
    let objects = objects.into_iter().filter(|object| !object.is_null());
    objects
        .map(|object| Manifest {
            template: path.to_owned(),
            object,
        })
        .collect()
}

/// The one object of a kind with this ending of its name.
pub(crate) fn find<'a>(manifests: &'a [Manifest], kind: &str, ending: &str) -> &'a Value {
    let found: Vec<_> = manifests
        .iter()
        .map(|manifest| &manifest.object)
        .filter(|object| object["kind"] == kind)
        .filter(|object| name(object).ends_with(ending))
        .collect();
    match found[..] {
        [object] => object,
        _ => panic!("{} objects are a {kind} …{ending}", found.len()),
    }
}

/// An object's name.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// All of them as one document that kubectl takes.
pub(crate) fn as_list<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    let items: Vec<_> = objects.into_iter().collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}
