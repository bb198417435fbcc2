//! A Kubernetes API: a real etcd and a real kube-apiserver, and for some tests a real kube-controller-manager, which makes pods,
//! binds volumes and collects garbage. No kubelet, so nobody runs pods.
//!
//! The programs are looked for as envtest does it: in $KUBEBUILDER_ASSETS, then in /usr/local/kubebuilder/bin; etcd and
//! kubectl also in $PATH. etcd 3.4 will do: the API server asks it what it can, and goes without watch progress.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::{env, fs};

use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{DEADLINE, eventually, own_address, skip};

mod kubectl;

pub use kubectl::Kubectl;

const ADMIN_TOKEN: &str = "admin-of-a-test-cluster";

/// A running cluster. It ends when this is dropped, or with the test process.
#[derive(Debug)]
pub struct Cluster {
    supervisor: Child,
    directory: PathBuf,
    server: String,
    kubectl: PathBuf,
}

impl Cluster {
    /// The cluster that all tests of this process share, with the CRDs installed; each test takes a namespace of its own
    /// ([`Cluster::namespace`]). `None`, with a message, on a machine that has no kube-apiserver.
    ///
    /// # Panics
    /// If there is a kube-apiserver, but it does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Cluster>> = LazyLock::new(|| {
            let cluster = Cluster::start(&Programs::find().ok()?);
            cluster.install_crds();
            Some(cluster)
        });
        if SHARED.is_none() {
            skip_without_programs();
        }
        SHARED.as_ref()
    }

    /// A cluster for one test that needs a whole one, without CRDs. `None`, with a message, on a machine that has no
    /// kube-apiserver.
    ///
    /// # Panics
    /// If there is a kube-apiserver, but it does not start.
    pub fn own() -> Option<Self> {
        let programs = Programs::find();
        if programs.is_err() {
            skip_without_programs();
        }
        Some(Self::start(&programs.ok()?))
    }

    /// A cluster for one test, with the CRDs, and with a kube-controller-manager. `None`, with a message, on a machine that has
    /// none.
    ///
    /// # Panics
    /// If it does not start.
    pub fn with_controllers() -> Option<Self> {
        let found = Programs::find().and_then(Programs::with_controllers);
        if let Err(why) = &found {
            skip(why);
        }
        let cluster = Self::start(&found.ok()?);
        cluster.install_crds();
        Some(cluster)
    }

    /// kubectl, as the cluster's administrator.
    pub fn admin(&self) -> Kubectl {
        Kubectl::new(&self.kubectl, &self.directory, "admin.kubeconfig")
    }

    /// Makes a namespace in which pods must be *restricted*, and gives kubectl for it, as the cluster's administrator.
    ///
    /// # Panics
    /// If it exists already.
    pub fn namespace(&self, name: &str) -> Kubectl {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        self.admin().create(&namespace);
        self.admin().in_namespace(name)
    }

    /// A kubeconfig for a service account, with a token of its own and no other credentials.
    ///
    /// # Panics
    /// If the service account does not exist.
    pub fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> PathBuf {
        let kubectl = self.admin().in_namespace(namespace);
        let token = kubectl.run(&["create", "token", service_account]);
        let name = format!("{namespace}.{service_account}.kubeconfig");
        self.write_kubeconfig(&name, namespace, token.trim())
    }

    fn start(programs: &Programs) -> Self {
        // not removed by us, but by the supervisor, which outlives us
        let directory = TempDir::with_prefix("carbonway-cluster-").map(TempDir::keep);
        let directory = directory.expect("a temporary directory can be made");
        let key = KeyPair::generate().expect("a key can be made");
        let tokens = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
        for (file, text) in [
            ("service-accounts.key", key.serialize_pem()),
            ("service-accounts.pub", key.public_key_pem()),
            ("tokens.csv", tokens),
        ] {
            fs::write(directory.join(file), text).expect("a temporary file can be written");
        }
        let address = own_address().to_string();
        let supervisor = Command::new("sh")
            .args(["-c", include_str!("cluster/start.sh"), "start.sh"])
            .args([&programs.etcd, &programs.apiserver, &directory])
            .arg(&address)
            .args(&programs.controllers)
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut cluster = Self {
            supervisor,
            directory,
            server: format!("https://{address}:6443"),
            kubectl: programs.kubectl.clone(),
        };
        cluster.write_kubeconfig("admin.kubeconfig", "default", ADMIN_TOKEN);
        cluster.wait_until_ready();
        cluster
    }

    fn wait_until_ready(&mut self) {
        let admin = self.admin();
        eventually(DEADLINE, "the API server to be ready", || {
            let answer = admin.try_run(&["get", "--raw", "/readyz"]);
            if answer.code == Some(0) {
                return Ok(());
            }
            Err(format!("{}\n{}", answer.stderr, self.logs()))
        });
    }

    fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(20).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("---- the end of {name}\n{}\n", lines.join("\n"))
        };
        let logs = ["etcd.log", "kube-apiserver.log", "controllers.log"];
        logs.map(tail).concat()
    }

    fn install_crds(&self) {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
        let admin = self.admin();
        admin.run(&["apply", "--filename", &crds.to_string_lossy()]);
        admin.run(&["wait", "--for=condition=Established", "crd", "--all"]);
    }

    fn write_kubeconfig(&self, name: &str, namespace: &str, token: &str) -> PathBuf {
        let authority = self.directory.join("certificates/apiserver.crt");
        let config = kubeconfig(&self.server, Some(&authority), namespace, token);
        let path = self.directory.join(name);
        fs::write(&path, config.to_string()).expect("a kubeconfig can be written");
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        if let Err(error) = self.supervisor.wait() {
            eprintln!("a test cluster may be left running: {error}");
        }
    }
}

/// A kubeconfig with one server and one user.
pub(crate) fn kubeconfig(
    server: &str,
    authority: Option<&Path>,
    namespace: &str,
    token: &str,
) -> Value {
    let mut cluster = json!({"server": server});
    if let Some(authority) = authority {
        cluster["certificate-authority"] = json!(authority);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{
            "name": "test",
            "context": {"cluster": "test", "user": "test", "namespace": namespace},
        }],
        "current-context": "test",
    })
}

// Where the programs are.
#[derive(Debug)]
struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    kubectl: PathBuf,
    controllers: Option<PathBuf>,
}

impl Programs {
    fn find() -> Result<Self, String> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let mut directories: Vec<_> = assets.into_iter().collect();
        directories.push("/usr/local/kubebuilder/bin".into());
        let apiserver = find("kube-apiserver", &directories)?;
        directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        Ok(Self {
            apiserver,
            etcd: find("etcd", &directories)?,
            kubectl: find("kubectl", &directories)?,
            controllers: None,
        })
    }

    fn with_controllers(self) -> Result<Self, String> {
        // beside the API server, whose release it must be of
        let path = self.apiserver.with_file_name("kube-controller-manager");
        match path.is_file() {
            true => Ok(Self {
                controllers: Some(path),
                ..self
            }),
            false => Err(format!("{} not found", path.display())),
        }
    }
}

fn find(program: &str, directories: &[PathBuf]) -> Result<PathBuf, String> {
    let mut candidates = directories.iter().map(|directory| directory.join(program));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("{program} not found: set KUBEBUILDER_ASSETS to a directory that has it")
    })
}

fn skip_without_programs() {
    if let Err(why) = Programs::find() {
        skip(&why);
    }
}
