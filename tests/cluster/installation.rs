//! Carbonway in a namespace of a real API server, as the chart installs it.
//!
//! The operator is the real process, with the arguments of the chart's Deployment, the token of its service account and the
//! chart's RBAC: no more rights than it would have. There is no kubelet, and in most tests nobody who makes pods, so a relay pod
//! is two things here: a Pod, which the API server knows, and a real relay process, which works.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use harness::{
    Cluster, Credentials, DEADLINE, Fleet, Identity, Kubectl, Metrics, Process, RelayProcess,
    binary, eventually, get, own_address,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{Helm, Manifest, as_list, find};
use crate::service::Way;

/// An operator that runs, and what it takes to start relays.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) kubectl: Kubectl,
    operator: Option<Process>,
    operator_address: Ipv4Addr,
    // What relays call the operator.
    service: Ipv4Addr,
    kubeconfig: PathBuf,
    manifests: Vec<Manifest>,
    state: TempDir,
}

impl Installation {
    /// Installs the chart in a new namespace of the shared cluster, for that namespace alone, and starts the operator.
    /// `None`, with a message, where there is no cluster or no Helm.
    pub(crate) fn new(namespace: &str) -> Option<Self> {
        let installation = Self::without_operator(namespace, "")?;
        Some(installation.run())
    }

    /// Installs the chart likewise, with certificates from a Secret (none: the operator's own), and starts nothing.
    pub(crate) fn without_operator(namespace: &str, tls_secret: &str) -> Option<Self> {
        let (cluster, helm) = (Cluster::shared()?, Helm::find()?);
        let kubectl = cluster.namespace(namespace);
        let values = json!({
            "crds": {"enabled": false},
            "watch": {"namespace": namespace},
            "tls": {"secretName": tls_secret},
            // so that a relay that was killed is soon missed
            "operator": {"extraArgs": ["--reconnect-grace=1s"]},
        });
        let manifests = helm.render(namespace, values);
        apply_server_side(&kubectl, &manifests);
        Some(Self::installed(cluster, kubectl, manifests))
    }

    /// Starts the operator of what is installed already, and waits until it is ready.
    pub(crate) fn of(cluster: &Cluster, kubectl: Kubectl, manifests: Vec<Manifest>) -> Self {
        Self::installed(cluster, kubectl, manifests).run()
    }

    fn installed(cluster: &Cluster, kubectl: Kubectl, manifests: Vec<Manifest>) -> Self {
        let deployment = find(&manifests, "Deployment", "-operator");
        let account = deployment["spec"]["template"]["spec"]["serviceAccountName"].as_str();
        let account = account.expect("the operator has a service account");
        kubectl.run(&["create", "serviceaccount", ACCOUNT]);
        let operator_address = own_address();
        Self {
            operator: None,
            operator_address,
            service: operator_address,
            kubeconfig: cluster.kubeconfig_of(kubectl.namespace(), account),
            kubectl,
            manifests,
            state: TempDir::new().expect("a temporary directory can be made"),
        }
    }

    /// Starts the operator, and waits until it is ready.
    pub(crate) fn run(mut self) -> Self {
        self.start_operator();
        self.wait_for_operator();
        self
    }

    /// Starts the operator, without waiting for anything.
    pub(crate) fn start_operator(&mut self) {
        let operator = self.operator_at(self.operator_address, "cw-carbonway-operator-0");
        self.operator = Some(operator);
    }

    /// Starts another operator of the Deployment, and says where it is.
    pub(crate) fn start_another_operator(&self, name: &str) -> (Ipv4Addr, Process) {
        let address = own_address();
        (address, self.operator_at(address, name))
    }

    /// Has relays that are started from now on call the operator by another address, and operators be known by it.
    pub(crate) fn call_operators(&mut self, service: Ipv4Addr) {
        self.service = service;
    }

    /// Has operators that are started from now on call the API server by another way.
    pub(crate) fn call_api_server_by(&mut self, way: impl FnOnce(SocketAddr) -> Way) -> Way {
        let text = fs::read_to_string(&self.kubeconfig).expect("a kubeconfig can be read");
        let mut config: Value = serde_json::from_str(&text).expect("a kubeconfig is JSON");
        let cluster = &mut config["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().unwrap_or_default();
        let server = server.trim_start_matches("https://");
        let server: SocketAddr = server.parse().expect("a server is at an address");
        let way = way(server);
        cluster["server"] = json!(format!("https://{}", way.address));
        cluster["tls-server-name"] = json!(server.ip().to_string());
        self.kubeconfig = self.state.path().join("kubeconfig");
        fs::write(&self.kubeconfig, config.to_string()).expect("a file can be written");
        way
    }

    /// Where the operator's admin port is.
    pub(crate) fn operator_admin(&self) -> String {
        format!("{}:8080", self.operator_address)
    }

    /// Where the operator is.
    pub(crate) fn operator(&mut self) -> (Ipv4Addr, Process) {
        let operator = self.operator.take().expect("an operator was started");
        (self.operator_address, operator)
    }

    fn operator_at(&self, address: Ipv4Addr, name: &str) -> Process {
        let deployment = find(&self.manifests, "Deployment", "-operator");
        let mounted = self.mounted_tls().display().to_string();
        let arguments: Vec<String> = arguments(deployment)
            .into_iter()
            .map(|argument| argument.replace("0.0.0.0", &address.to_string()))
            .map(|argument| argument.replace(MOUNTED_TLS, &mounted))
            .collect();
        let makes_certificates = !arguments.concat().contains(&mounted);
        // what relays call it here
        let names = format!("--tls-names={}", self.service);
        let mut command = Command::new(binary("carbonway-operator"));
        command
            .args(arguments)
            .args(makes_certificates.then_some(names))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAME", name);
        Process::start(&mut command)
    }

    // Where the files are that the operator finds at MOUNTED_TLS.
    fn mounted_tls(&self) -> PathBuf {
        self.state.path().join("tls")
    }

    /// Writes what the operator's Secret of certificates holds to where it is mounted, as a kubelet would.
    pub(crate) fn mount_tls(&self, certificate: &Identity, ca: &str) {
        let directory = self.mounted_tls();
        fs::create_dir_all(&directory).expect("a directory can be made");
        for (name, text) in [
            ("tls.crt", &*certificate.certificate),
            ("tls.key", &certificate.key),
            ("ca.crt", ca),
        ] {
            fs::write(directory.join(name), text).expect("a file can be written");
        }
    }

    /// What relays call the operator.
    pub(crate) fn operator_name(&self) -> String {
        self.service.to_string()
    }

    /// A count of the operator, summed over its labels but for those that are given.
    pub(crate) fn operator_count(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        operator_count(self.operator_address, metric, labels)
    }

    /// Waits until the operator says that it is ready.
    pub(crate) fn wait_for_operator(&mut self) {
        let admin = SocketAddr::from((self.operator_address, 8080));
        let operator = self.operator.as_mut().expect("an operator was started");
        eventually(DEADLINE, "the operator to be ready", || {
            if let Some(exit) = operator.exited() {
                panic!("the operator ended: {exit}");
            }
            match get(admin, "/readyz") {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Waits for a line in the operator's log with all of `words` in it.
    pub(crate) fn wait_for_operator_to_say(&self, words: &[&str]) {
        let operator = self.operator.as_ref().expect("an operator was started");
        operator.wait_for_stderr(DEADLINE, 0, words);
    }

    /// Kills the operator as the kernel would.
    pub(crate) fn kill_operator(&mut self) {
        let mut operator = self.operator.take().expect("an operator was started");
        operator.kill();
    }

    /// Makes the pod of a relay, which does not run yet.
    pub(crate) fn make_pod(&self, name: &str) {
        self.kubectl.create(&relay_pod(name));
        self.say_that_a_pod_runs(name);
    }

    /// Says of a pod, as its kubelet would, that it runs and is ready.
    pub(crate) fn say_that_a_pod_runs(&self, name: &str) {
        self.set_ready(name, "True");
    }

    /// Says of a pod, as its kubelet would, that it runs and is not ready.
    pub(crate) fn say_that_a_pod_is_not_ready(&self, name: &str) {
        self.set_ready(name, "False");
    }

    fn set_ready(&self, pod: &str, ready: &str) {
        let status = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        let status = status.to_string();
        let patch = [
            "patch",
            "pod",
            pod,
            "--subresource=status",
            "--patch",
            &status,
        ];
        self.kubectl.run(&patch);
    }

    /// Starts the relay process of a pod; a second time, with what the first one left behind.
    pub(crate) fn start_relay(&self, pod: &str) -> RelayProcess {
        self.start_relay_as(pod, &self.token_of(pod))
    }

    /// Starts a relay process that says it is `pod`, with this token.
    pub(crate) fn start_relay_as(&self, pod: &str, token: &str) -> RelayProcess {
        self.start_relay_that_believes(pod, token, &self.ca())
    }

    /// Likewise, with these CAs.
    pub(crate) fn start_relay_that_believes(
        &self,
        pod: &str,
        token: &str,
        ca: &str,
    ) -> RelayProcess {
        let (ca, token) = (
            self.mount(pod, "ca.crt", ca),
            self.mount(pod, "token", token),
        );
        RelayProcess::start_in(Fleet {
            operator: (self.service, 8090).into(),
            relay: &format!("{}/edge", self.kubectl.namespace()),
            pod,
            state: &self.state.path().join(pod),
            credentials: Some(Credentials {
                ca: &ca,
                token: &token,
            }),
        })
    }

    /// Writes what the ConfigMap of CAs holds to where a relay finds it, as a kubelet would.
    pub(crate) fn mount_ca(&self, pod: &str) {
        self.mount(pod, "ca.crt", &self.ca());
    }

    fn mount(&self, pod: &str, name: &str, text: &str) -> PathBuf {
        let path = self.state.path().join(format!("{pod}.{name}"));
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// A token for the operator, as it is projected into a pod.
    pub(crate) fn token_of(&self, pod: &str) -> String {
        let object = self.kubectl.get(&["pod", pod]);
        let account = object["spec"]["serviceAccountName"].as_str().unwrap();
        let uid = object["metadata"]["uid"].as_str().unwrap();
        let bound = ["--bound-object-kind=Pod", "--audience=carbonway-operator"];
        let bound_to = format!("--bound-object-name={pod}");
        let bound_uid = format!("--bound-object-uid={uid}");
        let create = ["create", "token", account, &bound_to, &bound_uid];
        let token = self.kubectl.run(&[&create[..], &bound].concat());
        token.trim().to_owned()
    }

    /// The CAs that a relay's pod is told to believe, once the operator has written them.
    pub(crate) fn ca(&self) -> String {
        let get = ["get", "configmap", "carbonway-ca", "--output"];
        let path = "jsonpath={.data.ca\\.crt}";
        eventually(DEADLINE, "the operator's CA", || {
            let answer = self.kubectl.try_run(&[&get[..], &[path]].concat());
            match answer.code {
                Some(0) => Ok(answer.stdout),
                _ => Err(answer.stderr),
            }
        })
    }

    /// Two relays: their pods are made and their processes started.
    pub(crate) fn start_relays(&self) -> [RelayProcess; 2] {
        PODS.map(|pod| {
            self.make_pod(pod);
            self.start_relay(pod)
        })
    }

    /// Waits until `what` (arguments of `kubectl wait`) is Ready in its present generation.
    pub(crate) fn wait_until_ready(&self, what: &[&str]) {
        self.kubectl
            .run(&[&["wait", "--for=condition=Ready", PATIENCE], what].concat());
    }

    /// Waits until `object` ("route/web") has a condition with this reason, and returns it.
    pub(crate) fn wait_for_reason(&self, object: &str, condition: &str, reason: &str) -> Condition {
        let path = format!("{{.status.conditions[?(@.type==\"{condition}\")].reason}}={reason}");
        let wanted = format!("--for=jsonpath={path}");
        self.kubectl.run(&["wait", &wanted, PATIENCE, object]);
        self.condition(object, condition)
    }

    /// A condition of `object`, as it stands.
    pub(crate) fn condition(&self, object: &str, condition: &str) -> Condition {
        let found = Condition::of(&self.kubectl.get(&[object]), condition);
        found.unwrap_or_else(|| panic!("{object} has no condition {condition}"))
    }
}

/// A figure of the operator at `address`; 0 if it does not say.
pub(crate) fn operator_count(address: Ipv4Addr, metric: &str, labels: &[(&str, &str)]) -> u64 {
    let metrics = get((address, 8080).into(), "/metrics").map(|response| response.body);
    let metrics = metrics.ok().and_then(|text| Metrics::parse(&text).ok());
    let figure = metrics.and_then(|metrics| metrics.get(metric, labels));
    figure.unwrap_or_default() as u64
}

/// The pods of most tests.
pub(crate) const PODS: [&str; 2] = ["relay-a", "relay-b"];

/// Their service account.
pub(crate) const ACCOUNT: &str = "relays";

// Where the chart mounts certificates that somebody else makes.
const MOUNTED_TLS: &str = "/etc/carbonway/tls";

const PATIENCE: &str = "--timeout=30s";

/// What is said in one of an object's conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Condition {
    /// The condition of this type, if the object has it.
    pub(crate) fn of(object: &Value, condition: &str) -> Option<Self> {
        let conditions = object["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|found| found["type"] == condition)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some(Self {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        })
    }
}

/// Applies rendered manifests as `helm template | kubectl apply --server-side` does.
pub(crate) fn apply_server_side(kubectl: &Kubectl, manifests: &[Manifest]) {
    let list = as_list(manifests.iter().map(|manifest| &manifest.object));
    let apply = ["apply", "--server-side", "--filename", "-"];
    let answer = kubectl.try_run_with(&apply, &list);
    assert_eq!(
        (answer.code, answer.stderr.as_str()),
        (Some(0), ""),
        "{}",
        answer.stdout
    );
}

/// The arguments of a workload's container.
pub(crate) fn arguments(workload: &Value) -> Vec<String> {
    let arguments = &workload["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().expect("a container has arguments");
    let text = |argument: &Value| argument.as_str().expect("arguments are text").to_owned();
    arguments.iter().map(text).collect()
}

// A pod of the Relay edge that nobody but a test has made.
fn relay_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"carbonway.io/relay": "edge"}},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "relay",
                "image": "carbonway/relay",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}
