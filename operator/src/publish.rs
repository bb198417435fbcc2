//! Compiled → published: what relays are offered, under a content hash as identity and an ordinal as age.
//!
//! `since` makes one object's progress independent of the others': it is the revision from which on an object has been in
//! its fleet's snapshot just as it is. A relay that acknowledged revision `r` runs the object's present generation if and
//! only if `r >= since`. So when one Route of 10,000 changes, the status of the others stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relay_proto::{Message as _, Snapshot, Version};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::compile::{Compiled, Fleet, Verdict, compile};
use crate::inputs::Key;
use crate::metrics::Metrics;
use crate::watch::Stores;

/// All that is true at one moment: what relays are to run, and what came of each object. `None` before every kind was
/// listed once.
pub(crate) type Publications = watch::Receiver<Option<Arc<Publication>>>;

/// What relays are to run, and what came of each object.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Publication {
    pub(crate) fleets: BTreeMap<Key, Arc<Published>>,
    pub(crate) verdicts: BTreeMap<Key, Verdict>,
    /// Fleets that stay on what was published before, because most of their routes are gone.
    pub(crate) held: BTreeMap<Key, Held>,
    // Of all fleets together, so that a fleet that is deleted and made anew does not begin with revisions that were used.
    newest: u64,
}

/// Why a fleet's newest snapshot is not published yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The routes that are published, and those that there are now.
    pub(crate) routes: (usize, usize),
    pub(crate) until: Instant,
}

/// One fleet's snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Published {
    /// Rises with each snapshot.
    pub(crate) revision: u64,
    pub(crate) version: Version,
    pub(crate) encoded: Bytes,
    // How many it has.
    routes: usize,
    members: BTreeMap<Key, Member>,
    // While it is held: what there should be, of which what differs from this is active nowhere.
    wanted: Option<BTreeMap<Key, Member>>,
}

#[cfg(test)]
impl Published {
    /// One without anything that is told of it.
    pub(crate) fn of(revision: u64, encoded: &[u8]) -> Self {
        Self {
            revision,
            version: Version::of(encoded),
            encoded: Bytes::copy_from_slice(encoded),
            routes: 0,
            members: BTreeMap::new(),
            wanted: None,
        }
    }
}

/// One object in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Member {
    generation: i64,
    content: Version,
    since: u64,
}

impl Published {
    /// The revision from which on `key` has been in the snapshot just as it is; `None` if it is not in there.
    pub(crate) fn since(&self, key: &Key) -> Option<u64> {
        let members = self.wanted.as_ref().unwrap_or(&self.members);
        members.get(key).map(|member| member.since)
    }
}

impl Publication {
    /// What comes after `self`, at `now`; a fleet that loses most of its routes is held for `hold`.
    fn next(&self, compiled: Compiled, hold: Duration, now: Instant) -> Self {
        let mut newest = self.newest;
        let mut held = BTreeMap::new();
        let generation = |key: &Key| {
            let verdict = compiled.verdicts.get(key);
            verdict.map_or(0, |verdict| verdict.generation)
        };
        let fleets = compiled
            .fleets
            .iter()
            .map(|(relay, fleet)| {
                let before = self.fleets.get(relay);
                let published = match before {
                    Some(before) if before.version == fleet.version => before.again(generation),
                    Some(before)
                        if let Some(why) =
                            self.hold(relay, before, fleet, &compiled.verdicts, hold, now) =>
                    {
                        held.insert(relay.clone(), why);
                        before.held(fleet, generation)
                    }
                    _ => {
                        newest += 1;
                        Published::new(before, fleet, newest, generation)
                    }
                };
                (relay.clone(), Arc::new(published))
            })
            .collect();
        Self {
            fleets,
            verdicts: compiled.verdicts,
            held,
            newest,
        }
    }

    // Whether most of a fleet's routes are gone at once, and not for long: somebody may have deleted too much. Not if one of
    // them is no longer allowed, for that takes effect at once.
    fn hold(
        &self,
        relay: &Key,
        before: &Published,
        fleet: &Fleet,
        verdicts: &BTreeMap<Key, Verdict>,
        hold: Duration,
        now: Instant,
    ) -> Option<Held> {
        let routes = (before.routes, fleet.snapshot.routes.len());
        if routes.0 < ROUTES_GUARDED_MIN || routes.1 * 2 >= routes.0 {
            return None;
        }
        let mut forbidden = verdicts
            .iter()
            .filter(|(_, verdict)| verdict.is_forbidden() && !verdict.fleets.contains(relay));
        if forbidden.any(|(key, _)| before.members.contains_key(key)) {
            return None;
        }
        let until = self.held.get(relay).map_or(now + hold, |held| held.until);
        (now < until).then_some(Held { routes, until })
    }
}

impl Published {
    fn new(
        before: Option<&Arc<Self>>,
        fleet: &Fleet,
        revision: u64,
        generation: impl Fn(&Key) -> i64,
    ) -> Self {
        let members = contents(&fleet.snapshot)
            .map(|(key, content)| {
                let mut member = Member {
                    generation: generation(&key),
                    content,
                    since: revision,
                };
                // Both, because a new priority changes a Route's place and not its content.
                if let Some(old) = before.and_then(|before| before.members.get(&key))
                    && (old.content, old.generation) == (member.content, member.generation)
                {
                    member.since = old.since;
                }
                (key, member)
            })
            .collect();
        Self {
            revision,
            version: fleet.version,
            encoded: fleet.encoded.clone(),
            routes: fleet.snapshot.routes.len(),
            members,
            wanted: None,
        }
    }

    // The same snapshot: whatever changed in the resources, relays run it already.
    fn again(&self, generation: impl Fn(&Key) -> i64) -> Self {
        let members = self.members.iter().map(|(key, member)| {
            let member = Member {
                generation: generation(key),
                ..*member
            };
            (key.clone(), member)
        });
        Self {
            revision: self.revision,
            version: self.version,
            encoded: self.encoded.clone(),
            routes: self.routes,
            members: members.collect(),
            wanted: None,
        }
    }

    // The same snapshot, although `fleet` is what there should be.
    fn held(&self, fleet: &Fleet, generation: impl Fn(&Key) -> i64) -> Self {
        let before = Arc::new(self.clone());
        Self {
            wanted: Some(Self::new(Some(&before), fleet, NEVER, generation).members),
            ..self.clone()
        }
    }
}

/// Each object of a snapshot, with the digest of what the snapshot says of it.
fn contents(snapshot: &Snapshot) -> impl Iterator<Item = (Key, Version)> {
    // All fields by name, so that a new one must be thought about.
    let relay = Snapshot {
        schema: snapshot.schema,
        relay: snapshot.relay.clone(),
        listeners: snapshot.listeners.clone(),
        drain_timeout_ms: snapshot.drain_timeout_ms,
        validation: snapshot.validation,
        blocklists: Vec::new(),
        rewriters: Vec::new(),
        aggregators: Vec::new(),
        routes: Vec::new(),
        destinations: Vec::new(),
    };
    let blocklists = snapshot.blocklists.iter();
    let rewriters = snapshot.rewriters.iter();
    let aggregators = snapshot.aggregators.iter();
    let routes = snapshot.routes.iter();
    let destinations = snapshot.destinations.iter();
    std::iter::once((&snapshot.relay, relay.encode_to_vec()))
        .chain(blocklists.map(|item| (&item.source, item.encode_to_vec())))
        .chain(rewriters.map(|item| (&item.source, item.encode_to_vec())))
        .chain(aggregators.map(|item| (&item.source, item.encode_to_vec())))
        .chain(routes.map(|item| (&item.source, item.encode_to_vec())))
        .chain(destinations.map(|item| (&item.source, item.encode_to_vec())))
        .filter_map(|(source, encoded)| {
            let key = Key::from_ref(source.as_ref()?)?;
            Some((key, Version::of(&encoded)))
        })
}

/// Fleets with fewer routes may lose them all at once.
const ROUTES_GUARDED_MIN: usize = 10;

/// A revision that no relay acknowledges.
const NEVER: u64 = u64::MAX;

const QUIET: Duration = Duration::from_millis(50);
const QUIET_AWAITED_MAX: Duration = Duration::from_millis(500);

/// Compiles and publishes whenever an object changed; a fleet that loses most of its routes after `hold`. Ends never.
pub(crate) async fn run(
    stores: Arc<Stores>,
    publications: watch::Sender<Option<Arc<Publication>>>,
    hold: Duration,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    loop {
        let held_until = publications.borrow().as_ref().and_then(|publication| {
            let held = publication.held.values();
            held.map(|held| held.until).min()
        });
        tokio::select! {
            () = stores.inputs_changed.notified() => {}
            () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {}
        }
        quiet(&stores.inputs_changed, QUIET, QUIET_AWAITED_MAX).await;
        if !stores.unlisted().is_empty() {
            continue;
        }
        let inputs = stores.inputs();
        let objects = inputs.objects();
        let have_all = [
            stores.secrets.have(&objects.secrets_wanted()),
            stores.services.have(&objects.services_wanted()),
            stores.namespaces.have(objects.wants_namespaces()),
        ];
        if have_all.contains(&false) {
            // They are being read, and that is told as a change.
            continue;
        }
        let begun = Instant::now();
        // Thousands of patterns take a while: not on a thread that relays wait for.
        let compiled = tokio::task::spawn_blocking(move || compile(&inputs)).await?;
        metrics
            .compile_duration
            .observe(begun.elapsed().as_secs_f64());
        publish(&publications, compiled, hold, &metrics);
    }
}

pub(crate) fn publish(
    publications: &watch::Sender<Option<Arc<Publication>>>,
    compiled: Compiled,
    hold: Duration,
    metrics: &Metrics,
) {
    publications.send_if_modified(|current| {
        let nothing = Publication::default();
        let before = current.as_deref().unwrap_or(&nothing);
        let next = before.next(compiled, hold, Instant::now());
        let is_new = current.is_none() || *before != next;
        if is_new {
            for (relay, Held { routes, .. }) in &next.held {
                if !before.held.contains_key(relay) {
                    let (published, now) = routes;
                    warn!(%relay, published, now, "most routes are gone at once: held for a while, in case that is a mistake");
                }
            }
            for (relay, fleet) in &next.fleets {
                let known = before.fleets.get(relay);
                if known.is_none_or(|known| known.revision != fleet.revision) {
                    let (version, revision) = (fleet.version, fleet.revision);
                    info!(%relay, %version, revision, bytes = fleet.encoded.len(), "snapshot published");
                }
            }
            metrics.published(&next);
            *current = Some(Arc::new(next));
        }
        is_new
    });
}

/// Waits until nothing was notified for `pause`, or `at_most` is over: changes come in crowds.
pub(crate) async fn quiet(changed: &Notify, pause: Duration, at_most: Duration) {
    let latest = Instant::now() + at_most;
    loop {
        let until = latest.min(Instant::now() + pause);
        tokio::select! {
            () = changed.notified(), if Instant::now() < latest => {}
            () = sleep_until(until) => return,
        }
    }
}

/// The first publication of an operator.
#[cfg(test)]
pub(crate) fn publication(compiled: Compiled) -> Publication {
    Publication::default().next(compiled, Duration::ZERO, Instant::now())
}

#[cfg(test)]
mod tests;
