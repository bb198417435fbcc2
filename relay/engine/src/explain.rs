//! The way of one line, told: which rule did what, and why the others did nothing.
//!
//! Nothing is cached and no automaton is asked here: every rule is looked at by itself, so this is also a check on the fast
//! way, which must come to the same end.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::aggregate::{Aggregate, Rule, Statistic};
use crate::line::{Line, Point, Timestamp};
use crate::pattern::Pattern;
use crate::ring::Position;
use crate::route::{Distribution, Fanout, Route};
use crate::{LaneIndex, Moment, Reason, Table};

/// Rules of a stage that did nothing, which are told one by one; with more, the rest is only counted.
const IDLE_RULES_MAX: usize = 100;

/// The way of one line. Displays as a line for each step, `*` before those that did something, and the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The name that it goes on with, if it came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// The aggregators that match.
    pub aggregates: Vec<AggregateStep>,
    /// The routes that take it.
    pub routes: Vec<RouteStep>,
    /// The destinations that get it, each once, as `namespace/name`.
    pub destinations: Vec<String>,
}

/// How a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// At least one destination gets it.
    Forwarded,
    /// It goes into an aggregate and no further.
    Absorbed,
    /// It is dropped, and counted under a reason.
    Dropped,
}

/// What one stage, or one rule of it, did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// parse, validate, blocklist, rewrite, aggregate or route.
    pub stage: &'static str,
    /// The rule, as `namespace/name` and its place in the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whether it did something to the line.
    pub applies: bool,
    /// What it did, or why nothing.
    pub text: String,
}

/// An aggregator that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregateStep {
    /// As `namespace/name`.
    pub aggregator: String,
    /// The series that it makes.
    pub outputs: Vec<String>,
    /// The first second of the bucket, since 1970.
    pub bucket: u32,
    /// When it is sent, in seconds since 1970.
    pub due: u64,
    /// Whether the line goes no further.
    pub drop_raw: bool,
}

/// A route that takes the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteStep {
    /// As `namespace/name`.
    pub route: String,
    /// Those that get it from this route, as `namespace/name`. With RoundRobin those whose turn it may be.
    pub destinations: Vec<String>,
    /// Where a ConsistentHash falls: the hash of the key and what it met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

struct Teller<'a> {
    table: &'a Table,
    moment: Moment<'a>,
    told: Explanation,
    // Rules of the stage that did nothing.
    idle: usize,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step {
            stage,
            rule,
            applies,
            text,
        } in &self.steps
        {
            let mark = if *applies { '*' } else { ' ' };
            write!(f, "{mark} {stage:<9} ")?;
            match rule {
                Some(rule) => writeln!(f, "{rule}: {text}")?,
                None => writeln!(f, "{text}")?,
            }
        }
        match (self.outcome, self.reason) {
            (Outcome::Forwarded, _) => write!(f, "forwarded to {}", self.destinations.join(", ")),
            (Outcome::Absorbed, _) => {
                f.write_str("absorbed: it goes into aggregates and no further")
            }
            (Outcome::Dropped, reason) => write!(f, "dropped: {}", reason.unwrap_or_default()),
        }
    }
}

impl Table {
    /// Tells the way of a line, without its newline. What was seen before is not looked at: whether a point is in order, and
    /// whose turn it is among destinations.
    pub fn explain(&self, line: &[u8], line_bytes_max: usize, moment: Moment<'_>) -> Explanation {
        let mut teller = Teller {
            table: self,
            moment,
            told: Explanation {
                outcome: Outcome::Dropped,
                reason: None,
                name: None,
                steps: Vec::new(),
                aggregates: Vec::new(),
                routes: Vec::new(),
                destinations: Vec::new(),
            },
            idle: 0,
        };
        match teller.line(line, line_bytes_max) {
            Ok(outcome) => teller.told.outcome = outcome,
            Err(reason) => teller.told.reason = Some(reason.as_str()),
        }
        teller.told
    }
}

impl Teller<'_> {
    // The order of the stages.
    fn line(&mut self, raw: &[u8], line_bytes_max: usize) -> Result<Outcome, Reason> {
        let (received, point) = self.parse(raw, line_bytes_max)?;
        self.blocklist(&received)?;
        let name = self.rewrite(received)?;
        self.told.name = Some(text(&name));
        let (is_fed, drops_raw) = self.aggregate(&name, point)?;
        if !drops_raw && self.route(&name) {
            return Ok(Outcome::Forwarded);
        }
        match is_fed {
            true => Ok(Outcome::Absorbed),
            false => Err(Reason::Unrouted),
        }
    }

    fn parse(&mut self, raw: &[u8], line_bytes_max: usize) -> Result<(Vec<u8>, Point), Reason> {
        if raw.len() > line_bytes_max {
            self.step(
                "parse",
                None,
                true,
                format!("{} bytes, of {line_bytes_max} at most", raw.len()),
            );
            return Err(Reason::LineTooLong);
        }
        let validation = self.table.validation;
        let line = Line::any(raw, validation.forwards_not_finite).inspect_err(|reason| {
            self.step("parse", None, true, format!("refused: {}", reason.as_str()));
        })?;
        let point = line.point(self.moment.now);
        let now = match line.timestamp {
            Timestamp::Now => ", which is now",
            Timestamp::At(_) => "",
        };
        self.step(
            "parse",
            None,
            true,
            format!(
                "name '{}', value {}, timestamp {}{now}",
                text(line.name),
                text(line.value),
                point.timestamp
            ),
        );
        let checked = validation
            .names
            .check_tidied(line.name)
            .and_then(|()| validation.check_age(point.timestamp, self.moment.now));
        checked.inspect_err(|reason| {
            self.step(
                "validate",
                None,
                true,
                format!("refused: {}", reason.as_str()),
            );
        })?;
        let order = match validation.rejects_out_of_order {
            true => "; whether it comes in order is not looked at here",
            false => "",
        };
        let received = self.table.normalised(line.name).into_owned();
        let tags = match received == line.name {
            true => String::new(),
            false => format!("; tags normalised: '{}'", text(&received)),
        };
        self.step("validate", None, true, format!("let in{tags}{order}"));
        Ok((received, point))
    }

    fn blocklist(&mut self, name: &[u8]) -> Result<(), Reason> {
        self.idle = 0;
        let table = self.table;
        let entries = table
            .blocklist_entries
            .iter()
            .zip(table.blocklist.patterns());
        for (entry, pattern) in entries {
            let rule = || format!("{} entries[{}]", entry.object, entry.index);
            match pattern.failing(name) {
                Some(condition) => self.does_not_match("blocklist", rule, &condition),
                None => {
                    self.step("blocklist", Some(rule()), true, "drops it".to_owned());
                    return Err(Reason::Blocklisted);
                }
            }
        }
        self.count_idle("blocklist");
        Ok(())
    }

    fn rewrite(&mut self, received: Vec<u8>) -> Result<Vec<u8>, Reason> {
        self.idle = 0;
        let mut name = received.clone();
        let mut made = Vec::new();
        for rule in &self.table.rewriters {
            let place = || format!("{} rules[{}] '{}'", rule.object, rule.index, rule.name);
            if rule.leaves_alone(&name) {
                self.idle("rewrite", place, || "unless holds: left alone".to_owned());
                continue;
            }
            match rule.apply(&name, &mut made) {
                Ok(true) if made != name => {
                    let change = format!("'{}' becomes '{}'", text(&name), text(&made));
                    self.step("rewrite", Some(place()), true, change);
                    std::mem::swap(&mut name, &mut made);
                }
                Ok(_) => self.idle("rewrite", place, || {
                    "there is nothing to replace".to_owned()
                }),
                Err(crate::rewrite::TooLong) => {
                    let why = "the name becomes too long".to_owned();
                    self.step("rewrite", Some(place()), true, why);
                    return Err(Reason::RewrittenInvalid);
                }
            }
        }
        self.count_idle("rewrite");
        if name != received
            && let Err(reason) = self.table.validation.names.check_made(&name)
        {
            let why = format!("'{}' is no name: {}", text(&name), reason.as_str());
            self.step("rewrite", None, true, why);
            return Err(Reason::RewrittenInvalid);
        }
        Ok(name)
    }

    // Whether an aggregate takes the point, and whether the line goes no further.
    fn aggregate(&mut self, name: &[u8], point: Point) -> Result<(bool, bool), Reason> {
        self.idle = 0;
        let table = self.table;
        let mut is_fed = false;
        for (aggregator, pattern, rule) in table.aggregators.iter() {
            let object = || aggregator.object.to_string();
            if let Some(condition) = pattern.failing(name) {
                self.does_not_match("aggregate", object, &condition);
                continue;
            }
            let output = aggregator.output(name, table.validation.names);
            let refused = match &output {
                None => Some(Reason::AggregateInvalid),
                Some(_) => self.refusal(rule, point),
            };
            let start = rule.bucket_start(point.timestamp);
            let mut text = match (&output, refused) {
                (Some(_), None) => {
                    is_fed = true;
                    let step = AggregateStep {
                        aggregator: object(),
                        outputs: outputs(rule, output.as_deref().unwrap_or_default(), start),
                        bucket: start,
                        due: rule.due(start),
                        drop_raw: aggregator.drop_raw,
                    };
                    let text = format!(
                        "into {}, bucket {start}, sent at {}",
                        step.outputs.join(", "),
                        step.due
                    );
                    self.told.aggregates.push(step);
                    text
                }
                (_, refused) => {
                    let reason = refused.unwrap_or(Reason::AggregateInvalid);
                    format!("matches, but does not take it: {}", reason.as_str())
                }
            };
            if aggregator.drop_raw {
                text += "; the line goes no further";
            }
            self.step("aggregate", Some(object()), true, text);
            if aggregator.drop_raw {
                return match refused {
                    Some(reason) if !is_fed => Err(reason),
                    _ => Ok((is_fed, true)),
                };
            }
        }
        self.count_idle("aggregate");
        Ok((is_fed, false))
    }

    // What buckets say that are empty.
    fn refusal(&self, rule: &Rule, point: Point) -> Option<Reason> {
        let now = self.moment.now.0;
        let future_max = u64::from(crate::aggregate::Limits::default().future_seconds_max);
        if !point.value.is_finite() {
            Some(Reason::ValueNotFinite)
        } else if rule.due(rule.bucket_start(point.timestamp)) <= now {
            Some(Reason::AggregatePast)
        } else if u64::from(point.timestamp) > now + future_max {
            Some(Reason::AggregateFuture)
        } else {
            None
        }
    }

    fn route(&mut self, name: &[u8]) -> bool {
        self.idle = 0;
        let table = self.table;
        let mut chosen = Vec::new();
        for (route, pattern) in table.routes.first.iter() {
            let is_taken = self.try_route(route, pattern, name, &mut chosen);
            if is_taken && route.stop {
                break;
            }
        }
        if self.told.routes.is_empty() {
            for (route, pattern) in table.routes.unmatched_only.iter() {
                if self.try_route(route, pattern, name, &mut chosen) {
                    break;
                }
            }
        }
        self.count_idle("route");
        self.told.destinations = self.names(&chosen);
        !self.told.routes.is_empty()
    }

    fn try_route(
        &mut self,
        route: &Route,
        pattern: &Pattern,
        name: &[u8],
        all: &mut Vec<LaneIndex>,
    ) -> bool {
        let object = || route.object.to_string();
        if let Some(condition) = pattern.failing(name) {
            self.does_not_match("route", object, &condition);
            return false;
        }
        let mut fanout = Fanout::default();
        if !route.take(name, &mut fanout) {
            self.idle("route", object, || {
                "no destination's match holds".to_owned()
            });
            return false;
        }
        let mut chosen = Vec::new();
        let mut how = "";
        let mut hash = None;
        match &route.distribution {
            Distribution::RoundRobin => {
                how = " in turn";
                let candidates = route.targets.iter();
                let candidates = candidates.filter(|target| target.pattern.matches(name));
                chosen.extend(candidates.map(|target| target.lanes.of(name)));
            }
            Distribution::ConsistentHash(ring, hash_key) => {
                hash = Some(position(ring.position(&hash_key.of(name))));
                fanout.choose(0, self.moment.is_live, &mut chosen);
            }
            Distribution::All | Distribution::FirstMatch | Distribution::Failover => {
                fanout.choose(0, self.moment.is_live, &mut chosen);
            }
        }
        let mut text = format!("takes it, for {}{how}", self.names(&chosen).join(", "));
        if let Some(hash) = &hash {
            text += &format!(" ({hash})");
        }
        if route.stop {
            text += "; stops";
        }
        self.step("route", Some(object()), true, text);
        self.told.routes.push(RouteStep {
            route: object(),
            destinations: self.names(&chosen),
            hash,
        });
        let new = chosen.into_iter().filter(|one| !all.contains(one));
        let new: Vec<_> = new.collect();
        all.extend(new);
        true
    }

    // Of the destinations.
    fn names(&self, lanes: &[LaneIndex]) -> Vec<String> {
        let name = |lane: &LaneIndex| self.table.destination_of(*lane).name.to_string();
        lanes.iter().map(name).collect()
    }

    fn does_not_match(
        &mut self,
        stage: &'static str,
        rule: impl FnOnce() -> String,
        condition: &str,
    ) {
        self.idle(stage, rule, || format!("match.{condition} does not hold"));
    }

    fn idle(
        &mut self,
        stage: &'static str,
        rule: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) {
        self.idle += 1;
        if self.idle <= IDLE_RULES_MAX {
            self.step(stage, Some(rule()), false, text());
        }
    }

    // Says how many rules were not told of.
    fn count_idle(&mut self, stage: &'static str) {
        if self.idle > IDLE_RULES_MAX {
            let more = self.idle - IDLE_RULES_MAX;
            self.step(stage, None, false, format!("{more} more rules do nothing"));
        }
    }

    fn step(&mut self, stage: &'static str, rule: Option<String>, applies: bool, text: String) {
        self.told.steps.push(Step {
            stage,
            rule,
            applies,
            text,
        });
    }
}

fn outputs(rule: &Arc<Rule>, name: &[u8], start: u32) -> Vec<String> {
    let output = |statistic: &Statistic| {
        let mut out = Vec::new();
        let aggregate = Aggregate {
            rule,
            name,
            statistic: *statistic,
            start,
            value: 0.0,
        };
        aggregate.write_name(&mut out);
        text(&out)
    };
    rule.statistics().iter().map(output).collect()
}

fn position(position: Position) -> String {
    match position {
        Position::Ring { key, point } => format!("key at {key}, point at {point}"),
        Position::Jump { key, bucket } => format!("key {key:#018x}, bucket {bucket}"),
        Position::Rendezvous { key, score } => format!("key {key:#018x}, score {score:#018x}"),
    }
}

// Bytes that are not printable ASCII are escaped.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
