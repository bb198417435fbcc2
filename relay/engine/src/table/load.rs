//! Reads a snapshot, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memmem;
use relay_proto::rewrite_rule::Find;
use relay_proto::{self as proto, ObjectRef, Snapshot};

use super::{
    Address, BlocklistEntry, CarbonTls, Destination, Endpoint, Identity, Listener, ListenerTls,
    LoadError, LoadErrorKind, Pem, Plaintext, Queue, Spool, Table, Validation, WhenFull,
};
use crate::aggregate::{PercentileDefinition, Rule, RuleSettings, Rules, UnknownFunction};
use crate::aggregator::{Aggregator, Aggregators, FUNCTION};
use crate::expression::Finder;
use crate::name::{Level, NameRules};
use crate::outbox::DestinationIndex;
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use crate::rewrite::{self, Replace};
use crate::ring::{self, HashKey, Ring};
use crate::route::{Distribution, Route, Routes, Target};
use crate::template::Template;

static NO_CONDITION: proto::Match = proto::Match {
    prefix: String::new(),
    not_prefix: String::new(),
    contains: String::new(),
    not_contains: String::new(),
    regex: String::new(),
    not_regex: String::new(),
    suffix: String::new(),
    glob: String::new(),
    tags: Vec::new(),
};

const SPOOL_BYTES_MIN: u64 = 1 << 20;
const SYNC_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const RESEND_BYTES_MAX: u64 = 256 << 20;

// 0 is the table that holds nothing.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

// As good as no validation in the snapshot.
static UNSPECIFIED: proto::Validation = proto::Validation {
    level: 0,
    metrics20_level: 0,
    not_finite: 0,
    reject_out_of_order: false,
    past_max_ms: 0,
    future_max_ms: 0,
    normalise_tags: false,
};

pub(super) fn load(snapshot: &Snapshot) -> Result<Table, Vec<LoadError>> {
    let mut loader = Loader::default();
    let table = loader.table(snapshot);
    if loader.errors.is_empty() {
        Ok(table)
    } else {
        Err(loader.errors)
    }
}

/// Collects errors, so that all of a snapshot's are reported at once.
#[derive(Default)]
struct Loader {
    errors: Vec<LoadError>,
    source: ObjectRef,
}

impl Loader {
    fn table(&mut self, snapshot: &Snapshot) -> Table {
        self.source = snapshot.relay.clone().unwrap_or_default();
        if snapshot.schema == 0 || snapshot.schema > proto::SCHEMA {
            let message = format!(
                "this release reads snapshots of schema 1 to {}, not {}: run the same release of operator and relay",
                proto::SCHEMA,
                snapshot.schema
            );
            self.unsupported("schema", message);
            return Table::default();
        }
        let listeners = self.listeners(&snapshot.listeners);
        let drain_timeout = Duration::from_millis(snapshot.drain_timeout_ms);
        let validation = snapshot.validation.as_ref().unwrap_or(&UNSPECIFIED);
        let validation = self.validation(validation);
        let (mut entries, mut blocked) = (Vec::new(), Vec::new());
        for blocklist in &snapshot.blocklists {
            for (index, pattern) in self.blocklist(blocklist).into_iter().enumerate() {
                let object = path(&self.source);
                entries.push(BlocklistEntry { object, index });
                blocked.push(pattern);
            }
        }
        let (destinations, indexes) = self.destinations(&snapshot.destinations);
        let rewriters = self.rewriters(&snapshot.rewriters);
        let aggregators = self.aggregators(&snapshot.aggregators);
        let routes = self.routes(&snapshot.routes, &indexes, &destinations);
        Table {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            listeners,
            drain_timeout,
            destinations,
            validation,
            blocklist: PatternSet::new(blocked),
            blocklist_entries: entries,
            rewriters,
            aggregators,
            routes,
        }
    }

    fn listeners(&mut self, listeners: &[proto::Listener]) -> Vec<Listener> {
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
        let Some(identity) = &tls.identity else {
            return self.refuse(at("tls.certificate"), "there is none: name its Secret");
        };
        Some(ListenerTls {
            identity: self::identity(identity),
            client_ca: pem(&tls.client_ca),
        })
    }

    fn validation(&mut self, validation: &proto::Validation) -> Validation {
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

    fn rewriters(&mut self, rewriters: &[proto::Rewriter]) -> Vec<rewrite::Rule> {
        let mut loaded = Vec::new();
        for rewriter in rewriters {
            self.source = rewriter.source.clone().unwrap_or_default();
            let object: Arc<str> = path(&self.source);
            let mut names = BTreeSet::new();
            for (index, rule) in rewriter.rules.iter().enumerate() {
                let at = |field: &str| format!("rules[{index}].{field}");
                if !names.insert(&rule.name) {
                    let message = format!("'{}' is there twice: names are unique", rule.name);
                    self.unsupported(at("name"), message);
                }
                let unless = rule
                    .unless
                    .as_ref()
                    .filter(|unless| **unless != NO_CONDITION);
                let unless = unless.map(|unless| self.pattern(&at("unless"), Some(unless)));
                if let Some(replace) = self.replace(rule, at) {
                    loaded.push(rewrite::Rule {
                        object: Arc::clone(&object),
                        index,
                        name: rule.name.as_str().into(),
                        replace,
                        unless,
                    });
                }
            }
        }
        loaded
    }

    // `None` after an error.
    fn replace(
        &mut self,
        rule: &proto::RewriteRule,
        at: impl Fn(&str) -> String,
    ) -> Option<Replace> {
        match &rule.find {
            Some(Find::Literal(literal)) if !literal.is_empty() => Some(Replace::Literal {
                find: Box::new(memmem::Finder::new(literal).into_owned()),
                with: rule.with.as_bytes().into(),
                max: match rule.max {
                    0 => usize::MAX,
                    max => max as usize,
                },
            }),
            Some(Find::Regex(regex)) if !regex.is_empty() => {
                if rule.max > 0 {
                    let message = "a regex is replaced wherever it matches: leave max out";
                    self.unsupported(at("max"), message);
                }
                let find = match Finder::new(regex) {
                    Ok(find) => find,
                    Err(message) => return self.invalid_pattern(at("regex"), message),
                };
                match Template::parse(&rule.with, &find, None) {
                    Ok(with) => Some(Replace::Regex { find, with }),
                    Err(message) => self.invalid_pattern(at("with"), message),
                }
            }
            Some(Find::Literal(_)) => {
                self.refuse(at("literal"), "it is empty: name what is replaced")
            }
            Some(Find::Regex(_)) => self.refuse(at("regex"), "it is empty: name what is replaced"),
            None => self.refuse(
                at("literal"),
                "nothing is to be replaced: set literal or regex",
            ),
        }
    }

    fn aggregators(&mut self, aggregators: &[proto::Aggregator]) -> Aggregators {
        let (mut list, mut patterns, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for aggregator in aggregators {
            self.source = aggregator.source.clone().unwrap_or_default();
            let conditions = aggregator.r#match.as_ref().unwrap_or(&NO_CONDITION);
            let pattern = self.pattern("match", Some(conditions));
            let selected = self.aggregator(aggregator, &conditions.regex);
            let rule = self.rule(aggregator);
            if let (Some(selected), Some(rule)) = (selected, rule) {
                list.push(selected);
                patterns.push(pattern);
                rules.push(rule);
            }
        }
        let rules = Rules::try_new(rules).unwrap_or_else(|error| {
            self.unsupported("metadata.name", error.to_string());
            Rules::default()
        });
        Aggregators::new(list, PatternSet::new(patterns), rules)
    }

    // `None` after an error.
    fn aggregator(&mut self, aggregator: &proto::Aggregator, regex: &str) -> Option<Aggregator> {
        if regex.is_empty() {
            let message = "there is none: set one, its groups name the output";
            return self.refuse("match.regex", message);
        }
        // If it does not compile, that was said of the match.
        let regex = Finder::new(regex).ok()?;
        if regex
            .names()
            .iter()
            .flatten()
            .any(|name| **name == *FUNCTION)
        {
            let message = "${function} stands for the function's name: call the group otherwise";
            return self.invalid_pattern("match.regex", message);
        }
        if aggregator.output.is_empty() {
            return self.refuse("output", "it is empty: name the series that is made");
        }
        match Template::parse(&aggregator.output, &regex, Some(FUNCTION)) {
            Ok(output) => Some(Aggregator {
                object: path(&self.source),
                regex,
                output,
                drop_raw: aggregator.drop_raw,
            }),
            Err(message) => self.invalid_pattern("output", message),
        }
    }

    // `None` after an error.
    fn rule(&mut self, aggregator: &proto::Aggregator) -> Option<Rule> {
        let mut functions = Vec::with_capacity(aggregator.functions.len());
        for (index, text) in aggregator.functions.iter().enumerate() {
            match text.parse() {
                Ok(function) => functions.push(function),
                Err(error) => {
                    let error: UnknownFunction = error;
                    return self.refuse(format!("functions[{index}]"), error.to_string());
                }
            }
        }
        let definition = &aggregator.percentile_definition;
        let Some(percentile_definition) = percentile_definition(definition) else {
            return self.refuse(
                "percentileDefinition",
                format!("'{definition}' is not a definition: use R6, R7 or NearestRank"),
            );
        };
        let rule = Rule::try_new(RuleSettings {
            id: aggregator.id.as_str().into(),
            functions,
            percentile_definition,
            interval: Duration::from_millis(aggregator.interval_ms),
            wait: Duration::from_millis(aggregator.wait_ms),
        });
        match rule {
            Ok(rule) => Some(rule),
            Err(error) => self.refuse(error.field(), error.to_string()),
        }
    }

    fn blocklist(&mut self, blocklist: &proto::Blocklist) -> Vec<Pattern> {
        self.source = blocklist.source.clone().unwrap_or_default();
        let mut entries = Vec::with_capacity(blocklist.entries.len());
        for (index, entry) in blocklist.entries.iter().enumerate() {
            let field = format!("entries[{index}]");
            let pattern = self.pattern(&field, Some(entry));
            let is_set = entry != &proto::Match::default();
            if !is_set {
                self.unsupported(
                    field,
                    "no condition is set, which would drop every line: set at least one",
                );
            }
            entries.push(pattern);
        }
        entries
    }

    fn destinations<'a>(
        &mut self,
        destinations: &'a [proto::Destination],
    ) -> (Vec<Destination>, BTreeMap<Key<'a>, DestinationIndex>) {
        let mut loaded: Vec<Destination> = Vec::with_capacity(destinations.len());
        let mut indexes = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (index, destination) in destinations.iter().enumerate() {
            self.source = destination.source.clone().unwrap_or_default();
            let key = destination.source.as_ref().map(Key::of).unwrap_or_default();
            let is_new = indexes
                .insert(key, DestinationIndex(index as u32))
                .is_none();
            if !is_new || !ids.insert(&destination.id) {
                self.unsupported(
                    "metadata.name",
                    "the destination is there twice: names and ids are unique",
                );
            }
            let queue = self.queue(destination.queue.as_ref());
            let endpoint = self.endpoint(destination.endpoint.as_ref());
            loaded.push(Destination {
                id: destination.id.as_str().into(),
                name: format!("{}/{}", self.source.namespace, self.source.name).into(),
                endpoint,
                queue,
                spool: self.spool(destination, queue.when_full),
                resend_bytes_max: self.resend(destination.resend_bytes_max),
                connection_age_max: connection_age_max(destination.endpoint.as_ref()),
            });
        }
        (loaded, indexes)
    }

    fn queue(&mut self, queue: Option<&proto::Queue>) -> Queue {
        let bytes_max = queue.map_or(0, |queue| queue.bytes_max);
        if bytes_max < 65536 {
            self.unsupported(
                "queue.maxBytes",
                format!("{bytes_max} bytes are too few: use at least 64Ki"),
            );
        }
        let when_full = match queue.map(proto::Queue::when_full) {
            Some(proto::WhenFull::DropNewest) => WhenFull::DropNewest,
            Some(proto::WhenFull::Block) => WhenFull::Block,
            Some(proto::WhenFull::Spool) => WhenFull::Spool,
            Some(proto::WhenFull::DropOldest) => WhenFull::DropOldest,
            Some(proto::WhenFull::Unspecified) | None => {
                self.unsupported(
                    "queue.whenFull",
                    "not known to this release: use Spool, DropNewest, DropOldest or Block",
                );
                WhenFull::DropNewest
            }
        };
        Queue {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            when_full,
        }
    }

    fn spool(&mut self, destination: &proto::Destination, when_full: WhenFull) -> Option<Spool> {
        if when_full != WhenFull::Spool {
            return None;
        }
        let spool = destination.spool.unwrap_or_default();
        if spool.bytes_max < SPOOL_BYTES_MIN {
            let message = format!("{} bytes are too few: use at least 1Mi", spool.bytes_max);
            self.unsupported("spool.maxBytes", message);
        }
        let sync_interval = Duration::from_millis(spool.sync_interval_ms);
        if !SYNC_INTERVALS.contains(&sync_interval) {
            let message = format!("{sync_interval:?} is out of range: use 10ms to 1m");
            self.unsupported("spool.sync.interval", message);
        }
        let age_max = Duration::from_millis(spool.age_max_ms);
        let per_second = spool.replay_lines_per_second;
        Some(Spool {
            bytes_max: spool.bytes_max,
            age_max: (!age_max.is_zero()).then_some(age_max),
            replay_lines_per_second: (per_second > 0).then_some(per_second),
            sync_interval,
        })
    }

    fn resend(&mut self, bytes_max: u64) -> usize {
        if bytes_max > RESEND_BYTES_MAX {
            let message = format!("{bytes_max} bytes are too many: use at most 256Mi");
            self.unsupported("resend.maxBytes", message);
        }
        bytes_max.min(RESEND_BYTES_MAX) as usize
    }

    fn endpoint(&mut self, endpoint: Option<&proto::destination::Endpoint>) -> Endpoint {
        match endpoint {
            Some(proto::destination::Endpoint::Carbon(carbon)) => {
                let address = self.address(&carbon.address);
                Endpoint::Carbon {
                    connect_timeout: self
                        .timeout("carbon.connectTimeout", carbon.connect_timeout_ms),
                    write_timeout: self.timeout("carbon.writeTimeout", carbon.write_timeout_ms),
                    tls: carbon.tls.as_ref().map(|tls| carbon_tls(tls, &address)),
                    address,
                }
            }
            Some(proto::destination::Endpoint::File(file)) => {
                let path = PathBuf::from(&file.path);
                if !path.is_absolute() {
                    let message =
                        format!("'{}' is not an absolute path: begin it with /", file.path);
                    self.unsupported("file.path", message);
                }
                Endpoint::File { path }
            }
            None => {
                self.unsupported(
                    "spec",
                    "no endpoint that this release knows: set carbon or file",
                );
                Endpoint::File {
                    path: PathBuf::new(),
                }
            }
        }
    }

    fn address(&mut self, text: &str) -> Address {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let bracketed = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            let host = match bracketed {
                Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok().map(|_| v6)?,
                None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => return None,
                None => host,
            };
            let port = port.parse().ok().filter(|port| *port > 0)?;
            Some(Address {
                host: host.to_owned(),
                port,
            })
        });
        parsed.unwrap_or_else(|| {
            let message = format!("'{text}' is not an address: write host:port or [v6]:port");
            self.unsupported("carbon.address", message);
            Address {
                host: String::new(),
                port: 0,
            }
        })
    }

    fn timeout(&mut self, field: &str, ms: u64) -> Duration {
        if ms == 0 {
            self.unsupported(field, "0s leaves no time at all: use 1ms or more");
        }
        Duration::from_millis(ms)
    }

    fn routes(
        &mut self,
        routes: &[proto::Route],
        indexes: &BTreeMap<Key<'_>, DestinationIndex>,
        destinations: &[Destination],
    ) -> Routes {
        let (mut first, mut unmatched_only) = (Vec::new(), Vec::new());
        for route in routes {
            self.source = route.source.clone().unwrap_or_default();
            let pattern = self.pattern("match", route.r#match.as_ref());
            if route.targets.is_empty() {
                self.unsupported(
                    "destinations",
                    "the route goes nowhere: name at least one destination",
                );
            }
            let targets = self.targets(&route.targets, indexes);
            let distribution = self.distribution(route, &targets, destinations);
            let list = if route.unmatched_only {
                &mut unmatched_only
            } else {
                &mut first
            };
            list.push((
                pattern,
                Route {
                    object: path(&self.source),
                    stop: route.stop,
                    distribution,
                    targets,
                },
            ));
        }
        Routes::new(first, unmatched_only)
    }

    fn distribution(
        &mut self,
        route: &proto::Route,
        targets: &[Target],
        destinations: &[Destination],
    ) -> Distribution {
        match route.distribution() {
            proto::Distribution::All => Distribution::All,
            proto::Distribution::FirstMatch => Distribution::FirstMatch,
            proto::Distribution::RoundRobin => Distribution::RoundRobin,
            proto::Distribution::Failover => Distribution::Failover,
            proto::Distribution::ConsistentHash => self
                .consistent_hash(route, targets, destinations)
                .unwrap_or(Distribution::All),
            proto::Distribution::Unspecified => {
                let known = "All, FirstMatch, RoundRobin, Failover or ConsistentHash";
                self.unsupported(
                    "distribution",
                    format!("not known to this release: use {known}"),
                );
                Distribution::All
            }
        }
    }

    // `None` after an error.
    fn consistent_hash(
        &mut self,
        route: &proto::Route,
        targets: &[Target],
        destinations: &[Destination],
    ) -> Option<Distribution> {
        if targets.is_empty() || targets.len() < route.targets.len() {
            // Said already; without its members there is no ring.
            return None;
        }
        let spec = route.consistent_hash.clone().unwrap_or_default();
        let algorithm = match spec.algorithm.parse::<ring::Algorithm>() {
            Ok(algorithm) => algorithm,
            Err(error) => return self.refuse("consistentHash.algorithm", error.to_string()),
        };
        let hash_key = match hash_key(&spec.hash_key, algorithm) {
            Some(hash_key) => hash_key,
            None => return self.refuse("consistentHash.hashKey", "use Series, Name or Normalised"),
        };
        let Some(replication_factor) = NonZeroU32::new(spec.replication_factor) else {
            return self.refuse("consistentHash.replicationFactor", "use 1 or more");
        };
        let mut members = Vec::with_capacity(targets.len());
        for (index, (target, message)) in targets.iter().zip(&route.targets).enumerate() {
            if message.r#match.is_some() {
                let field = format!("destinations[{index}].match");
                return self.refuse(
                    field,
                    "the series alone decides with ConsistentHash: leave it out",
                );
            }
            let Endpoint::Carbon { address, .. } = &destinations[target.destination.get()].endpoint
            else {
                let field = format!("destinations[{index}].name");
                return self.refuse(
                    field,
                    "a member of ConsistentHash needs a host: use a carbon destination",
                );
            };
            let instance = Some(message.instance.as_str()).filter(|text| !text.is_empty());
            members.push(ring::Member {
                host: &address.host,
                port: address.port,
                instance,
            });
        }
        let diverse_replicas = spec.diverse_replicas;
        let config = ring::Config {
            algorithm,
            replication_factor,
            diverse_replicas,
        };
        match Ring::new(config, &members) {
            Ok(ring) => Some(Distribution::ConsistentHash(ring, hash_key)),
            Err(error) => self.refuse(error.field(), error.to_string()),
        }
    }

    fn invalid_pattern<T>(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Option<T> {
        self.error(field.into(), LoadErrorKind::InvalidPattern, message.into());
        None
    }

    fn refuse<T>(&mut self, field: impl Into<String>, message: impl Into<String>) -> Option<T> {
        self.unsupported(field, message);
        None
    }

    fn targets(
        &mut self,
        targets: &[proto::Target],
        indexes: &BTreeMap<Key<'_>, DestinationIndex>,
    ) -> Vec<Target> {
        let mut loaded = Vec::with_capacity(targets.len());
        for (index, target) in targets.iter().enumerate() {
            let at = format!("destinations[{index}]");
            let pattern = self.pattern(&format!("{at}.match"), target.r#match.as_ref());
            let named = target.destination.clone().unwrap_or_default();
            match indexes.get(&Key::of(&named)) {
                Some(destination) => loaded.push(Target {
                    destination: *destination,
                    pattern,
                }),
                None => self.unsupported(
                    format!("{at}.name"),
                    format!("{named} is not in the snapshot"),
                ),
            }
        }
        loaded
    }

    fn pattern(&mut self, field: &str, conditions: Option<&proto::Match>) -> Pattern {
        let Some(conditions) = conditions else {
            return Pattern::default();
        };
        Pattern::compile(conditions).unwrap_or_else(|error| {
            let field = format!("{field}.{}", error.field);
            self.error(field, LoadErrorKind::InvalidPattern, error.message);
            Pattern::default()
        })
    }

    fn unsupported(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.error(
            field.into(),
            LoadErrorKind::UnsupportedValue,
            message.into(),
        );
    }

    fn error(&mut self, field: String, kind: LoadErrorKind, message: String) {
        self.errors.push(LoadError {
            object: self.source.clone(),
            field,
            kind,
            message,
        });
    }
}

// Of what has connections.
fn connection_age_max(endpoint: Option<&proto::destination::Endpoint>) -> Option<Duration> {
    match endpoint? {
        proto::destination::Endpoint::Carbon(carbon) => match carbon.connection_age_max_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        },
        proto::destination::Endpoint::File(_) => None,
    }
}

fn carbon_tls(tls: &proto::CarbonTls, address: &Address) -> CarbonTls {
    CarbonTls {
        ca: pem(&tls.ca),
        identity: tls.identity.as_ref().map(identity),
        server_name: match tls.server_name.as_str() {
            "" => address.host.clone(),
            name => name.to_owned(),
        },
    }
}

fn identity(identity: &proto::Identity) -> Identity {
    Identity {
        certificate: identity.certificate.as_slice().into(),
        key: identity.key.as_slice().into(),
    }
}

// Empty is none.
fn pem(text: &[u8]) -> Option<Pem> {
    (!text.is_empty()).then(|| text.into())
}

fn path(object: &ObjectRef) -> Arc<str> {
    format!("{}/{}", object.namespace, object.name).into()
}

fn percentile_definition(text: &str) -> Option<PercentileDefinition> {
    match text {
        "" | "R6" => Some(PercentileDefinition::R6),
        "R7" => Some(PercentileDefinition::R7),
        "NearestRank" => Some(PercentileDefinition::NearestRank),
        _ => None,
    }
}

// What a route hashes; by default what the relay hashes whose algorithm it is.
fn hash_key(text: &str, algorithm: ring::Algorithm) -> Option<HashKey> {
    if !text.is_empty() {
        return HashKey::ALL.into_iter().find(|key| key.as_str() == text);
    }
    Some(match algorithm {
        ring::Algorithm::CarbonCRelay
        | ring::Algorithm::Fnv1aCRelay
        | ring::Algorithm::JumpFnv1a => HashKey::Name,
        ring::Algorithm::Carbon
        | ring::Algorithm::CarbonRelayNg
        | ring::Algorithm::CarbonRelayNgV2
        | ring::Algorithm::Fnv1aCarbon
        | ring::Algorithm::Rendezvous => HashKey::Series,
    })
}

// What tells one destination from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Key<'a> {
    fn of(object: &'a ObjectRef) -> Self {
        Self {
            namespace: &object.namespace,
            name: &object.name,
        }
    }
}
