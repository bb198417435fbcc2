//! [`Wave`]: to whom a new snapshot is offered, and when. One relay has it first; the others follow when it has taken it.
//!
//! If that one refuses it the others stay on what they run, and who comes (back) gets the last one that a relay took, so that no
//! relay that starts meets a snapshot that is known to be bad. If it does not answer in time, or goes away, another one takes
//! its place. Pure: whoever asks brings the time.

use std::sync::Arc;
use std::time::Duration;

use relay_proto::Version;
use tokio::time::Instant;

use crate::publish::Published;

/// How long the first relay may take to answer.
const SCOUT_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamNumber(pub(super) u64);

/// How one fleet has come along with its newest snapshot.
#[derive(Debug, Default)]
pub(super) struct Wave {
    /// The last one that a relay took.
    good: Option<Arc<Published>>,
    /// Who has the newest one before the others.
    scout: Option<Scout>,
    /// The newest one, if its scout refused it.
    refused: Option<Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scout {
    stream: StreamNumber,
    version: Version,
    since: Instant,
}

/// What a relay is to be offered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Turn {
    /// This, unless it runs it.
    Offer(Arc<Published>),
    /// Nothing before this changes, or before that time.
    Wait(Option<Instant>),
}

impl Wave {
    /// What a relay that runs `active` is to be offered while `newest` is published.
    pub(super) fn turn(
        &mut self,
        stream: StreamNumber,
        active: Option<Version>,
        newest: &Arc<Published>,
        now: Instant,
    ) -> Turn {
        let version = newest.version;
        if active == Some(version) || self.is_good(version) {
            return Turn::Offer(Arc::clone(newest));
        }
        // Whoever is new comes to what the others run first, if there is such a thing.
        if let Some(good) = self
            .good
            .as_ref()
            .filter(|good| active != Some(good.version))
        {
            return Turn::Offer(Arc::clone(good));
        }
        if self.refused == Some(version) && !self.is_scout(stream) {
            return match active {
                Some(_) => Turn::Wait(None),
                // It has nothing to lose.
                None => Turn::Offer(Arc::clone(newest)),
            };
        }
        if let Some(scout) = self.scout.filter(|scout| scout.version == version) {
            let until = scout.since + SCOUT_TIMEOUT;
            if scout.stream != stream && now < until {
                return Turn::Wait(Some(until));
            }
            if scout.stream == stream {
                return Turn::Offer(Arc::clone(newest));
            }
        }
        self.scout = Some(Scout {
            stream,
            version,
            since: now,
        });
        Turn::Offer(Arc::clone(newest))
    }

    /// A relay runs `published`. Whether that is news to others.
    pub(super) fn taken(&mut self, published: &Arc<Published>) -> bool {
        let newer = |good: &Arc<Published>| good.revision < published.revision;
        let is_news = self.good.as_ref().is_none_or(newer);
        if is_news {
            self.good = Some(Arc::clone(published));
            self.refused = self.refused.filter(|refused| *refused != published.version);
        }
        is_news
    }

    /// A relay refused `version`. Whether that is news to others.
    pub(super) fn refuse(&mut self, stream: StreamNumber, version: Version) -> bool {
        let is_news = self.is_scout(stream)
            && self.scout.is_some_and(|scout| scout.version == version)
            && self.refused != Some(version);
        if is_news {
            self.refused = Some(version);
        }
        is_news
    }

    /// A stream has ended. Whether that is news to others.
    pub(super) fn left(&mut self, stream: StreamNumber) -> bool {
        let was_scout = self.is_scout(stream);
        if was_scout {
            self.scout = None;
            self.refused = None;
        }
        was_scout
    }

    fn is_good(&self, version: Version) -> bool {
        self.good
            .as_ref()
            .is_some_and(|good| good.version == version)
    }

    fn is_scout(&self, stream: StreamNumber) -> bool {
        self.scout.is_some_and(|scout| scout.stream == stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamNumber = StreamNumber(1);
    const B: StreamNumber = StreamNumber(2);

    fn published(revision: u64) -> Arc<Published> {
        Arc::new(Published::of(revision, &[revision as u8]))
    }

    #[test]
    fn one_relay_has_it_first_and_the_others_follow() {
        let (mut wave, now) = (Wave::default(), Instant::now());
        let (old, new) = (published(1), published(2));
        let runs_old = Some(old.version);
        wave.taken(&old);
        assert_eq!(
            wave.turn(A, runs_old, &new, now),
            Turn::Offer(Arc::clone(&new))
        );
        let until = now + SCOUT_TIMEOUT;
        assert_eq!(wave.turn(B, runs_old, &new, now), Turn::Wait(Some(until)));
        assert!(wave.taken(&new));
        assert_eq!(wave.turn(B, runs_old, &new, now), Turn::Offer(new));
    }

    #[test]
    fn what_the_first_refuses_nobody_else_is_offered() {
        let (mut wave, now) = (Wave::default(), Instant::now());
        let (old, new) = (published(1), published(2));
        wave.taken(&old);
        wave.turn(A, Some(old.version), &new, now);
        assert!(wave.refuse(A, new.version));
        assert_eq!(wave.turn(B, Some(old.version), &new, now), Turn::Wait(None));
        // who comes gets what the others run
        assert_eq!(wave.turn(B, None, &new, now), Turn::Offer(Arc::clone(&old)));
        // the one that refused it is asked again, by and by
        assert_eq!(
            wave.turn(A, Some(old.version), &new, now),
            Turn::Offer(Arc::clone(&new))
        );
        // and what is mended goes out as ever
        let mended = published(3);
        assert_eq!(
            wave.turn(B, Some(old.version), &mended, now),
            Turn::Offer(mended)
        );
    }

    #[test]
    fn another_one_takes_the_place_of_one_that_does_not_answer_or_goes_away() {
        let (mut wave, now) = (Wave::default(), Instant::now());
        let (old, new) = (published(1), published(2));
        let runs_old = Some(old.version);
        wave.taken(&old);
        wave.turn(A, runs_old, &new, now);
        let later = now + SCOUT_TIMEOUT;
        assert_eq!(
            wave.turn(B, runs_old, &new, later),
            Turn::Offer(Arc::clone(&new))
        );
        assert!(!wave.left(A));
        assert!(wave.left(B));
        assert_eq!(wave.turn(A, runs_old, &new, later), Turn::Offer(new));
    }

    #[test]
    fn an_operator_that_was_just_started_learns_from_those_who_come() {
        let (mut wave, now) = (Wave::default(), Instant::now());
        let new = published(7);
        // this one runs it already
        assert!(wave.taken(&new));
        assert_eq!(wave.turn(B, None, &new, now), Turn::Offer(Arc::clone(&new)));
        // and where nobody has anything, the first is the first
        let mut wave = Wave::default();
        assert_eq!(wave.turn(A, None, &new, now), Turn::Offer(Arc::clone(&new)));
        assert!(matches!(wave.turn(B, None, &new, now), Turn::Wait(Some(_))));
        wave.refuse(A, new.version);
        assert_eq!(wave.turn(B, None, &new, now), Turn::Offer(new));
    }
}
