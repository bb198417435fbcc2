//! Who leads: one of several operators, by a Lease of the API server. The others are warm, and wait.
//!
//! * Nobody's clock is compared with another's: a holder is gone when its lease was not seen to change for [`DURATION`], by
//!   the clock of the one who looks.
//! * Fenced: a leader counts from before it asked, and stops by itself after [`DEADLINE`] without a success. What it had
//!   begun then has [`DURATION`] minus that to end; a call to the API server has five seconds.
//! * Every write has the version of the lease that was read, so of two who want it one gets it.
//! * Told to stop, a leader lets go of the lease, and the next one need not wait.

use std::time::Duration;

use anyhow::{anyhow, bail};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::causes::causes;

/// After this long without a sign of its holder a lease is free.
const DURATION: Duration = Duration::from_secs(12);
/// After this long without a success a leader leads no more.
const DEADLINE: Duration = Duration::from_secs(7);
/// How often a leader gives a sign, and how often others look.
const RENEW: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(1);
/// What a call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Which Lease it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for LeaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(format!("'{text}' is not NAMESPACE/NAME")),
        }
    }
}

/// One who wants to lead.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    election: Election,
}

/// One who leads.
pub(crate) struct Leader {
    candidate: Candidate,
    // Of the request that gave us the lease or renewed it last.
    since: Instant,
}

impl Candidate {
    /// `identity` must be another one for each process.
    pub(crate) fn new(client: Client, lease: &LeaseName, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, &lease.namespace),
            name: lease.name.clone(),
            election: Election::new(identity),
        }
    }

    /// Resolves when this one leads.
    pub(crate) async fn elected(mut self) -> Leader {
        loop {
            let began = Instant::now();
            match timeout(CALL_TIMEOUT, self.try_take()).await {
                Ok(Ok(true)) => {
                    info!(lease = self.name, "leading");
                    return Leader {
                        candidate: self,
                        since: began,
                    };
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    warn!(
                        lease = self.name,
                        error = causes(&error),
                        "cannot ask who leads"
                    );
                }
                Err(_) => warn!(lease = self.name, "asking who leads took too long"),
            }
            sleep(LOOK).await;
        }
    }

    // Returns whether the lease is ours.
    async fn try_take(&mut self) -> kube::Result<bool> {
        let lease = self.api.get_opt(&self.name).await?;
        let Some(wanted) = self.election.bid(lease.as_ref(), Instant::now()) else {
            return Ok(false);
        };
        self.write(lease, wanted).await
    }

    // Returns whether it was written; `false`: somebody else was faster.
    async fn write(&mut self, lease: Option<Lease>, spec: LeaseSpec) -> kube::Result<bool> {
        let params = PostParams::default();
        let wrote = match lease {
            Some(before) => {
                let lease = Lease {
                    metadata: before.metadata,
                    spec: Some(spec),
                };
                self.api.replace(&self.name, &params, &lease).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease {
                    metadata,
                    spec: Some(spec),
                };
                self.api.create(&params, &lease).await
            }
        };
        match wrote {
            Ok(lease) => {
                debug!(
                    lease = self.name,
                    version = lease.resource_version(),
                    "lease written"
                );
                Ok(true)
            }
            Err(kube::Error::Api(refusal))
                if refusal.is_conflict() || refusal.is_already_exists() =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Leader {
    /// Goes on leading. Ends when it may do so no longer, with why: this process must stop whatever it does as the leader.
    pub(crate) async fn lead(&mut self) -> anyhow::Error {
        loop {
            let over = sleep_until(self.since + DEADLINE);
            tokio::select! {
                renewed = self.renewed() => match renewed {
                    Ok(began) => self.since = began,
                    Err(error) => return error,
                },
                () = over => {
                    return anyhow!("the lease could not be renewed for {DEADLINE:?}");
                }
            }
        }
    }

    // Resolves when the lease was renewed; with the moment before that was asked for.
    async fn renewed(&mut self) -> anyhow::Result<Instant> {
        loop {
            sleep(RENEW).await;
            let began = Instant::now();
            match timeout(CALL_TIMEOUT, self.candidate.try_take()).await {
                Ok(Ok(true)) => return Ok(began),
                Ok(Ok(false)) => bail!("another operator leads"),
                Ok(Err(error)) => {
                    warn!(
                        error = causes(&error),
                        "cannot renew the lease, will be tried again"
                    );
                }
                Err(_) => warn!("renewing the lease took too long, will be tried again"),
            }
        }
    }

    /// Lets go of the lease, so that another one need not wait.
    pub(crate) async fn resign(mut self) {
        let resigned = timeout(CALL_TIMEOUT, async {
            let lease = self.candidate.api.get_opt(&self.candidate.name).await?;
            match self.candidate.election.resignation(lease.as_ref()) {
                Some(spec) => self.candidate.write(lease, spec).await,
                None => Ok(true),
            }
        });
        match resigned.await {
            Ok(Ok(_)) => info!("no longer leading"),
            Ok(Err(error)) => warn!(error = causes(&error), "the lease is left to expire"),
            Err(_) => warn!("the lease is left to expire"),
        }
    }
}

// What is known of the lease, and what follows from it. No client and no clock.
#[derive(Debug)]
struct Election {
    identity: String,
    // The holder's last sign, and when it was first seen here.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            seen: None,
        }
    }

    // What the lease should become, with `lease` as it is; `None`: it is another one's.
    fn bid(&mut self, lease: Option<&Lease>, now: Instant) -> Option<LeaseSpec> {
        let spec = lease
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let is_ours = holder == self.identity;
        if !is_ours && !holder.is_empty() {
            let first_seen = match &self.seen {
                Some((seen, at)) if *seen == spec => *at,
                _ => {
                    self.seen = Some((spec, now));
                    return None;
                }
            };
            if now.duration_since(first_seen) < DURATION {
                return None;
            }
        }
        let stamp = MicroTime(Timestamp::now());
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            renew_time: Some(stamp.clone()),
            acquire_time: if is_ours {
                spec.acquire_time
            } else {
                Some(stamp)
            },
            lease_transitions: Some(
                spec.lease_transitions
                    .unwrap_or(0)
                    .saturating_add(i32::from(!is_ours)),
            ),
            ..LeaseSpec::default()
        })
    }

    // What the lease should become when we let go of it; `None`: it is not ours.
    fn resignation(&self, lease: Option<&Lease>) -> Option<LeaseSpec> {
        let spec = lease?.spec.clone()?;
        let is_ours = spec.holder_identity.as_ref() == Some(&self.identity);
        is_ours.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            ..spec
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(spec: LeaseSpec) -> Lease {
        Lease {
            spec: Some(spec),
            ..Lease::default()
        }
    }

    fn holder(spec: &LeaseSpec) -> &str {
        spec.holder_identity.as_deref().unwrap_or_default()
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_and_then_renewed() {
        let (mut a, now) = (Election::new("a"), Instant::now());
        let taken = a.bid(None, now).unwrap();
        assert_eq!((holder(&taken), taken.lease_transitions), ("a", Some(1)));
        let renewed = a.bid(Some(&lease(taken.clone())), now + SECOND).unwrap();
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, taken.acquire_time);
    }

    #[test]
    fn a_holder_that_gives_signs_keeps_the_lease_and_one_that_does_not_loses_it() {
        let (mut a, mut b) = (Election::new("a"), Election::new("b"));
        let start = Instant::now();
        let mut held = a.bid(None, start).unwrap();
        for second in 0..60 {
            let now = start + second * SECOND;
            assert_eq!(b.bid(Some(&lease(held.clone())), now), None, "{second}");
            if second % 10 == 9 {
                // as another moment of the API server
                held.lease_transitions = Some(second as i32);
                held = a.bid(Some(&lease(held)), now).unwrap();
            }
        }
        let last = start + 60 * SECOND;
        assert_eq!(b.bid(Some(&lease(held.clone())), last), None);
        let gone = last + DURATION - SECOND / 2;
        let before = b.bid(Some(&lease(held.clone())), gone);
        let taken = b.bid(Some(&lease(held)), gone + SECOND).unwrap();
        assert_eq!(before, None);
        assert_eq!(holder(&taken), "b");
        assert_eq!(a.bid(Some(&lease(taken)), gone + SECOND), None);
    }

    #[test]
    fn a_lease_that_was_let_go_of_is_free_at_once() {
        let (mut a, mut b, now) = (Election::new("a"), Election::new("b"), Instant::now());
        let held = lease(a.bid(None, now).unwrap());
        assert_eq!(b.bid(Some(&held), now), None);
        assert_eq!(b.resignation(Some(&held)), None);
        let free = lease(a.resignation(Some(&held)).unwrap());
        assert_eq!(holder(&b.bid(Some(&free), now).unwrap()), "b");
    }

    #[test]
    fn a_leader_stops_before_another_one_can_follow() {
        assert!(DEADLINE + CALL_TIMEOUT < DURATION);
    }
}
