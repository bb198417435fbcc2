//! [`Leave`]: who of a fleet goes when there are to be fewer, and when. Pure: whoever asks brings the time.
//!
//! A pod that is to go for good is told so first. It takes nobody in any more and sends on what it holds; when it says that
//! nothing waits in it, it goes. One that does not come to that in time goes all the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How a pod that is to go stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was told, and says that nothing waits in it.
    Drained,
    /// It did not, or not yet.
    Busy,
    /// There is no such pod.
    Gone,
}

/// The pods of one fleet that are to go, each with the time since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leave(BTreeMap<String, Instant>);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many pods there should be now.
    pub(crate) replicas: i32,
    /// Who must be gone before there are as few as wanted.
    pub(crate) leaving: Vec<String>,
    /// Who goes although lines may wait in it.
    pub(crate) overdue: Vec<String>,
}

impl Leave {
    /// The next step from `current` pods to `wanted`. `pods` are those that would go, the first to go first, each with how it
    /// stands; they go in that order if `is_ordered`.
    pub(crate) fn step(
        &mut self,
        (current, wanted): (i32, i32),
        pods: &[(String, Standing)],
        is_ordered: bool,
        timeout: Duration,
        now: Instant,
    ) -> Step {
        let before = std::mem::take(&mut self.0);
        let mut step = Step {
            replicas: current,
            leaving: Vec::new(),
            overdue: Vec::new(),
        };
        for (pod, standing) in pods {
            let since = before.get(pod).copied().unwrap_or(now);
            let is_overdue = now.duration_since(since) >= timeout;
            let may_go = match standing {
                Standing::Gone | Standing::Drained => true,
                Standing::Busy => is_overdue,
            };
            if may_go && (!is_ordered || step.leaving.is_empty()) {
                step.replicas -= 1;
                if *standing == Standing::Busy {
                    step.overdue.push(pod.clone());
                }
            } else {
                step.leaving.push(pod.clone());
            }
            // Until it is gone it stays told.
            if *standing != Standing::Gone {
                self.0.insert(pod.clone(), since);
            }
        }
        step.replicas = step.replicas.max(wanted);
        step
    }

    /// Whether a pod was told to go.
    pub(crate) fn has(&self, pod: &str) -> bool {
        self.0.contains_key(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn pods<const N: usize>(pods: [(&str, Standing); N]) -> Vec<(String, Standing)> {
        pods.map(|(name, standing)| (name.to_owned(), standing))
            .into()
    }

    #[test]
    fn a_pod_goes_when_it_was_told_to_and_says_that_nothing_waits_in_it() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let busy = pods([("b", Standing::Busy)]);
        let told = leave.step((2, 1), &busy, true, TIMEOUT, now);
        assert_eq!((told.replicas, told.leaving), (2, vec!["b".to_owned()]));
        assert!(leave.has("b"));
        let drained = pods([("b", Standing::Drained)]);
        let gone = leave.step((2, 1), &drained, true, TIMEOUT, now);
        assert_eq!(
            (gone.replicas, gone.leaving, gone.overdue),
            (1, vec![], vec![])
        );
    }

    #[test]
    fn a_pod_of_a_stateful_set_waits_for_those_after_it() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let two = pods([("c", Standing::Busy), ("b", Standing::Drained)]);
        for _ in 0..2 {
            assert_eq!(leave.step((3, 1), &two, true, TIMEOUT, now).replicas, 3);
        }
        let step = leave.step((3, 1), &two, false, TIMEOUT, now);
        assert_eq!((step.replicas, step.leaving), (2, vec!["c".to_owned()]));
    }

    #[test]
    fn a_pod_that_is_not_done_in_time_goes_all_the_same() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let busy = pods([("b", Standing::Busy)]);
        assert_eq!(leave.step((2, 1), &busy, true, TIMEOUT, now).replicas, 2);
        let step = leave.step((2, 1), &busy, true, TIMEOUT, now + TIMEOUT);
        assert_eq!((step.replicas, step.overdue), (1, vec!["b".to_owned()]));
    }

    #[test]
    fn a_pod_that_is_not_there_is_not_waited_for_and_one_that_stays_is_forgotten() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let step = leave.step((2, 1), &pods([("b", Standing::Gone)]), true, TIMEOUT, now);
        assert_eq!(step.replicas, 1);
        leave.step((2, 1), &pods([("b", Standing::Busy)]), true, TIMEOUT, now);
        assert!(leave.has("b"));
        leave.step((2, 2), &[], true, TIMEOUT, now);
        assert!(!leave.has("b"));
    }
}
