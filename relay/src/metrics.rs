//! Every metric of a relay: lists of them, and how they are made at each scrape from the figures where they are counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use relay_engine::{PointFate, Reason, Tally};

use crate::View;
use crate::aggregates::Counted;
use crate::consume::Consuming;
use crate::destinations::{Known, Standing};
use crate::listen::Listening;

/// A metric of something of which there may be several.
struct Metric<T> {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

const OF_LISTENERS: [Metric<Listening>; 9] = [
    Metric {
        kind: Kind::Counter,
        name: "connections_accepted",
        help: "Connections that were let in",
        value: |listener| listener.accepted.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "connections_refused",
        help: "Connections over the listener's limit",
        value: |listener| listener.refused.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "tls_handshakes_failed",
        help: "Connections that were closed because TLS was not agreed on in time",
        value: |listener| listener.handshakes_failed.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Gauge,
        name: "connections",
        help: "Connections that are open",
        value: |listener| listener.connections.load(Ordering::Relaxed) as u64,
    },
    Metric {
        kind: Kind::Counter,
        name: "listener_sources_refused",
        help: "Connections and datagrams from addresses that are not among the listener's allowedSources",
        value: |listener| listener.sources_refused.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "listener_proxy_headers_invalid",
        help: "Connections that did not begin with the PROXY header that the listener wants",
        value: |listener| listener.proxy_headers_invalid.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "listener_datagrams_received",
        help: "Datagrams that came in",
        value: |listener| listener.datagrams.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "listener_datagrams_dropped",
        help: "Datagrams that the kernel dropped, because they came faster than they were read",
        value: |listener| listener.datagrams_dropped.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Gauge,
        name: "listener_certificate_expiry_timestamp_seconds",
        help: "When the certificate that senders are shown is over; 0 where there is none",
        value: |listener| {
            let settings = listener.settings();
            let tls = settings.tls.as_ref();
            let expires =
                tls.and_then(|tls| relay_tls::expires(tls.identity.certificate.as_bytes()));
            expires.unwrap_or_default()
        },
    },
];

const OF_CONSUMERS: [Metric<Consuming>; 4] = [
    Metric {
        kind: Kind::Gauge,
        name: "consumer_connected",
        help: "Whether the listener takes messages from its broker",
        value: |consumer| consumer.is_connected.load(Ordering::Relaxed).into(),
    },
    Metric {
        kind: Kind::Counter,
        name: "consumer_connect_failures",
        help: "Tries to take messages from the broker that failed",
        value: |consumer| consumer.connect_failures.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "consumer_messages_received",
        help: "Messages that the broker gave",
        value: |consumer| consumer.messages.load(Ordering::Relaxed),
    },
    Metric {
        kind: Kind::Counter,
        name: "consumer_messages_acknowledged",
        help: "Messages whose lines were sent, are on disk or were dropped, of which the broker was told",
        value: |consumer| consumer.acknowledged.load(Ordering::Relaxed),
    },
];

const OF_DESTINATIONS: [Metric<Standing>; 25] = [
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_offered",
        help: "Lines forwarded to the destination",
        value: |to| to.figures.offered,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_sent",
        help: "Lines handed over to the destination's kernel or file, or acknowledged by its server",
        value: |to| to.figures.sent(),
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_left_out",
        help: "Lines among those sent that the destination's mappings leave out, or that its server took and does not keep",
        value: |to| to.figures.left_out,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_dead_letter_bytes",
        help: "Bytes of lines that the destination will never take, kept to be looked at and sent again",
        value: |to| to.dead_letter_bytes,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_dead_letter_max_bytes",
        help: "Bytes of such lines that are kept at most",
        value: |to| to.dead_letter_bytes_max,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_queue_lines",
        help: "Lines that wait for the destination",
        value: |to| to.figures.queue_lines,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_queue_bytes",
        help: "Bytes that wait for the destination",
        value: |to| to.figures.queue_bytes,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_resent",
        help: "Lines given to the destination once more, because their connection broke",
        value: |to| to.figures.resent,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_recovered",
        help: "Lines found on disk when the relay started",
        value: |to| to.figures.spool.recovered,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_lines_replayed",
        help: "Lines sent that had waited on disk; they are among those sent",
        value: |to| to.figures.spool.acknowledged,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_spool_lines",
        help: "Lines that wait on disk for the destination",
        value: |to| to.figures.spool.waiting,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_spool_bytes",
        help: "Bytes that the destination's spool takes on disk",
        value: |to| to.figures.spool.bytes,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_spool_open",
        help: "1 while the destination's spool is open or none is needed; while 0, what waits on disk is not known",
        value: |to| u64::from(!to.figures.spool_is_unknown),
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_spool_oldest_seconds",
        help: "How long the oldest line on disk has waited",
        value: |to| to.figures.spool.oldest_seconds.unwrap_or_default(),
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_connected",
        help: "1 while the destination has all its connections",
        value: |to| u64::from(to.figures.is_connected()),
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_connections",
        help: "Open connections to the destination",
        value: |to| to.figures.connected as u64,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_live",
        help: "1 while failover gives the destination lines",
        value: |to| u64::from(to.figures.live),
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_queue_max_bytes",
        help: "Bytes that may wait in memory",
        value: |to| to.queue_bytes_max,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_spool_max_bytes",
        help: "Bytes that may wait on disk",
        value: |to| to.spool_bytes_max,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_bytes_sent",
        help: "Bytes handed over to the destination's kernel or file",
        value: |to| to.figures.bytes_sent,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_bytes_replayed",
        help: "Bytes sent that had waited on disk; they are among those sent",
        value: |to| to.figures.bytes_replayed,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_connects",
        help: "Connections that were made to the destination",
        value: |to| to.link.connects,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_connect_failures",
        help: "Tries to connect to the destination that failed",
        value: |to| to.link.connect_failures,
    },
    Metric {
        kind: Kind::Counter,
        name: "destination_connections_broken",
        help: "Connections to the destination that broke",
        value: |to| to.link.breaks,
    },
    Metric {
        kind: Kind::Gauge,
        name: "destination_unacknowledged_bytes",
        help: "Bytes on open connections that the destination's kernel has not acknowledged",
        value: |to| to.link.unacknowledged as u64,
    },
];

const OF_AGGREGATES: [Metric<Counted>; 6] = [
    Metric {
        kind: Kind::Counter,
        name: "aggregates_forwarded",
        help: "Lines that came of buckets and that at least one destination was given",
        value: |counted| counted.forwarded,
    },
    Metric {
        kind: Kind::Counter,
        name: "aggregates_unrouted",
        help: "Lines that came of buckets and that no route took",
        value: |counted| counted.unrouted,
    },
    Metric {
        kind: Kind::Counter,
        name: "aggregates_not_finite",
        help: "Values of buckets that are beyond what a double holds",
        value: |counted| counted.not_finite,
    },
    Metric {
        kind: Kind::Counter,
        name: "aggregator_points_lost",
        help: "Points in buckets that could not be taken up again after a restart",
        value: |counted| counted.points_lost,
    },
    Metric {
        kind: Kind::Gauge,
        name: "aggregator_open_buckets",
        help: "Buckets that are open, each data thread's share counted by itself",
        value: |counted| counted.open_buckets as u64,
    },
    Metric {
        kind: Kind::Gauge,
        name: "aggregator_bytes",
        help: "Memory that buckets, their values and their names take",
        value: |counted| counted.bytes as u64,
    },
];

/// All metrics, as OpenMetrics text.
pub(crate) fn encode(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("carbonway");
    registry.register_collector(Box::new(Scrape(view.clone())));
    let mut encoded = String::new();
    text::encode(&mut encoded, &registry)?;
    Ok(encoded)
}

struct Scrape(View);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.lines(&mut encoder)?;
        self.listeners(&mut encoder)?;
        self.destinations(&mut encoder)?;
        self.orphans(&mut encoder)?;
        self.aggregators(&mut encoder)?;
        self.snapshot(&mut encoder)
    }
}

impl Scrape {
    fn lines(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut by_listener: BTreeMap<Arc<str>, Tally> = BTreeMap::new();
        for counts in self.0.workers.counts() {
            for (listener, tally) in &*counts.lock().unwrap_or_else(PoisonError::into_inner) {
                *by_listener.entry(Arc::clone(listener)).or_default() += tally;
            }
        }
        let mut total = Tally::default();
        by_listener.values().for_each(|tally| total += tally);
        let received = by_listener
            .iter()
            .map(|(name, tally)| ([("listener", &**name)], tally.received));
        let help = "Lines that came in";
        family(encoder, Kind::Counter, "lines_received", help, received)?;
        let help = "Lines that at least one destination was given";
        single(
            encoder,
            Kind::Counter,
            "lines_forwarded",
            help,
            total.forwarded,
        )?;
        let help = "Lines that went into an aggregate and no further";
        single(
            encoder,
            Kind::Counter,
            "lines_absorbed",
            help,
            total.absorbed,
        )?;
        let dropped =
            Reason::ALL.map(|reason| ([("reason", reason.as_str())], total.dropped(reason)));
        let help = "Lines dropped, by the one reason for each";
        family(encoder, Kind::Counter, "lines_dropped", help, dropped)
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = self.0.shown().listeners.clone();
        OF_LISTENERS.iter().try_for_each(
            |Metric {
                 kind,
                 name,
                 help,
                 value,
             }| {
                let samples = listeners
                    .iter()
                    .map(|listener| ([("listener", &*listener.name)], value(listener)));
                family(encoder, *kind, name, help, samples)
            },
        )?;
        let consumers = self.0.shown().consumers.clone();
        OF_CONSUMERS.iter().try_for_each(
            |Metric {
                 kind,
                 name,
                 help,
                 value,
             }| {
                let samples = consumers
                    .iter()
                    .map(|consumer| ([("listener", &*consumer.settings.name)], value(consumer)));
                family(encoder, *kind, name, help, samples)
            },
        )
    }

    fn destinations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let destinations = self.0.destinations();
        let destinations: Vec<_> = destinations.iter().map(Known::standing).collect();
        OF_DESTINATIONS.iter().try_for_each(
            |Metric {
                 kind,
                 name,
                 help,
                 value,
             }| {
                let samples = destinations
                    .iter()
                    .map(|to| ([("destination", &*to.name)], value(to)));
                family(encoder, *kind, name, help, samples)
            },
        )?;
        let dropped = destinations.iter().flat_map(|to| {
            to.dropped()
                .map(|(reason, lines)| ([("destination", &*to.name), ("reason", reason)], lines))
        });
        let help = "Lines that the destination was not given";
        family(
            encoder,
            Kind::Counter,
            "destination_lines_dropped",
            help,
            dropped,
        )
    }

    fn orphans(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (count, bytes) = {
            let orphans = &self.0.shown().orphans;
            let bytes = orphans.iter().map(|orphan| orphan.survey.bytes);
            (orphans.len() as u64, bytes.sum())
        };
        let help = "Spools with lines for destinations that are gone";
        single(encoder, Kind::Gauge, "orphaned_spools", help, count)?;
        let help = "Bytes that these take on disk";
        single(encoder, Kind::Gauge, "orphaned_spools_bytes", help, bytes)
    }

    fn aggregators(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counted = self.0.aggregates.counted();
        let plan = self.0.plan.load();
        let points = plan.table.aggregators().flat_map(|(id, name)| {
            let counts = counted.points.get(id).copied().unwrap_or_default();
            PointFate::ALL
                .into_iter()
                .zip(counts)
                .map(move |(fate, count)| {
                    let labels = [("aggregator", &**name), ("fate", fate.as_str())];
                    (labels, count)
                })
        });
        let help = "Points that the aggregator matched, by what became of them";
        family(encoder, Kind::Counter, "aggregator_points", help, points)?;
        OF_AGGREGATES.iter().try_for_each(
            |Metric {
                 kind,
                 name,
                 help,
                 value,
             }| single(encoder, *kind, name, help, value(&counted)),
        )
    }

    fn snapshot(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (applied, refused) = {
            let shown = self.0.shown();
            (shown.applied, shown.refused)
        };
        let help = "Snapshots taken into force";
        single(encoder, Kind::Counter, "snapshots_applied", help, applied)?;
        let help = "Snapshots refused";
        single(encoder, Kind::Counter, "snapshots_refused", help, refused)?;
        let version = self.0.plan.load().version;
        let text = version
            .map(|version| version.to_string())
            .unwrap_or_default();
        let info = [([("version", text.as_str())], u64::from(version.is_some()))];
        let help = "1 and the version of the snapshot in force; 0 without one";
        family(encoder, Kind::Gauge, "snapshot_info", help, info)?;
        if let Some(is_connected) = self.0.sync_connected.get() {
            let help = "1 while this relay is connected to an operator";
            let value = is_connected.load(Ordering::Relaxed).into();
            single(encoder, Kind::Gauge, "sync_connected", help, value)?;
        }
        let help = "1 while this relay takes lines";
        single(
            encoder,
            Kind::Gauge,
            "ready",
            help,
            self.0.is_ready().into(),
        )
    }
}

// A metric without labels.
fn single(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let metric = kind.metric(value);
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

fn family<'a, const LABELS: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'static str, &'a str); LABELS], u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind.metric(0).metric_type())?;
    samples
        .into_iter()
        .try_for_each(|(labels, value)| kind.metric(value).encode(family.encode_family(&labels)?))
}

impl Kind {
    fn metric(self, value: u64) -> Box<dyn EncodeMetric> {
        match self {
            Self::Counter => Box::new(ConstCounter::new(value)),
            Self::Gauge => Box::new(ConstGauge::new(value)),
        }
    }
}
