//! How the points of one aggregator are put together.

use std::sync::Arc;
use std::time::Duration;

use super::accumulator::Needs;
use super::{Function, PercentileDefinition, Statistic};

/// The longest interval and the longest wait: 31 days.
const SECONDS_MAX: u64 = 31 * 24 * 3600;

/// What an aggregator does with the points of a bucket. Only sound ones exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    id: Arc<str>,
    statistics: Vec<Statistic>,
    percentile_definition: PercentileDefinition,
    interval_seconds: u32,
    wait_seconds: u32,
    needs: Needs,
}

/// What a [`Rule`] is made of.
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// Stays the same over snapshots and restarts: what buckets are kept by.
    pub id: Arc<str>,
    /// At least one. What is given twice is written once.
    pub functions: Vec<Function>,
    /// For percentiles; the median is the same under all.
    pub percentile_definition: PercentileDefinition,
    /// How long a bucket is: whole seconds, one second to 31 days.
    pub interval: Duration,
    /// When a bucket is due, from its start: whole seconds, the interval to 31 days.
    pub wait: Duration,
}

/// Why there is no such rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// No function is given.
    #[error("no function is named: name at least one, as in [Sum]")]
    NoFunction,
    /// The interval is zero, too long, or has a fraction.
    #[error("{0:?} is not an interval: use whole seconds, 1s to 31 days")]
    Interval(Duration),
    /// The wait is too short, too long, or has a fraction.
    #[error(
        "{wait:?} is not a wait for an interval of {interval:?}: it counts from the start of the bucket, so use whole seconds from {interval:?} to 31 days"
    )]
    Wait {
        /// What was given.
        wait: Duration,
        /// What it must not fall below.
        interval: Duration,
    },
}

/// All rules of a table, by place and by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    // Places in ascending order of the ids there.
    by_id: Vec<RuleIndex>,
}

/// The place of a rule in its [`Rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(u32);

/// Two rules have the same id, which only a fault of the compiler's brings about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule {0} is there twice: ids are unique")]
pub struct DuplicateRule(pub Arc<str>);

impl Rule {
    /// Checks what a rule is to be made of.
    ///
    /// # Errors
    /// The first thing that is wrong; [`InvalidRule::field`] tells where.
    pub fn try_new(settings: RuleSettings) -> Result<Self, InvalidRule> {
        let mut statistics = Vec::new();
        for statistic in settings
            .functions
            .iter()
            .flat_map(|function| function.statistics())
        {
            if !statistics.contains(&statistic) {
                statistics.push(statistic);
            }
        }
        if statistics.is_empty() {
            return Err(InvalidRule::NoFunction);
        }
        let (interval, wait) = (settings.interval, settings.wait);
        let interval_seconds = whole_seconds(interval).ok_or(InvalidRule::Interval(interval))?;
        let wait_seconds = whole_seconds(wait)
            .filter(|seconds| *seconds >= interval_seconds)
            .ok_or(InvalidRule::Wait { wait, interval })?;
        Ok(Self {
            id: settings.id,
            needs: Needs::of(&statistics),
            statistics,
            percentile_definition: settings.percentile_definition,
            interval_seconds,
            wait_seconds,
        })
    }

    /// What buckets are kept by.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The values of a bucket, in the order in which they are written.
    pub fn statistics(&self) -> &[Statistic] {
        &self.statistics
    }

    /// What a percentile means.
    pub fn percentile_definition(&self) -> PercentileDefinition {
        self.percentile_definition
    }

    /// The start of the bucket that a point belongs to: the greatest multiple of the interval that is not after it.
    pub fn bucket_start(&self, timestamp: u32) -> u32 {
        timestamp - timestamp % self.interval_seconds
    }

    /// When a bucket that starts at `start` is due, in seconds since 1970.
    pub fn due(&self, start: u32) -> u64 {
        u64::from(start) + u64::from(self.wait_seconds)
    }

    /// The last second of the bucket that starts at `start`.
    pub(super) fn bucket_end(&self, start: u32) -> u32 {
        start.saturating_add(self.interval_seconds - 1)
    }

    pub(super) fn interval_seconds(&self) -> u32 {
        self.interval_seconds
    }

    pub(super) fn needs(&self) -> Needs {
        self.needs
    }

    /// Whether buckets of this rule can go on as buckets of `other`, the rule with the same id in another table.
    pub(super) fn shares_buckets_with(&self, other: &Self) -> bool {
        self.interval_seconds == other.interval_seconds && self.needs == other.needs
    }
}

impl InvalidRule {
    /// The field of the aggregator that is at fault.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NoFunction => "functions",
            Self::Interval(_) => "interval",
            Self::Wait { .. } => "wait",
        }
    }
}

impl Rules {
    /// Puts rules together; a [`RuleIndex`] counts in this order.
    ///
    /// # Errors
    /// Two rules have the same id.
    pub fn try_new(rules: Vec<Rule>) -> Result<Self, DuplicateRule> {
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        let mut by_id: Vec<RuleIndex> = (0..rules.len())
            .map(|place| RuleIndex(place as u32))
            .collect();
        let id = |index: RuleIndex| rules[index.get()].id();
        by_id.sort_unstable_by_key(|index| id(*index));
        match by_id.windows(2).find(|pair| id(pair[0]) == id(pair[1])) {
            Some(pair) => Err(DuplicateRule(Arc::clone(id(pair[0])))),
            None => Ok(Self { rules, by_id }),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Every rule with its place.
    pub fn iter(&self) -> impl Iterator<Item = (RuleIndex, &Arc<Rule>)> {
        let places = (0..).map(RuleIndex);
        places.zip(&self.rules)
    }

    /// The rule at a place of this table.
    ///
    /// # Panics
    /// The place is another table's and beyond this one's end.
    pub fn get(&self, index: RuleIndex) -> &Arc<Rule> {
        &self.rules[index.get()]
    }

    /// The place of the rule with an id.
    pub fn find(&self, id: &str) -> Option<RuleIndex> {
        let by_id = &self.by_id;
        let found = by_id.binary_search_by(|index| self.get(*index).id().as_ref().cmp(id));
        found.ok().map(|place| by_id[place])
    }

    /// Where buckets of `rule`, which is of another table, can go on.
    pub(super) fn successor(&self, rule: &Rule) -> Option<RuleIndex> {
        self.find(rule.id())
            .filter(|index| self.get(*index).shares_buckets_with(rule))
    }
}

impl RuleIndex {
    /// The index of a place, from zero.
    pub(crate) fn at(place: usize) -> Self {
        Self(place as u32)
    }

    /// The place, from zero.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

fn whole_seconds(duration: Duration) -> Option<u32> {
    let seconds = duration.as_secs();
    let fine = duration.subsec_nanos() == 0 && (1..=SECONDS_MAX).contains(&seconds);
    fine.then_some(seconds as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(interval_ms: u64, wait_ms: u64) -> RuleSettings {
        RuleSettings {
            id: "r".into(),
            functions: vec![Function::One(Statistic::Sum)],
            percentile_definition: PercentileDefinition::R6,
            interval: Duration::from_millis(interval_ms),
            wait: Duration::from_millis(wait_ms),
        }
    }

    #[test]
    fn unsound_rules_are_refused_with_field_and_remedy() {
        let mut no_function = settings(10_000, 12_000);
        no_function.functions.clear();
        for (settings, field, message) in [
            (
                no_function,
                "functions",
                "no function is named: name at least one, as in [Sum]",
            ),
            (
                settings(0, 12_000),
                "interval",
                "0ns is not an interval: use whole seconds, 1s to 31 days",
            ),
            (
                settings(1500, 12_000),
                "interval",
                "1.5s is not an interval: use whole seconds, 1s to 31 days",
            ),
            (
                settings(10_000, 9000),
                "wait",
                "9s is not a wait for an interval of 10s: it counts from the start of the bucket, so use whole seconds \
                 from 10s to 31 days",
            ),
        ] {
            let error = Rule::try_new(settings).unwrap_err();
            assert_eq!(
                (error.field(), error.to_string().as_str()),
                (field, message)
            );
        }
        for (interval_ms, wait_ms) in [(10_000, 10_500), (2_678_401_000, 2_678_401_000)] {
            assert!(Rule::try_new(settings(interval_ms, wait_ms)).is_err());
        }
        let longest = Rule::try_new(settings(2_678_400_000, 2_678_400_000)).unwrap();
        assert_eq!(longest.due(u32::MAX), 4_294_967_295 + 2_678_400);
    }

    #[test]
    fn a_value_that_several_functions_give_is_written_once() {
        let mut several = settings(10_000, 10_000);
        several.functions = ["P95", "Percentiles", "Sum", "P95"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let rule = Rule::try_new(several).unwrap();
        let names: Vec<String> = rule.statistics().iter().map(Statistic::to_string).collect();
        assert_eq!(names, ["p95", "p25", "p50", "p75", "p90", "p99", "sum"]);
    }

    // carbon-relay-ng's example.
    #[test]
    fn points_belong_to_the_bucket_that_starts_at_or_before_them() {
        let rule = Rule::try_new(settings(60_000, 60_000)).unwrap();
        for timestamp in [60_000, 60_001, 60_010, 60_020, 60_030, 60_059] {
            assert_eq!(rule.bucket_start(timestamp), 60_000);
        }
        assert_eq!(rule.bucket_start(60_060), 60_060);
        assert_eq!(rule.bucket_end(60_000), 60_059);
        assert_eq!(rule.due(60_000), 60_060);
    }

    #[test]
    fn rules_are_found_by_ids_which_are_unique() {
        let rule = |id: &str| {
            let settings = RuleSettings {
                id: id.into(),
                ..settings(10_000, 10_000)
            };
            Rule::try_new(settings).unwrap()
        };
        let rules = Rules::try_new(vec![rule("b"), rule("c"), rule("a")]).unwrap();
        let places = ["a", "b", "c", "d"].map(|id| rules.find(id).map(RuleIndex::get));
        assert_eq!(places, [Some(2), Some(0), Some(1), None]);
        let twice = Rules::try_new(vec![rule("b"), rule("a"), rule("b")]);
        assert_eq!(twice.unwrap_err(), DuplicateRule("b".into()));
    }
}
