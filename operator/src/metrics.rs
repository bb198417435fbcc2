//! Every metric of the operator, declared in one place. Labels are from fixed sets, or name a Relay that exists.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::inputs::{Key, Kind};
use crate::publish::Publication;
use crate::trust::Refusal;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectsLabel {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FleetLabel {
    fleet: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// How something ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As wished.
    Success,
    /// Not as wished.
    Failure,
}

impl From<Outcome> for OutcomeLabel {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome: match outcome {
                Outcome::Success => "success",
                Outcome::Failure => "failure",
            },
        }
    }
}

/// Every kind that is watched or read.
const WATCHED: [&str; 13] = [
    "Relay",
    "Destination",
    "Route",
    "Blocklist",
    "Rewriter",
    "Aggregator",
    "Pod",
    "StatefulSet",
    "Deployment",
    "Secret",
    "Service",
    "EndpointSlice",
    "Namespace",
];

/// The metrics, and what counts them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    watch_events: Family<KindLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    undecodable_objects: Family<KindLabel, Counter>,
    objects: Family<ObjectsLabel, Gauge>,
    pub(crate) compile_duration: Histogram,
    snapshot_bytes: Family<FleetLabel, Gauge>,
    snapshot_revision: Family<FleetLabel, Gauge>,
    pub(crate) leading: Gauge,
    held: Gauge,
    pub(crate) unprogrammed_objects: Gauge,
    pub(crate) certificate_expiry: Gauge,
    pub(crate) sync_streams: Gauge,
    pub(crate) sync_streams_refused: Counter,
    pub(crate) sync_offers: Counter,
    refusals: Family<ReasonLabel, Counter>,
    sync_answers: Family<OutcomeLabel, Counter>,
    status_writes: Family<OutcomeLabel, Counter>,
    event_writes: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("carbonway_operator"),
            watch_events: Family::default(),
            watch_errors: Family::default(),
            undecodable_objects: Family::default(),
            objects: Family::default(),
            compile_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            snapshot_bytes: Family::default(),
            snapshot_revision: Family::default(),
            leading: Gauge::default(),
            held: Gauge::default(),
            unprogrammed_objects: Gauge::default(),
            certificate_expiry: Gauge::default(),
            sync_streams: Gauge::default(),
            sync_streams_refused: Counter::default(),
            sync_offers: Counter::default(),
            refusals: Family::default(),
            sync_answers: Family::default(),
            status_writes: Family::default(),
            event_writes: Family::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }

    // What goes from nothing to 1 has not risen to those who look at how it rises.
    fn begin_at_zero(&self) {
        for kind in WATCHED {
            self.watch_events
                .get_or_create(&KindLabel { kind })
                .inc_by(0);
            self.watch_errors
                .get_or_create(&KindLabel { kind })
                .inc_by(0);
            self.undecodable_objects
                .get_or_create(&KindLabel { kind })
                .inc_by(0);
        }
        for outcome in [Outcome::Success, Outcome::Failure] {
            self.sync_answers.get_or_create(&outcome.into()).inc_by(0);
            self.status_writes.get_or_create(&outcome.into()).inc_by(0);
            self.event_writes.get_or_create(&outcome.into()).inc_by(0);
        }
        for refusal in Refusal::ALL {
            let reason = refusal.as_str();
            self.refusals
                .get_or_create(&ReasonLabel { reason })
                .inc_by(0);
        }
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry
            .register("build", "The running release", build);
        self.register_inputs();
        self.register_relays();
        self.register_writes();
    }

    // What comes from the API server, and what it makes.
    fn register_inputs(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "watch_events",
            "Changes that a watch brought after its list, by kind",
            self.watch_events.clone(),
        );
        registry.register(
            "watch_errors",
            "Failures of a watch, which is then tried again, by kind",
            self.watch_errors.clone(),
        );
        registry.register(
            "undecodable_objects",
            "Objects seen that this release cannot read and treats as absent, by kind",
            self.undecodable_objects.clone(),
        );
        registry.register(
            "objects",
            "Objects, by kind and by whether they are accepted with all references resolved",
            self.objects.clone(),
        );
        registry.register_with_unit(
            "compile_duration",
            "Time taken to compile all resources",
            Unit::Seconds,
            self.compile_duration.clone(),
        );
        registry.register_with_unit(
            "snapshot",
            "Size of the newest snapshot, by fleet",
            Unit::Bytes,
            self.snapshot_bytes.clone(),
        );
        registry.register(
            "snapshot_revision",
            "Ordinal of the newest snapshot, by fleet",
            self.snapshot_revision.clone(),
        );
        registry.register(
            "publications_held",
            "Fleets that stay on their last snapshot for a while, because most of their Routes are gone at once",
            self.held.clone(),
        );
        registry.register(
            "unprogrammed_objects",
            "Objects that are accepted and not yet active on every relay pod concerned, as the leader sees it",
            self.unprogrammed_objects.clone(),
        );
    }

    // What is said with relays.
    fn register_relays(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate that relays are shown is over; 0 before there is one",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register(
            "sync_refusals",
            "Relays that were not let in, by why their token was not enough",
            self.refusals.clone(),
        );
        registry.register(
            "sync_streams",
            "Relays connected",
            self.sync_streams.clone(),
        );
        registry.register(
            "sync_streams_refused",
            "Streams closed because of too many streams or a breach of the contract",
            self.sync_streams_refused.clone(),
        );
        registry.register(
            "sync_offers",
            "Snapshots offered to relays",
            self.sync_offers.clone(),
        );
        registry.register(
            "sync_answers",
            "Answers to offers: success is an acknowledgement, failure a refusal",
            self.sync_answers.clone(),
        );
    }

    // What goes to the API server.
    fn register_writes(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "leading",
            "1 while this operator leads",
            self.leading.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses written",
            self.status_writes.clone(),
        );
        registry.register("event_writes", "Events written", self.event_writes.clone());
    }

    /// A watch brought a change.
    pub(crate) fn watched(&self, kind: &'static str) {
        self.watch_events.get_or_create(&KindLabel { kind }).inc();
    }

    /// A relay was not let in.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A watch failed.
    pub(crate) fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }

    /// A watch brought an object that cannot be read.
    pub(crate) fn undecodable(&self, kind: &'static str) {
        self.undecodable_objects
            .get_or_create(&KindLabel { kind })
            .inc();
    }

    /// A relay answered an offer.
    pub(crate) fn answered(&self, outcome: Outcome) {
        self.sync_answers.get_or_create(&outcome.into()).inc();
    }

    /// A status was written, or not.
    pub(crate) fn status_written(&self, outcome: Outcome) {
        self.status_writes.get_or_create(&outcome.into()).inc();
    }

    /// An event was written, or not.
    pub(crate) fn event_written(&self, outcome: Outcome) {
        self.event_writes.get_or_create(&outcome.into()).inc();
    }

    /// Something new is published.
    pub(crate) fn published(&self, publication: &Publication) {
        self.held.set(publication.held.len() as i64);
        for kind in Kind::ALL {
            for (state, is_well) in [("accepted", true), ("refused", false)] {
                let count = publication
                    .verdicts
                    .iter()
                    .filter(|(key, verdict)| {
                        key.kind == kind && verdict.failure().is_none() == is_well
                    })
                    .count();
                let kind = kind.as_str();
                self.objects
                    .get_or_create(&ObjectsLabel { kind, state })
                    .set(as_gauge(count));
            }
        }
        // Relays come and go: a fleet that is gone must not go on reporting.
        self.snapshot_bytes.clear();
        self.snapshot_revision.clear();
        for (relay, published) in &publication.fleets {
            let label = FleetLabel {
                fleet: fleet(relay),
            };
            self.snapshot_bytes
                .get_or_create(&label)
                .set(as_gauge(published.encoded.len()));
            self.snapshot_revision
                .get_or_create(&label)
                .set(i64::try_from(published.revision).unwrap_or(i64::MAX));
        }
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut body = String::new();
        text::encode(&mut body, &self.registry).expect("a String takes everything");
        body
    }
}

fn fleet(relay: &Key) -> String {
    format!("{}/{}", relay.namespace, relay.name)
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
