//! Why a relay may believe this operator, and this operator a relay.
//!
//! ```text
//! Secret (authority) ─▶ authority: made, rotated ─┬▶ ConfigMap carbonway-ca in the namespace of each Relay ─▶ relays
//!                                                 └▶ certificate: for our names, renewed ─▶ accept: each handshake
//! relay's token ─▶ tokens: TokenReview ─▶ is it the pod that it says, and of that fleet?
//! ```
//!
//! Nothing of it needs a restart: a handshake takes the certificate of the moment, and a relay reads its CA and its token
//! anew for every connection.

mod accept;
mod authority;
mod keeper;
mod tokens;

pub(crate) use accept::{Certificate, incoming};
pub(crate) use keeper::{Keeper, Source};
pub(crate) use tokens::{AUDIENCE, Gate, Refusal};
