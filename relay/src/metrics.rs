//! Every metric of a relay, made at each scrape from the figures where they are counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use relay_engine::{Reason, Tally};

use crate::View;
use crate::destinations::queue::Loss;

/// All metrics, as OpenMetrics text.
pub(crate) fn encode(view: &View) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("carbonway");
    registry.register_collector(Box::new(Figures(view.clone())));
    let mut encoded = String::new();
    text::encode(&mut encoded, &registry)?;
    Ok(encoded)
}

struct Figures(View);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

// One sample: its labels and its value.
type Sample<'a> = (&'a [(&'static str, &'a str)], u64);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.lines(&mut encoder)?;
        self.listeners(&mut encoder)?;
        self.destinations(&mut encoder)?;
        self.snapshot(&mut encoder)
    }
}

impl Figures {
    fn lines(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut by_listener: BTreeMap<Arc<str>, Tally> = BTreeMap::new();
        for counts in self.0.workers.counts() {
            for (listener, tally) in &*counts.lock().unwrap_or_else(PoisonError::into_inner) {
                *by_listener.entry(Arc::clone(listener)).or_default() += tally;
            }
        }
        let mut total = Tally::default();
        by_listener.values().for_each(|tally| total += tally);
        let received: Vec<_> = by_listener
            .iter()
            .map(|(listener, tally)| ([("listener", &**listener)], tally.received))
            .collect();
        let received: Vec<Sample<'_>> = received.iter().map(|(l, v)| (&l[..], *v)).collect();
        counter(encoder, "lines_received", "Lines that came in", &received)?;
        counter(
            encoder,
            "lines_forwarded",
            "Lines that at least one destination was given",
            &[(&[], total.forwarded)],
        )?;
        counter(
            encoder,
            "lines_absorbed",
            "Lines that went into an aggregate and no further",
            &[(&[], total.absorbed)],
        )?;
        let dropped =
            Reason::ALL.map(|reason| ([("reason", reason.as_str())], total.dropped(reason)));
        let dropped: Vec<Sample<'_>> = dropped.iter().map(|(l, v)| (&l[..], *v)).collect();
        counter(
            encoder,
            "lines_dropped",
            "Lines dropped, by the one reason for each",
            &dropped,
        )
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = self.0.shown().listeners.clone();
        let labels: Vec<_> = listeners
            .iter()
            .map(|listener| [("listener", &*listener.name)])
            .collect();
        let of = |value: fn(&crate::Listening) -> u64| -> Vec<Sample<'_>> {
            labels
                .iter()
                .zip(&listeners)
                .map(|(l, listener)| (&l[..], value(listener)))
                .collect()
        };
        let accepted = of(|listener| listener.accepted.load(Ordering::Relaxed));
        counter(
            encoder,
            "connections_accepted",
            "Connections that were let in",
            &accepted,
        )?;
        let refused = of(|listener| listener.refused.load(Ordering::Relaxed));
        counter(
            encoder,
            "connections_refused",
            "Connections over the listener's limit",
            &refused,
        )?;
        let open = of(|listener| listener.connections.load(Ordering::Relaxed) as u64);
        gauge(encoder, "connections", "Connections that are open", &open)
    }

    fn destinations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let destinations: Vec<_> = self
            .0
            .destinations()
            .into_iter()
            .map(|(name, queue)| (name, queue.figures()))
            .collect();
        let labels: Vec<_> = destinations
            .iter()
            .map(|(name, _)| [("destination", &**name)])
            .collect();
        let of = |value: fn(&crate::destinations::queue::Figures) -> u64| -> Vec<Sample<'_>> {
            labels
                .iter()
                .zip(&destinations)
                .map(|(l, (_, figures))| (&l[..], value(figures)))
                .collect()
        };
        let offered = of(|figures| figures.offered);
        counter(
            encoder,
            "destination_lines_offered",
            "Lines forwarded to the destination",
            &offered,
        )?;
        let sent = of(|figures| figures.sent);
        counter(
            encoder,
            "destination_lines_sent",
            "Lines handed over to the destination's kernel or file",
            &sent,
        )?;
        let mut dropped = Vec::new();
        for (name, figures) in &destinations {
            for loss in Loss::ALL {
                let labels = [("destination", &**name), ("reason", loss.as_str())];
                dropped.push((labels, figures.dropped[loss as usize]));
            }
        }
        let dropped: Vec<Sample<'_>> = dropped.iter().map(|(l, v)| (&l[..], *v)).collect();
        counter(
            encoder,
            "destination_lines_dropped",
            "Lines that the destination was not given",
            &dropped,
        )?;
        let lines = of(|figures| figures.queue_lines);
        gauge(
            encoder,
            "destination_queue_lines",
            "Lines that wait for the destination",
            &lines,
        )?;
        let bytes = of(|figures| figures.queue_bytes);
        gauge(
            encoder,
            "destination_queue_bytes",
            "Bytes that wait for the destination",
            &bytes,
        )?;
        let connected = of(|figures| u64::from(figures.connected));
        gauge(
            encoder,
            "destination_connected",
            "1 while the destination is connected",
            &connected,
        )?;
        let live = of(|figures| u64::from(figures.live));
        gauge(
            encoder,
            "destination_live",
            "1 while failover gives the destination lines",
            &live,
        )
    }

    fn snapshot(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (applied, refused) = {
            let shown = self.0.shown();
            (shown.applied, shown.refused)
        };
        counter(
            encoder,
            "snapshots_applied",
            "Snapshots taken into force",
            &[(&[], applied)],
        )?;
        counter(
            encoder,
            "snapshots_refused",
            "Snapshots refused",
            &[(&[], refused)],
        )?;
        let version = self
            .0
            .plan
            .load()
            .version
            .map(|version| version.to_string());
        let labels = [("version", version.as_deref().unwrap_or_default())];
        gauge(
            encoder,
            "snapshot_info",
            "1 and the version of the snapshot in force; 0 without one",
            &[(&labels, u64::from(version.is_some()))],
        )?;
        gauge(
            encoder,
            "ready",
            "1 while this relay takes lines",
            &[(&[], self.0.is_ready().into())],
        )
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: &[Sample<'_>],
) -> fmt::Result {
    family(encoder, name, help, samples, ConstCounter::new)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: &[Sample<'_>],
) -> fmt::Result {
    family(encoder, name, help, samples, ConstGauge::new)
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: &[Sample<'_>],
    metric: fn(u64) -> M,
) -> fmt::Result {
    let mut descriptor = encoder.encode_descriptor(name, help, None, metric(0).metric_type())?;
    if let [([], value)] = samples {
        return metric(*value).encode(descriptor);
    }
    samples
        .iter()
        .try_for_each(|(labels, value)| metric(*value).encode(descriptor.encode_family(labels)?))
}
