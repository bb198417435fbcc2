//! Condition types and reasons: public API, as enums so that no text is spelt twice.

use std::fmt;

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object is valid and attached to a Relay.
    Accepted,
    /// What the object refers to exists.
    ResolvedRefs,
    /// Every relay pod concerned runs this generation.
    Programmed,
    /// The summary: all of the above.
    Ready,
    /// Needs a person; present only while true.
    Stalled,
    /// The operator or a relay is still at work on it; present only while true.
    Reconciling,
    /// No line can reach it, because another object takes them all; present only while true.
    Shadowed,
    /// A part of it has no effect; present only while true.
    PartiallyInvalid,
    /// A Destination does not take all its lines from every relay pod, or a Relay does not have all its pods as it says; present
    /// only while true.
    Degraded,
}

impl ConditionType {
    /// The text in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Stalled => "Stalled",
            Self::Reconciling => "Reconciling",
            Self::Shadowed => "Shadowed",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::Degraded => "Degraded",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `Accepted` holds.
    Accepted,
    /// `ResolvedRefs` holds.
    ResolvedRefs,
    /// `Programmed` holds.
    Programmed,
    /// `Ready` holds.
    Ready,
    /// A pattern does not compile or is too large.
    InvalidPattern,
    /// A field has a value that cannot be used.
    UnsupportedValue,
    /// It claims what another object has already.
    Conflicted,
    /// No Relay is named or labelled as the default, or the one named does not exist.
    NoMatchingRelay,
    /// It names a Relay of another namespace that does not exist or does not allow this one.
    NotAllowedByRelay,
    /// It refers to a Relay that is not valid.
    RelayNotAccepted,
    /// It refers to a Destination that does not exist.
    DestinationNotFound,
    /// It refers to a Destination of another namespace that does not exist or does not allow this one.
    RefNotPermitted,
    /// It refers to a Destination that is not valid, or lacks what it refers to itself.
    DestinationNotAccepted,
    /// It refers to a Secret that does not exist, or that the operator may not read.
    SecretNotFound,
    /// It refers to a Secret that lacks what is needed of it, or whose certificate or key cannot be used.
    InvalidSecret,
    /// It refers to a Service that does not exist, or that the operator may not read.
    ServiceNotFound,
    /// It refers to a Service that does not have the port, or more endpoints than are used.
    InvalidService,
    /// Nothing refers to it, so there is nothing to run.
    NotReferenced,
    /// Some relay pods have yet to answer.
    Pending,
    /// A relay pod refused the snapshot because of it.
    Rejected,
    /// A relay pod cannot read what this release of the operator writes.
    SchemaUnsupported,
    /// There are no relay pods.
    NoRelays,
    /// Another object takes every line that this one could.
    Shadowed,
    /// A Destination of a Route with ConsistentHash owns no series.
    IdleDestination,
    /// Relay pods drop lines for a Destination.
    Dropping,
    /// Relay pods cannot connect to a Destination, or to the broker of a listener.
    NotConnected,
    /// Relay pods have more for a Destination than it takes.
    Slow,
    /// Lines for a Destination have waited on disk for a while.
    Spooling,
    /// Pods of a Relay, or what belongs to them, cannot be made as it says.
    FleetNotApplied,
    /// Pods of a Relay are about to go, and hand over what they hold.
    Draining,
    /// A Relay's newest snapshot is not published yet, because most of its Routes are gone.
    Held,
}

impl Reason {
    /// The text in `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::InvalidPattern => "InvalidPattern",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::Conflicted => "Conflicted",
            Self::NoMatchingRelay => "NoMatchingRelay",
            Self::NotAllowedByRelay => "NotAllowedByRelay",
            Self::RelayNotAccepted => "RelayNotAccepted",
            Self::DestinationNotFound => "DestinationNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::DestinationNotAccepted => "DestinationNotAccepted",
            Self::SecretNotFound => "SecretNotFound",
            Self::InvalidSecret => "InvalidSecret",
            Self::ServiceNotFound => "ServiceNotFound",
            Self::InvalidService => "InvalidService",
            Self::NotReferenced => "NotReferenced",
            Self::Pending => "Pending",
            Self::Rejected => "Rejected",
            Self::SchemaUnsupported => "SchemaUnsupported",
            Self::NoRelays => "NoRelays",
            Self::Shadowed => "Shadowed",
            Self::IdleDestination => "IdleDestination",
            Self::Dropping => "Dropping",
            Self::NotConnected => "NotConnected",
            Self::Slow => "Slow",
            Self::Spooling => "Spooling",
            Self::FleetNotApplied => "FleetNotApplied",
            Self::Draining => "Draining",
            Self::Held => "Held",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
