//! [`Leave`]: who of a fleet goes when there are to be fewer, and when. Pure: whoever asks brings the time.
//!
//! A pod that is to go for good is told so first. It takes nobody in any more and sends on what it holds; when it says that
//! nothing waits in it, it goes. One that does not come to that in time goes all the same. What was decided stays so: a pod that
//! goes says nothing any more, and the watch may be behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pods of one fleet that are to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leave(BTreeMap<String, Told>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    since: Instant,
    may_go: bool,
}

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
    /// The next step from `current` pods to `wanted`. `pods` are those that are to go, the first to go first, each with whether it
    /// says that it was told and that nothing waits in it; they go in that order if `is_ordered`. Without a `timeout` they have
    /// as long as it takes.
    pub(crate) fn step(
        &mut self,
        (current, wanted): (i32, i32),
        pods: &[(String, bool)],
        is_ordered: bool,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Step {
        let before = std::mem::take(&mut self.0);
        let (mut leaving, mut overdue) = (Vec::new(), Vec::new());
        for (pod, is_drained) in pods {
            let told = before.get(pod).copied().unwrap_or(Told {
                since: now,
                may_go: false,
            });
            let is_late = timeout.is_some_and(|timeout| now.duration_since(told.since) >= timeout);
            let is_done = *is_drained || told.may_go || is_late;
            let may_go = is_done && (!is_ordered || leaving.is_empty());
            if !may_go {
                leaving.push(pod.clone());
            } else if !is_drained && !told.may_go {
                overdue.push(pod.clone());
            }
            self.0.insert(pod.clone(), Told { may_go, ..told });
        }
        let replicas = match current > wanted {
            true => current.min(wanted + leaving.len() as i32),
            false => wanted,
        };
        Step {
            replicas,
            leaving,
            overdue,
        }
    }

    /// Whether it was decided that a pod may go.
    pub(crate) fn may_go(&self, pod: &str) -> bool {
        self.0.get(pod).is_some_and(|told| told.may_go)
    }

    /// Whether a pod was told to go.
    pub(crate) fn has(&self, pod: &str) -> bool {
        self.0.contains_key(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));
    const BUSY: bool = false;
    const DRAINED: bool = true;

    fn pods<const N: usize>(pods: [(&str, bool); N]) -> Vec<(String, bool)> {
        pods.map(|(name, is_drained)| (name.to_owned(), is_drained))
            .into()
    }

    #[test]
    fn a_pod_goes_when_it_was_told_to_and_says_that_nothing_waits_in_it() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let told = leave.step((2, 1), &pods([("b", BUSY)]), true, TIMEOUT, now);
        assert_eq!((told.replicas, told.leaving), (2, vec!["b".to_owned()]));
        assert!(leave.has("b") && !leave.may_go("b"));
        let gone = leave.step((2, 1), &pods([("b", DRAINED)]), true, TIMEOUT, now);
        assert_eq!(
            (gone.replicas, gone.leaving, gone.overdue),
            (1, vec![], vec![])
        );
    }

    #[test]
    fn what_was_decided_of_a_pod_stays_so_although_it_says_nothing_any_more() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        leave.step((2, 1), &pods([("b", DRAINED)]), true, TIMEOUT, now);
        let silent = leave.step((2, 1), &pods([("b", BUSY)]), true, TIMEOUT, now);
        assert_eq!((silent.replicas, silent.overdue), (1, vec![]));
        // nor does it count twice, while it is still there
        let next = pods([("b", BUSY), ("a", BUSY)]);
        assert_eq!(leave.step((1, 0), &next, true, TIMEOUT, now).replicas, 1);
        assert!(leave.may_go("b") && !leave.may_go("a"));
    }

    #[test]
    fn a_pod_of_a_stateful_set_waits_for_those_after_it() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let two = pods([("c", BUSY), ("b", DRAINED)]);
        assert_eq!(leave.step((3, 1), &two, true, TIMEOUT, now).replicas, 3);
        let step = leave.step((3, 1), &two, false, TIMEOUT, now);
        assert_eq!((step.replicas, step.leaving), (2, vec!["c".to_owned()]));
    }

    #[test]
    fn a_pod_that_is_not_done_in_time_goes_all_the_same_if_there_is_such_a_time() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        let busy = pods([("b", BUSY)]);
        let later = now + Duration::from_secs(60);
        assert_eq!(leave.step((2, 1), &busy, true, None, now).replicas, 2);
        assert_eq!(leave.step((2, 1), &busy, true, None, later).replicas, 2);
        let step = leave.step((2, 1), &busy, true, TIMEOUT, later);
        assert_eq!((step.replicas, step.overdue), (1, vec!["b".to_owned()]));
    }

    #[test]
    fn a_pod_that_stays_after_all_is_forgotten_and_more_pods_need_no_leave() {
        let (mut leave, now) = (Leave::default(), Instant::now());
        leave.step((2, 1), &pods([("b", BUSY)]), true, TIMEOUT, now);
        assert_eq!(leave.step((2, 5), &[], true, TIMEOUT, now).replicas, 5);
        assert!(!leave.has("b"));
    }
}
