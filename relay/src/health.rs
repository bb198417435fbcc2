//! What a relay says of itself while it works: how each destination stands, what waits, what was left behind.
//!
//! ```text
//! destinations (a sample a second), spools (after each snapshot, and once a minute) ─▶ Observer ─▶ Report, when it changes
//! ```
//!
//! The operator's client follows the newest and sends it.

mod observer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_proto::Report;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::View;
use crate::destinations::{Known, Orphan};
use observer::{Observer, Sample};

/// How often destinations are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How often spools without a destination are looked for, beside after each snapshot: a person may have removed one.
const SURVEY_INTERVAL: Duration = Duration::from_secs(60);

/// The newest report; `None` before the first.
pub type Reports = watch::Receiver<Option<Report>>;

/// Watches over a relay's destinations. Made and run once.
pub(crate) struct Watch {
    pub(crate) view: View,
    /// Where spools are kept, if anywhere.
    pub(crate) spools: Option<Arc<PathBuf>>,
    pub(crate) reports: watch::Sender<Option<Report>>,
}

impl Watch {
    /// Watches for ever.
    pub(crate) async fn run(self) {
        let mut observer = Observer::default();
        let mut surveyed: Option<(u64, Instant)> = None;
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let applied = self.view.shown().applied;
            // Before the first snapshot no spool has a destination.
            let is_due = surveyed
                .is_none_or(|(after, at)| after != applied || at.elapsed() >= SURVEY_INTERVAL);
            if applied > 0 && is_due {
                self.survey().await;
                surveyed = Some((applied, Instant::now()));
            }
            if let Some(report) = observer.observe(Instant::now(), &self.sample()) {
                self.reports.send_replace(Some(report));
            }
        }
    }

    fn sample(&self) -> Sample {
        let (standings, consumers, leaving, orphans) = {
            let shown = self.view.shown();
            let (known, consumers) = (shown.destinations.clone(), shown.consumers.clone());
            (known, consumers, shown.leaving(), shown.orphans.clone())
        };
        let failures = consumers.iter().filter_map(|consumer| {
            let error = consumer.failure()?;
            Some((Arc::clone(&consumer.settings.name), error))
        });
        Sample {
            listeners_down: failures.collect(),
            standings: standings.iter().map(Known::standing).collect(),
            leaving: leaving.iter().map(|queue| queue.figures()).collect(),
            orphans,
            open_buckets: self.view.aggregates.counted().open_buckets,
            has_left: self.view.has_left(),
        }
    }

    // Looks for spools that no destination has, and tells of those that are new.
    async fn survey(&self) {
        let Some(spools) = &self.spools else { return };
        let (spools, view) = (Arc::clone(spools), self.view.clone());
        let survey = move || {
            let in_use = view.shown().spools_in_use();
            Orphan::find(&spools, &in_use)
        };
        let orphans = match spawn_blocking(survey).await {
            Ok(Ok(orphans)) => orphans,
            Ok(Err(error)) => {
                warn!(%error, "cannot look for spools of destinations that are gone");
                return;
            }
            // The runtime is going down.
            Err(_) => return,
        };
        let mut shown = self.view.shown();
        let known: BTreeSet<&str> = shown.orphans.iter().map(|o| &*o.directory).collect();
        for orphan in orphans.iter().filter(|o| !known.contains(&*o.directory)) {
            let survey = &orphan.survey;
            warn!(
                destination = survey.owner,
                id = survey.identity,
                directory = orphan.directory,
                bytes = survey.bytes,
                lines = survey.lines,
                "a spool has lines for a destination that is gone; bring it back, or remove the directory"
            );
        }
        shown.orphans = orphans;
    }
}
