//! `carbonway run`: one relay process on a directory of resources, which it follows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::routing::get;
use axum::{Json, Router};
use crds::ConditionType;
use notify::Watcher as _;
use operator::compile::{Compiled, Fleet, Verdict};
use operator::conditions::{Condition, Progress, Rejection, conditions};
use operator::health::{self, Reported};
use operator::inputs::{Key, Kind};
use relay::logging::LogArgs;
use relay::{Relay, RelayName, bind_admin, serve_admin};
use relay_proto::ObjectError;
use serde_json::{Value, json};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::check::check;
use crate::directory::{self, Files};
use crate::schema::Schemas;

/// Who it is that says how far an object has come.
const THIS_PROCESS: &str = "this process";

/// A directory is read once nothing in it has changed for this long, so that a file is not read half-written.
const SETTLE: Duration = Duration::from_millis(50);

/// A directory is read this often in any case: on some file systems changes are not told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Flags of `carbonway run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of resources, or one file; changes take effect at once.
    directory: PathBuf,

    /// The Relay to be. Default: the only one in the directory.
    #[arg(long, env = "CARBONWAY_RELAY", value_name = "NAMESPACE/NAME")]
    relay: Option<RelayName>,

    /// The address that listeners bind to.
    #[arg(long, env = "CARBONWAY_LISTEN_ADDRESS", default_value_t = IpAddr::from(Ipv4Addr::UNSPECIFIED))]
    listen_address: IpAddr,

    /// Where /livez, /readyz, /metrics, /destinations, /refused, /explain and /conditions are served.
    #[arg(
        long,
        env = "CARBONWAY_ADMIN_ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    admin_address: SocketAddr,

    /// Where lines wait on disk, and where the open buckets of aggregators are kept while this does not run. Default: nowhere;
    /// what has no room in memory is dropped and counted, and what buckets have come to is sent when it stops.
    #[arg(long, env = "CARBONWAY_STATE_DIR", value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,

    /// Data threads. Default: one per core.
    #[arg(long, env = "CARBONWAY_THREADS")]
    threads: Option<NonZeroUsize>,

    #[command(flatten)]
    log: LogArgs,
}

/// Runs `carbonway run`.
pub(crate) fn main(args: Args) -> anyhow::Result<ExitCode> {
    args.log.init();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let schemas = Arc::new(Schemas::new()?);
    let (watcher, changes) = watch(&args.directory)?;
    let admin = bind_admin(args.admin_address)?;
    let relay = Relay::start(
        args.listen_address,
        args.threads.unwrap_or_else(relay::one_per_core),
        args.state_dir.as_deref(),
    )?;
    let mut follower = Follower {
        args,
        schemas,
        relay,
        seen: None,
        verdicts: BTreeMap::new(),
        errors: Vec::new(),
        reported: Reported::default(),
        said: BTreeMap::new(),
        shown: Arc::default(),
    };
    let mut reports = follower.relay.reports();
    if !follower.look().await? {
        bail!("{} cannot be run: see above", args.directory.display());
    }
    greet(args, follower.relay.plaintext_port(), &follower.said);
    let mut admin = std::pin::pin!(serve_admin(admin, follower.relay.view(), follower.router()));
    let mut changes = Changes {
        changes,
        _watcher: watcher,
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            served = &mut admin => return served.context("the admin port ended"),
            () = follower.relay.failed() => bail!("a data thread ended"),
            Ok(()) = reports.changed() => {
                let report = reports.borrow_and_update().clone();
                follower.reported = report.unwrap_or_default().into();
                follower.say();
            }
            () = changes.settled() => {
                if let Err(error) = follower.look().await {
                    error!(error = format!("{error:#}"), "the directory cannot be read; the last good table stays");
                }
            }
        }
    }
    let drained = tokio::select! {
        drained = follower.relay.drain() => drained,
        served = &mut admin => return served.context("the admin port ended"),
    };
    info!(lines_lost = drained.lines_lost, "stopped");
    Ok(())
}

struct Follower<'a> {
    args: &'a Args,
    schemas: Arc<Schemas>,
    relay: Relay,
    // The files as they were last read, good or not.
    seen: Option<Files>,
    // What came of each object, and what the relay refused of them.
    verdicts: BTreeMap<Key, Verdict>,
    errors: Vec<ObjectError>,
    // How destinations stand.
    reported: Reported,
    // The conditions that were last said of each object.
    said: BTreeMap<Key, Vec<Condition>>,
    // The same for the admin port.
    shown: Arc<Mutex<Value>>,
}

impl Follower<'_> {
    // Reads the directory and takes it into force if it has changed and is good. Returns whether it is good.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let files = directory::read(&self.args.directory)?;
        if self.seen.as_ref() == Some(&files) {
            return Ok(true);
        }
        // Connections are accepted meanwhile.
        let schemas = Arc::clone(&self.schemas);
        let checking = spawn_blocking(move || (check(&files, &schemas), files));
        let (checked, files) = checking.await.context("the check died")?;
        self.seen = Some(files);
        let compiled = match checked {
            Ok(checked) => {
                let warnings = checked.warnings.iter();
                warnings.for_each(|warning| warn!(%warning, "valid, but hardly meant"));
                checked.compiled
            }
            Err(findings) => {
                findings
                    .iter()
                    .for_each(|finding| error!(%finding, "the directory has a fault"));
                if self.relay.version().is_some() {
                    warn!(
                        findings = findings.len(),
                        "the change is refused; the last good table stays"
                    );
                }
                return Ok(false);
            }
        };
        let Some(fleet) = self.fleet(&compiled) else {
            return Ok(false);
        };
        let applied = match self.relay.version() == Some(fleet.version) {
            true => Ok(()),
            false => {
                self.relay
                    .apply(fleet.snapshot.clone(), fleet.version)
                    .await
            }
        };
        self.errors = applied.as_ref().err().cloned().unwrap_or_default();
        self.verdicts = compiled.verdicts;
        self.say();
        if let Err(errors) = &applied {
            errors
                .iter()
                .for_each(|finding| error!(%finding, "the relay refused the directory"));
        }
        Ok(applied.is_ok())
    }

    fn fleet<'a>(&self, compiled: &'a Compiled) -> Option<&'a Fleet> {
        let directory = self.args.directory.display();
        if let Some(RelayName { namespace, name }) = &self.args.relay {
            let fleet = compiled.fleets.get(&Key::new(Kind::Relay, namespace, name));
            if fleet.is_none() {
                error!(%directory, "there is no Relay {namespace}/{name}");
            }
            return fleet;
        }
        match compiled.fleets.len() {
            1 => compiled.fleets.values().next(),
            0 => {
                error!(%directory, "there is no Relay: add one, it says where lines come in");
                None
            }
            several => {
                eprintln!(
                    "{directory}: there are {several} Relays: name the one to be with --relay NAMESPACE/NAME"
                );
                None
            }
        }
    }

    // Logs the conditions that are new, and shows all of them on the admin port.
    fn say(&mut self) {
        let said = self
            .verdicts
            .iter()
            .map(|(key, verdict)| (key.clone(), conditions(verdict, &self.progress(key))));
        let said: BTreeMap<_, _> = said.collect();
        for (key, conditions) in &said {
            let before = self.said.get(key).map_or(&[][..], Vec::as_slice);
            tell(key, before, conditions);
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = to_json(&said);
        self.said = said;
    }

    // How far this process has come with an object.
    fn progress(&self, key: &Key) -> Progress {
        let mut errors = self.errors.iter();
        let error = errors.find(|error| error.source == Some(key.to_ref()));
        let rejection = error.map(|error| Rejection {
            pod: THIS_PROCESS.to_owned(),
            message: format!("{}: {}", error.field, error.message),
        });
        let pods = std::iter::once((THIS_PROCESS, &self.reported));
        Progress {
            pods: 1,
            active: usize::from(self.errors.is_empty()),
            rejection,
            degraded: match key.kind {
                Kind::Relay => health::listeners_down(pods),
                Kind::Destination
                | Kind::Route
                | Kind::Blocklist
                | Kind::Rewriter
                | Kind::Aggregator => {
                    health::standing(key, pods).and_then(|standing| standing.degraded)
                }
            },
            ..Progress::default()
        }
    }

    fn router(&self) -> Router {
        let shown = Arc::clone(&self.shown);
        let answer =
            async move || Json(shown.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Router::new().route("/conditions", get(answer))
    }
}

// Logs what is new of the conditions that a person would act on.
fn tell(key: &Key, before: &[Condition], now: &[Condition]) {
    let of = |conditions: &[Condition], type_| {
        let mut found = conditions.iter();
        found.find(|condition| condition.type_ == type_).cloned()
    };
    let ready = of(now, ConditionType::Ready);
    if let Some(ready) = ready.filter(|ready| !before.contains(ready)) {
        info!(object = %key, ready = ready.is_true, reason = %ready.reason, message = ready.message, "condition");
    }
    match (
        of(before, ConditionType::Degraded),
        of(now, ConditionType::Degraded),
    ) {
        (Some(before), Some(now)) if before.reason == now.reason => {}
        (_, Some(now)) => {
            warn!(object = %key, reason = %now.reason, message = now.message, "degraded");
        }
        (Some(before), None) => {
            info!(object = %key, reason = %before.reason, "no longer degraded");
        }
        (None, None) => {}
    }
}

fn to_json(said: &BTreeMap<Key, Vec<Condition>>) -> Value {
    let object = |(key, conditions): (&Key, &Vec<Condition>)| {
        let condition = |condition: &Condition| {
            json!({
                "type": condition.type_.as_str(),
                "status": if condition.is_true { "True" } else { "False" },
                "reason": condition.reason.as_str(),
                "message": condition.message,
            })
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        json!({
            "kind": key.kind.as_str(),
            "namespace": key.namespace,
            "name": key.name,
            "conditions": conditions,
        })
    };
    said.iter().map(object).collect()
}

// What a person wants to type next. Logs go to the same place, for programs too; those ask for JSON.
fn greet(args: &Args, port: Option<u16>, said: &BTreeMap<Key, Vec<Condition>>) {
    if args.log.is_json() {
        return;
    }
    let directory = args.directory.display();
    let admin = args.admin_address;
    let host = match args.listen_address.is_unspecified() {
        true => "localhost".to_owned(),
        false => args.listen_address.to_string(),
    };
    let send = port.map(|port| {
        format!(
            "  echo \"servers.web1.cpu 1 $(date +%s)\" | nc -q0 {host} {port}\n    sends a line\n\n"
        )
    });
    eprintln!(
        "
Carbonway runs {directory}: {} resources. Try, in another terminal:

{}  curl {admin}/metrics
    shows what became of it

  $EDITOR {directory}
    changes a rule: it takes effect at once

Ctrl-C stops it, losing nothing.
",
        said.len(),
        send.unwrap_or_default(),
    );
}

struct Changes {
    changes: mpsc::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Changes {
    // Resolves when something has changed and then nothing for a moment, or when it is time to look anyway.
    async fn settled(&mut self) {
        tokio::select! {
            _ = self.changes.recv() => {}
            () = sleep(LOOK_AGAIN) => return,
        }
        while let Ok(Some(())) = timeout(SETTLE, self.changes.recv()).await {}
    }
}

fn watch(directory: &Path) -> anyhow::Result<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let (changed, changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        if changed.try_send(()).is_err() {
            // One change that nobody has looked at yet is as good as two.
        }
    })?;
    // A file is replaced by whoever saves it, so what is watched is where it is.
    let watched = match directory.parent().filter(|_| directory.is_file()) {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => directory,
    };
    watcher
        .watch(watched, notify::RecursiveMode::NonRecursive)
        .with_context(|| format!("cannot watch the directory {}", watched.display()))?;
    Ok((watcher, changes))
}
