//! Workers, flushes, changes of the table and restarts against a reference that keeps all points in one list.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

pub(super) const LIMITS: Limits = Limits {
    buckets_max: usize::MAX,
    bytes_max: usize::MAX,
    values_max: usize::MAX,
    future_seconds_max: 40,
    idle_seconds: 15,
};

const WORKERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Point {
        worker: usize,
        rule: usize,
        name: &'static str,
        // From the present.
        seconds: i64,
        value: f64,
    },
    Wait {
        seconds: u32,
    },
    Flush,
    ChangeTable,
    Restart,
}

// A point that was taken.
#[derive(Clone, Debug)]
struct Kept {
    worker: usize,
    rule: Arc<Rule>,
    name: &'static str,
    start: u32,
    timestamp: u32,
    value: f64,
}

// A line, without the way in which it is written.
type Line = (u32, String, String, String, f64);

#[derive(Default)]
struct Reference {
    // In the order in which they were received.
    points: Vec<Kept>,
    flushed_at: u32,
}

struct System {
    tables: [Rules; 2],
    table: usize,
    workers: Vec<Buckets>,
    // As the caller's cache has them, which is never told when an output goes.
    ids: BTreeMap<(usize, String, &'static str), OutputId>,
    stamp: u64,
    now: u32,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn workers_that_merge_give_what_one_list_of_all_points_gives(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut system = System::new();
        let mut reference = Reference::default();
        for step in &steps {
            match *step {
                Step::Point { worker, rule, name, seconds, value } => {
                    let rule = Arc::clone(system.rules().iter().nth(rule % 3).unwrap().1);
                    let timestamp = (i64::from(system.now) + seconds) as u32;
                    let start = timestamp - timestamp % rule.interval_seconds();
                    let kept = Kept { worker, rule, name, start, timestamp, value };
                    let expected = reference.observe(kept.clone(), system.now);
                    prop_assert_eq!(system.observe(&kept), expected, "{:?}", kept);
                }
                Step::Wait { seconds } => system.now += seconds,
                Step::Flush => {
                    let now = system.now;
                    let taken = system.of_all_workers(|buckets| take_due(buckets, now));
                    reference.flushed_at = now;
                    assert_same(taken, reference.take(|kept| kept.rule.due(kept.start) <= u64::from(now)));
                }
                Step::ChangeTable => {
                    system.table = 1 - system.table;
                    let rules = system.rules().clone();
                    let taken = system.of_all_workers(|buckets| buckets.change_rules(rules.clone()));
                    let rules = system.rules();
                    assert_same(taken, reference.take(|kept| rules.successor(&kept.rule).is_none()));
                    reference.go_over_to(rules);
                }
                Step::Restart => {
                    system.restart();
                    reference.points.iter_mut().for_each(|kept| kept.worker = 0);
                    reference.flushed_at = 0;
                }
            }
        }
        let taken = system.of_all_workers(Buckets::take_all);
        assert_same(taken, reference.take(|_| true));
        let now = system.now;
        system.workers.iter_mut().for_each(|buckets| assert_nothing_is_held(buckets, now));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let point = (
        0..WORKERS,
        0_usize..3,
        prop::sample::select(vec!["a", "b"]),
        -25_i64..50,
        -20_i32..20,
    );
    prop_oneof![
        20 => point.prop_map(|(worker, rule, name, seconds, value)| Step::Point {
            worker,
            rule,
            name,
            seconds,
            // Such that every sum is exact.
            value: f64::from(value) / 4.0,
        }),
        4 => (1_u32..9).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Flush),
        1 => Just(Step::ChangeTable),
        1 => Just(Step::Restart),
    ]
}

pub(super) fn tables() -> [Rules; 2] {
    let rule = |id: &str, functions: &[&str], definition, interval, wait| {
        let settings = RuleSettings {
            id: id.into(),
            functions: functions.iter().map(|text| text.parse().unwrap()).collect(),
            percentile_definition: definition,
            interval: Duration::from_secs(interval),
            wait: Duration::from_secs(wait),
        };
        Rule::try_new(settings).unwrap()
    };
    let (r6, r7) = (PercentileDefinition::R6, PercentileDefinition::R7);
    let nearest = PercentileDefinition::NearestRank;
    [
        vec![
            rule("all", ALL, r6, 10, 12),
            rule("few", &["Sum", "Avg"], r6, 7, 7),
            rule("mixed", &["P99.9", "Last", "P7"], r7, 10, 30),
        ],
        vec![
            // It stays, all else is new.
            rule("mixed", &["Last", "P50"], nearest, 10, 20),
            rule("few", &["Sum", "Avg"], r6, 14, 14),
            rule("other", &["Derive", "Min"], r6, 10, 10),
        ],
    ]
    .map(|rules| Rules::try_new(rules).unwrap())
}

impl System {
    fn new() -> Self {
        let tables = tables();
        Self {
            workers: workers(&tables[0]),
            tables,
            table: 0,
            ids: BTreeMap::new(),
            stamp: 0,
            now: NOW,
        }
    }

    fn rules(&self) -> &Rules {
        &self.tables[self.table]
    }

    fn observe(&mut self, point: &Kept) -> Observed {
        self.stamp += 1;
        let key = (point.worker, point.rule.id().to_string(), point.name);
        let index = self.rules().find(point.rule.id()).unwrap();
        let (now, stamp) = (self.now, self.stamp);
        let buckets = &mut self.workers[point.worker];
        let intern = |buckets: &mut Buckets| buckets.intern(index, point.name.as_bytes()).unwrap();
        let observe = |buckets: &mut Buckets, id| {
            buckets.observe(id, point.timestamp, point.value, now, stamp)
        };
        let id = self.ids.entry(key).or_insert_with(|| intern(buckets));
        let observed = observe(buckets, *id);
        if observed != Observed::Gone {
            return observed;
        }
        *id = intern(buckets);
        observe(buckets, *id)
    }

    fn of_all_workers(&mut self, mut take: impl FnMut(&mut Buckets) -> Vec<Partial>) -> Vec<Line> {
        merged_lines(self.workers.iter_mut().flat_map(&mut take).collect())
    }

    fn restart(&mut self) {
        let open = self
            .workers
            .iter_mut()
            .flat_map(Buckets::take_all)
            .collect();
        let bytes = checkpoint::encode(&merge(open));
        assert_eq!(
            self.workers.iter().map(Buckets::open).sum::<usize>(),
            0,
            "all were taken"
        );
        self.workers = workers(self.rules());
        self.ids.clear();
        let restored = checkpoint::decode(&bytes, self.rules()).unwrap();
        assert_eq!(restored.leftovers, []);
        for partial in restored.buckets {
            assert_eq!(self.workers[0].restore(partial), Observed::Taken);
        }
    }
}

fn workers(rules: &Rules) -> Vec<Buckets> {
    (0..WORKERS)
        .map(|_| Buckets::new(rules.clone(), LIMITS))
        .collect()
}

fn merged_lines(partials: Vec<Partial>) -> Vec<Line> {
    let mut lines = Vec::new();
    let not_finite = finish(merge(partials), |aggregate| {
        lines.push((
            aggregate.start,
            String::from_utf8(aggregate.name.to_vec()).unwrap(),
            aggregate.rule.id().to_string(),
            aggregate.statistic.to_string(),
            aggregate.value,
        ));
    });
    assert_eq!(not_finite, 0);
    lines
}

impl Reference {
    fn observe(&mut self, point: Kept, now: u32) -> Observed {
        let is_open = self.points.iter().any(|kept| {
            kept.worker == point.worker
                && kept.rule.id() == point.rule.id()
                && kept.name == point.name
                && kept.start == point.start
        });
        if !is_open {
            if point.rule.due(point.start) <= u64::from(now.max(self.flushed_at)) {
                return Observed::Late;
            }
            if point.timestamp > now + LIMITS.future_seconds_max {
                return Observed::Future;
            }
        }
        self.points.push(point);
        Observed::Taken
    }

    fn take(&mut self, is_taken: impl Fn(&Kept) -> bool) -> Vec<Line> {
        let (taken, kept) = std::mem::take(&mut self.points)
            .into_iter()
            .partition(is_taken);
        self.points = kept;
        let taken: Vec<Kept> = taken;
        let mut buckets: BTreeMap<(u32, &str, Arc<str>), Vec<Kept>> = BTreeMap::new();
        for point in taken {
            let key = (point.start, point.name, Arc::clone(point.rule.id()));
            buckets.entry(key).or_default().push(point);
        }
        let mut lines = Vec::new();
        for ((start, name, id), points) in buckets {
            for statistic in points[0].rule.statistics() {
                if let Some(value) = naive(&points, *statistic) {
                    lines.push((
                        start,
                        name.to_owned(),
                        id.to_string(),
                        statistic.to_string(),
                        value,
                    ));
                }
            }
        }
        lines
    }

    fn go_over_to(&mut self, rules: &Rules) {
        for point in &mut self.points {
            let index = rules.find(point.rule.id()).unwrap();
            point.rule = Arc::clone(rules.get(index));
        }
    }
}

// Straight from what the functions are said to be.
fn naive(points: &[Kept], statistic: Statistic) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point.value).collect();
    let last = *values.last().unwrap();
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    let count = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let definition = points[0].rule.percentile_definition();
    match statistic {
        Statistic::Avg => Some(sum / count),
        Statistic::Count => Some(count),
        Statistic::Delta => Some(max - min),
        Statistic::Last => Some(last),
        Statistic::Max => Some(max),
        Statistic::Min => Some(min),
        Statistic::Sum => Some(sum),
        Statistic::Stdev => {
            let squares = values.iter().map(|value| (value - sum / count).powi(2));
            Some((squares.sum::<f64>() / count).sqrt())
        }
        Statistic::Derive => {
            // Of equal ones `min_by_key` gives the first; `max_by_key` the last, so the other way round.
            let oldest = points.iter().min_by_key(|point| point.timestamp).unwrap();
            let newest = points
                .iter()
                .rev()
                .max_by_key(|point| point.timestamp)
                .unwrap();
            let seconds = newest.timestamp - oldest.timestamp;
            (seconds > 0).then(|| (newest.value - oldest.value) / f64::from(seconds))
        }
        Statistic::Median => Some(interpolated(&values, (count + 1.0) / 2.0)),
        Statistic::Percentile(percentile) => {
            let text = percentile.to_string().replace('_', ".");
            let share = text[1..].parse::<f64>().unwrap() / 100.0;
            Some(match definition {
                PercentileDefinition::R6 => interpolated(&values, share * (count + 1.0)),
                PercentileDefinition::R7 => interpolated(&values, share * (count - 1.0) + 1.0),
                // The least value that at least this share of all values does not exceed.
                PercentileDefinition::NearestRank => {
                    let rank = (1..values.len()).find(|rank| *rank as f64 / count >= share);
                    values[rank.unwrap_or(values.len()) - 1]
                }
            })
        }
    }
}

fn interpolated(ascending: &[f64], rank: f64) -> f64 {
    let rank = rank.clamp(1.0, ascending.len() as f64);
    let (lower, upper) = (
        ascending[rank.floor() as usize - 1],
        ascending[rank.ceil() as usize - 1],
    );
    lower + rank.fract() * (upper - lower)
}

fn assert_same(found: Vec<Line>, expected: Vec<Line>) {
    let without_values = |lines: &[Line]| -> Vec<_> {
        lines
            .iter()
            .map(|(start, name, id, statistic, _)| {
                (*start, name.clone(), id.clone(), statistic.clone())
            })
            .collect()
    };
    assert_eq!(without_values(&found), without_values(&expected));
    for (found, expected) in found.iter().zip(&expected) {
        let is_close = (found.4 - expected.4).abs() <= 1e-9 * expected.4.abs().max(1.0);
        assert!(is_close, "{found:?} is not {expected:?}");
    }
}
