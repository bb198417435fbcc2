//! kubectl, the real one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Finished;

/// kubectl as one user, in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    home: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    pub(super) fn new(program: &Path, home: &Path, kubeconfig: &str) -> Self {
        Self {
            program: program.to_owned(),
            home: home.to_owned(),
            kubeconfig: home.join(kubeconfig),
            namespace: "default".into(),
        }
    }

    /// The same user in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self {
            namespace: namespace.into(),
            ..self.clone()
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The user's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl and returns what it says.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.try_run(arguments))
    }

    /// Runs kubectl, which may fail.
    pub fn try_run(&self, arguments: &[&str]) -> Finished {
        self.try_run_with(arguments, "")
    }

    /// Applies manifests, in YAML or JSON.
    ///
    /// # Panics
    /// If they are refused.
    pub fn apply(&self, manifests: &str) -> String {
        succeeded(&["apply"], self.try_apply(manifests))
    }

    /// Applies manifests, which may be refused.
    pub fn try_apply(&self, manifests: &str) -> Finished {
        self.try_run_with(&["apply", "--filename", "-"], manifests)
    }

    /// Creates one object.
    ///
    /// # Panics
    /// If it is refused.
    pub fn create(&self, object: &Value) {
        let arguments = ["create", "--filename", "-"];
        succeeded(
            &arguments,
            self.try_run_with(&arguments, &object.to_string()),
        );
    }

    /// One object, or a list of them: `get(&["route", "web"])`.
    ///
    /// # Panics
    /// If there is no such object.
    pub fn get(&self, what: &[&str]) -> Value {
        let text = self.run(&[&["get", "--output", "json"], what].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON when asked to")
    }

    /// Runs kubectl with something on its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn try_run_with(&self, arguments: &[&str], input: &str) -> Finished {
        let mut child = Command::new(&self.program)
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl can be started");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // a kubectl that gives up before it has read everything says why on its standard error
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().expect("a child can be waited for");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn succeeded(arguments: &[&str], finished: Finished) -> String {
    let Finished {
        code,
        stdout,
        stderr,
    } = finished;
    assert!(
        code == Some(0),
        "kubectl {arguments:?} failed: {stdout}{stderr}"
    );
    stdout
}
