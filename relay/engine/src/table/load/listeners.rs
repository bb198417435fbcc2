//! Where lines come in, and what they must be.

use std::collections::BTreeSet;
use std::time::Duration;

use relay_proto as proto;

use super::{Loader, identity, pem};
use crate::name::{Level, NameRules};
use crate::table::{Listener, ListenerTls, Plaintext, Validation};

impl Loader {
    pub(super) fn listeners(&mut self, listeners: &[proto::Listener]) -> Vec<Listener> {
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let mut loaded = Vec::new();
        for listener in listeners {
            // By name: the snapshot has them sorted, the resource as people wrote them.
            let at = |field: &str| format!("listeners[{}].{field}", listener.name);
            if !names.insert(&listener.name) {
                self.unsupported(
                    at("name"),
                    format!("'{}' is there twice: names are unique", listener.name),
                );
            }
            if !ports.insert(listener.port) {
                self.unsupported(
                    at("port"),
                    format!(
                        "{} is there twice: give each listener its own",
                        listener.port
                    ),
                );
            }
            let port = u16::try_from(listener.port).ok().filter(|port| *port > 0);
            if port.is_none() {
                self.unsupported(
                    at("port"),
                    format!("{} is not a port: use 1 to 65535", listener.port),
                );
            }
            if listener.connections_max == 0 {
                self.unsupported(at("maxConnections"), "0 lets nobody in: use at least 1");
            }
            let Some(proto::listener::Protocol::Plaintext(plaintext)) = &listener.protocol else {
                self.unsupported(at("plaintext"), "no protocol is named: set plaintext");
                continue;
            };
            let line_bytes_max = plaintext.line_bytes_max as usize;
            if !(64..=65536).contains(&line_bytes_max) {
                let message = format!("{line_bytes_max} is out of range: use 64 to 65536");
                self.unsupported(at("plaintext.maxLineBytes"), message);
            }
            let idle = Duration::from_millis(plaintext.idle_timeout_ms);
            let tls = listener
                .tls
                .as_ref()
                .and_then(|tls| self.listener_tls(tls, at));
            loaded.push(Listener {
                name: listener.name.as_str().into(),
                port: port.unwrap_or_default(),
                connections_max: listener.connections_max as usize,
                plaintext: Plaintext {
                    line_bytes_max,
                    idle_timeout: (!idle.is_zero()).then_some(idle),
                },
                tls,
            });
        }
        loaded
    }

    // `None` after an error.
    fn listener_tls(
        &mut self,
        tls: &proto::ListenerTls,
        at: impl Fn(&str) -> String,
    ) -> Option<ListenerTls> {
        let Some(shown) = &tls.identity else {
            return self.refuse(at("tls.certificate"), "there is none: name its Secret");
        };
        Some(ListenerTls {
            identity: identity(shown),
            client_ca: pem(&tls.client_ca),
        })
    }

    pub(super) fn validation(&mut self, validation: &proto::Validation) -> Validation {
        use proto::{NotFinite, ValidationLevel};
        let level = match validation.level.try_into() {
            Ok(ValidationLevel::Unspecified | ValidationLevel::Medium) => Level::Medium,
            Ok(ValidationLevel::Strict) => Level::Strict,
            Ok(ValidationLevel::None) => Level::None,
            Err(_) => {
                self.unsupported(
                    "validation.level",
                    "not known to this release: use Strict, Medium or None",
                );
                Level::Medium
            }
        };
        let any_metrics20 = match validation.metrics20_level.try_into() {
            Ok(ValidationLevel::Unspecified | ValidationLevel::Medium) => false,
            Ok(ValidationLevel::None) => true,
            Ok(ValidationLevel::Strict) | Err(_) => {
                self.unsupported(
                    "validation.metrics20Level",
                    "not known to this release: use Medium or None",
                );
                false
            }
        };
        let forwards_not_finite = match validation.not_finite.try_into() {
            Ok(NotFinite::Unspecified | NotFinite::Drop) => false,
            Ok(NotFinite::Forward) => true,
            Err(_) => {
                self.unsupported(
                    "validation.nan",
                    "not known to this release: use Drop or Forward",
                );
                false
            }
        };
        let limit = |ms: u64| (ms > 0).then(|| ms.div_ceil(1000));
        Validation {
            names: NameRules {
                level,
                any_metrics20,
            },
            forwards_not_finite,
            rejects_out_of_order: validation.reject_out_of_order,
            past_max: limit(validation.past_max_ms),
            future_max: limit(validation.future_max_ms),
            normalises_tags: validation.normalise_tags,
        }
    }
}
