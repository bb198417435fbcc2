//! Whether a peer is the relay pod that it says it is: its service-account token, asked of the API server, and bound to the
//! pod and the fleet of its hello.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::RELAY_LABEL;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use relay_proto::Version;
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::warn;

use crate::causes::causes;
use crate::metrics::Metrics;
use crate::roster::RelayPod;
use crate::watch::Stores;

/// Whom a relay's token must be for.
pub(crate) const AUDIENCE: &str = "carbonway-operator";

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How long an answer counts.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Answers that are remembered.
const ANSWERS_MAX: usize = 16_384;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Lets relays in.
pub(crate) struct Gate {
    reviews: Api<TokenReview>,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
    // By the digest of the token.
    answers: Mutex<BTreeMap<Version, (Instant, Bearer)>>,
}

/// Who has a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bearer {
    namespace: String,
    pod: String,
    pod_uid: String,
}

/// Why a peer is not let in; the metric's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoToken,
    NotAuthenticated,
    NoPod,
    OtherPod,
    OtherFleet,
    NotAsked,
}

impl Refusal {
    pub(crate) const ALL: [Self; 6] = [
        Self::NoToken,
        Self::NotAuthenticated,
        Self::NoPod,
        Self::OtherPod,
        Self::OtherFleet,
        Self::NotAsked,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotAuthenticated => "not_authenticated",
            Self::NoPod => "no_pod",
            Self::OtherPod => "other_pod",
            Self::OtherFleet => "other_fleet",
            Self::NotAsked => "not_asked",
        }
    }

    fn status(self) -> Status {
        let (code, message) = match self {
            Self::NoToken => (
                Code::Unauthenticated,
                "there is no token: send one as 'authorization: Bearer …'",
            ),
            Self::NotAuthenticated => (
                Code::Unauthenticated,
                "the API server does not know the token, or it is for another audience than carbonway-operator",
            ),
            Self::NoPod => (
                Code::PermissionDenied,
                "the token is not bound to a pod: project it into the relay's pod",
            ),
            Self::OtherPod => (Code::PermissionDenied, "the token is another pod's"),
            Self::OtherFleet => (
                Code::PermissionDenied,
                "the pod is not one of this Relay: it is of another namespace, or lacks the Relay's label",
            ),
            Self::NotAsked => (
                Code::Unavailable,
                "the API server cannot be asked about the token: come again",
            ),
        };
        Status::new(code, message)
    }
}

impl Gate {
    pub(crate) fn new(client: Client, stores: Arc<Stores>, metrics: Arc<Metrics>) -> Self {
        Self {
            reviews: Api::all(client),
            stores,
            metrics,
            answers: Mutex::default(),
        }
    }

    /// Lets a relay in that says it is `pod`, with what it sent along.
    ///
    /// # Errors
    /// Why not, for the relay.
    pub(crate) async fn admit(&self, sent: &MetadataMap, pod: &RelayPod) -> Result<(), Status> {
        let admitted = match self.bearer(sent).await {
            Ok(bearer) => self.check(&bearer, pod),
            Err(refusal) => Err(refusal),
        };
        admitted.map_err(|refusal| {
            self.metrics.refused(refusal.as_str());
            refusal.status()
        })
    }

    fn check(&self, bearer: &Bearer, pod: &RelayPod) -> Result<(), Refusal> {
        if bearer.pod.is_empty() || bearer.pod_uid.is_empty() {
            return Err(Refusal::NoPod);
        }
        if bearer.pod != pod.name {
            return Err(Refusal::OtherPod);
        }
        let pods = self.stores.pods.all();
        let is_of_fleet = pods.iter().any(|object| {
            object.uid().as_ref() == Some(&bearer.pod_uid)
                && object.name_any() == bearer.pod
                && object.namespace().as_ref() == Some(&pod.fleet.namespace)
                && object.labels().get(RELAY_LABEL) == Some(&pod.fleet.name)
        });
        match is_of_fleet && bearer.namespace == pod.fleet.namespace {
            true => Ok(()),
            false => Err(Refusal::OtherFleet),
        }
    }

    async fn bearer(&self, sent: &MetadataMap) -> Result<Bearer, Refusal> {
        let token = sent
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX)
            .ok_or(Refusal::NoToken)?;
        let digest = Version::of(token.as_bytes());
        if let Some(bearer) = self.remembered(&digest) {
            return Ok(bearer);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let reviewed = timeout(CALL_TIMEOUT, self.reviews.create(&params, &review)).await;
        let review = match reviewed {
            Ok(Ok(review)) => review,
            Ok(Err(error)) => {
                warn!(error = causes(&error), "cannot ask about a token");
                return Err(Refusal::NotAsked);
            }
            Err(_) => return Err(Refusal::NotAsked),
        };
        let bearer = Bearer::of(&review).ok_or(Refusal::NotAuthenticated)?;
        self.remember(digest, bearer.clone());
        Ok(bearer)
    }

    fn remembered(&self, digest: &Version) -> Option<Bearer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, bearer) = answers.get(digest)?;
        (at.elapsed() < REMEMBERED).then(|| bearer.clone())
    }

    fn remember(&self, digest: Version, bearer: Bearer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if answers.len() < ANSWERS_MAX {
            answers.insert(digest, (Instant::now(), bearer));
        }
    }
}

impl Bearer {
    // `None`: the API server does not vouch for it.
    fn of(review: &TokenReview) -> Option<Self> {
        let status = review.status.as_ref()?;
        let is_for_us = status
            .audiences
            .iter()
            .flatten()
            .any(|audience| audience == AUDIENCE);
        if status.authenticated != Some(true) || !is_for_us {
            return None;
        }
        let user = status.user.as_ref()?;
        let account = user.username.as_deref()?;
        let (namespace, _) = account
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        let extra = |key: &str| {
            let values = user.extra.as_ref().and_then(|extra| extra.get(key));
            // Exactly one, or it says nothing.
            match values.map(Vec::as_slice) {
                Some([value]) => value.clone(),
                _ => String::new(),
            }
        };
        Some(Self {
            namespace: namespace.to_owned(),
            pod: extra(POD_NAME),
            pod_uid: extra(POD_UID),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bearer(status: serde_json::Value) -> Option<Bearer> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {},
            "status": status,
        });
        Bearer::of(&serde_json::from_value(review).unwrap())
    }

    #[test]
    fn only_what_the_api_server_vouches_for_counts() {
        let user = json!({
            "username": "system:serviceaccount:metrics:relay",
            "extra": {POD_NAME: ["edge-0"], POD_UID: ["u-1"]},
        });
        let good = json!({"authenticated": true, "audiences": [AUDIENCE], "user": user});
        let expected = Bearer {
            namespace: "metrics".into(),
            pod: "edge-0".into(),
            pod_uid: "u-1".into(),
        };
        assert_eq!(bearer(good.clone()), Some(expected));
        for (key, value) in [
            ("authenticated", json!(false)),
            ("audiences", json!(["https://kubernetes.default.svc"])),
            ("audiences", json!([])),
            ("user", json!({"username": "admin"})),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert_eq!(bearer(bad), None, "{key}");
        }
        let mut several = good;
        several["user"]["extra"][POD_NAME] = json!(["edge-0", "edge-1"]);
        assert_eq!(bearer(several).unwrap().pod, "");
    }
}
