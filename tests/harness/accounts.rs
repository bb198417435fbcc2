//! What became of every line, as the relay itself tells it.

use std::collections::BTreeMap;

use crate::Metrics;

/// The counters of a relay that stand for lines. Reasons with no line are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Lines read, over all listeners.
    pub received: u64,
    /// Lines that at least one destination was given.
    pub forwarded: u64,
    /// Lines that went into an aggregate and no further.
    pub absorbed: u64,
    /// Lines dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// By "namespace/name".
    pub destinations: BTreeMap<String, DestinationAccounts>,
}

/// The part of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationAccounts {
    /// Lines that routes gave it.
    pub offered: u64,
    /// Lines handed to the peer's kernel, or to the file.
    pub sent: u64,
    /// Lines dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Lines that wait in memory.
    pub queued: u64,
    /// Lines that wait on disk.
    pub spooled: u64,
    /// Whether there may be more.
    pub spool_is_unknown: bool,
    /// Lines found on disk when the relay started.
    pub recovered: u64,
    /// Lines given to it once more, because their connection broke.
    pub resent: u64,
}

impl Accounts {
    /// Reads them out of a scrape.
    pub fn of(metrics: &Metrics) -> Self {
        let mut accounts = Self {
            received: metrics.count("carbonway_lines_received_total"),
            forwarded: metrics.count("carbonway_lines_forwarded_total"),
            absorbed: metrics.count("carbonway_lines_absorbed_total"),
            dropped: metrics.counts_by("carbonway_lines_dropped_total", "reason", |_| true),
            destinations: BTreeMap::new(),
        };
        let offered = "carbonway_destination_lines_offered_total";
        for (labels, _) in metrics.samples(offered) {
            let name = &labels["destination"];
            let count = |metric: &str| {
                let value = metrics.get(metric, &[("destination", name)]);
                value.unwrap_or_default() as u64
            };
            let dropped = "carbonway_destination_lines_dropped_total";
            let destination = DestinationAccounts {
                offered: count(offered),
                sent: count("carbonway_destination_lines_sent_total"),
                dropped: metrics.counts_by(dropped, "reason", |l| &l["destination"] == name),
                queued: count("carbonway_destination_queue_lines"),
                spooled: count("carbonway_destination_spool_lines"),
                spool_is_unknown: count("carbonway_destination_spool_open") != 1,
                recovered: count("carbonway_destination_lines_recovered_total"),
                resent: count("carbonway_destination_lines_resent_total"),
            };
            accounts.destinations.insert(name.clone(), destination);
        }
        accounts
    }

    /// Whether every line is accounted for: received = forwarded + absorbed + dropped, and for each destination
    /// offered + recovered + resent = sent + dropped + queued + spooled.
    ///
    /// # Errors
    /// With what does not add up.
    pub fn balance(&self) -> Result<(), String> {
        let known = self.forwarded + self.absorbed + sum(&self.dropped);
        if self.received != known {
            let Self { received, .. } = self;
            return Err(format!(
                "{received} lines received, {known} accounted for: {self:?}"
            ));
        }
        for (name, destination) in &self.destinations {
            if destination.spool_is_unknown {
                return Err(format!("{name}: what waits on disk is not known"));
            }
            let waiting = destination.queued + destination.spooled;
            let known = destination.sent + sum(&destination.dropped) + waiting;
            let given = destination.offered + destination.recovered + destination.resent;
            if given != known {
                return Err(format!(
                    "{name}: {destination:?} accounts for {known} lines"
                ));
            }
        }
        Ok(())
    }

    /// The part of a destination in the default namespace; all zero if there is none.
    pub fn destination(&self, name: &str) -> DestinationAccounts {
        let destination = self.destinations.get(&format!("default/{name}"));
        destination.cloned().unwrap_or_default()
    }
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(sent: u64, blank: u64) -> Accounts {
        let text = format!(
            "carbonway_lines_received_total{{listener=\"plain\"}} 10\n\
             carbonway_lines_forwarded_total 7\n\
             carbonway_lines_dropped_total{{reason=\"blank\"}} {blank}\n\
             carbonway_lines_dropped_total{{reason=\"unrouted\"}} 0\n\
             carbonway_destination_lines_offered_total{{destination=\"default/a\"}} 7\n\
             carbonway_destination_lines_sent_total{{destination=\"default/a\"}} {sent}\n\
             carbonway_destination_lines_dropped_total{{destination=\"default/a\",reason=\"queue_full\"}} 2\n\
             carbonway_destination_queue_lines{{destination=\"default/a\"}} 1\n\
             carbonway_destination_spool_lines{{destination=\"default/a\"}} 3\n\
             carbonway_destination_spool_open{{destination=\"default/a\"}} 1\n\
             carbonway_destination_lines_recovered_total{{destination=\"default/a\"}} 2\n\
             carbonway_destination_lines_resent_total{{destination=\"default/a\"}} 1\n"
        );
        Accounts::of(&Metrics::parse(&text).unwrap())
    }

    #[test]
    fn accounts_are_read_from_metrics() {
        let a = DestinationAccounts {
            offered: 7,
            sent: 4,
            dropped: BTreeMap::from([("queue_full".into(), 2)]),
            queued: 1,
            spooled: 3,
            spool_is_unknown: false,
            recovered: 2,
            resent: 1,
        };
        let expected = Accounts {
            received: 10,
            forwarded: 7,
            absorbed: 0,
            dropped: BTreeMap::from([("blank".into(), 3)]),
            destinations: BTreeMap::from([("default/a".into(), a)]),
        };
        assert_eq!(accounts(4, 3), expected);
        assert_eq!(expected.balance(), Ok(()));
    }

    #[test]
    fn a_line_that_is_missing_is_noticed() {
        let of_lines = accounts(4, 2).balance().unwrap_err();
        assert!(
            of_lines.starts_with("10 lines received, 9 accounted for"),
            "{of_lines}"
        );
        let of_destination = accounts(3, 3).balance().unwrap_err();
        assert!(
            of_destination.ends_with("accounts for 9 lines"),
            "{of_destination}"
        );
    }
}
